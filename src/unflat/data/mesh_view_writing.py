"""A folder of meshes becomes a set to train from, in the layout of Zero-1-to-3's renders.

::

    <uid>/000.png, 000.npy ...   RGBA, straight alpha; 3x4 world to camera, float64, Blender's axes
    valid_paths.json             all uids, those of train first
    train.txt, val.txt           where a share is held out
    objects.csv                  uid, class (the folder of the first level), source
    renders.json                 what the pictures were made with

An object's folder appears when it is whole, so that a stopped run goes on where it was. What an
object looks like depends on the seed and its name alone.
"""

import csv
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from unflat.data.mesh_views import (
    Directions,
    Lighting,
    area,
    draw_cameras,
    draw_light,
    has_embree,
    render_surface,
    to_unit_size,
)
from unflat.data.object_mesh import ENDINGS, gltf_header, read_object_mesh
from unflat.data.pictures import DECODE_ERRORS
from unflat.data.sample import Reject, reason_of
from unflat.data.worker_pool import raise_if_stopped, results_of
from unflat.errors import UserError
from unflat.files import atomic_folder, atomic_path
from unflat.geometry import to_zero123

SETTINGS_FILE = "renders.json"
"""By which a folder is known as one of ours."""

_MOST_BYTES = 1 << 30
_LEAST_AREA = 1e-4  # of a surface whose longest side is 1
_COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What the pictures depend on."""

    views: int = 12
    """Pictures of each object."""
    size: int = 512
    """Side of a picture in pixels."""
    supersample: int = 2
    """Rays along a side of a pixel."""
    directions: Directions = "sphere"
    """Where cameras stand."""
    light: Lighting = "sun"
    """How objects are lit."""
    up: Literal["y", "z"] = "y"
    """In files that do not say it: all but glTF's."""
    max_faces: int = 1_000_000
    """Triangles of an object at most."""
    seed: int = 0
    """Of lights and cameras."""


class MeshFile(NamedTuple):
    """A mesh that was found."""

    uid: str
    """What its object is called: no spaces, no slashes."""
    path: Path
    class_name: str
    """Its folder of the first level; empty without one."""


@dataclass(kw_only=True)
class Rendered:
    """How a run went."""

    total: int = 0
    """Meshes that were found."""
    rendered: list[str] = field(default_factory=list)
    """Uids of the objects that this run made."""
    kept: list[str] = field(default_factory=list)
    """Uids of those that were there."""
    rejects: list[Reject] = field(default_factory=list)
    """Meshes that could not be rendered, and why."""
    held_out: list[str] = field(default_factory=list)
    """Uids of the split val, where a share is held out."""
    stopped: bool = False
    """Whether Ctrl-C ended the run before it was done."""

    @property
    def whole(self) -> list[str]:
        """Uids of all objects that are there."""
        return sorted([*self.rendered, *self.kept])


class _Task(NamedTuple):
    mesh: MeshFile
    place: Path
    config: RenderConfig


def find_meshes(folder: Path) -> tuple[list[MeshFile], list[Reject]]:
    """All meshes below a folder, sorted by name, and those whose name another one has.

    An object is called like its file; where several folders have a file of that name, like its
    path.

    Raises:
        UserError: no such folder, or no mesh in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one with meshes (glb, obj, ply).")
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    shown = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    meshes = [path for path in shown if path.suffix.lower() in ENDINGS]
    meshes = [path for path in meshes if (folder / path).is_file()]
    if not meshes:
        raise UserError(f"{folder}: holds no mesh ({', '.join(e[1:] for e in ENDINGS)}).")
    folders = Counter(stem for stem, _ in {(_word(path.stem), path.parent) for path in meshes})
    found: dict[str, MeshFile] = {}
    rejects = []
    # of files that differ in their ending alone the one that tells most comes first
    for path in sorted(meshes, key=lambda path: ENDINGS.index(path.suffix.lower())):
        stem = _word(path.stem)
        uid = stem if folders[stem] == 1 else "__".join(map(_word, path.with_suffix("").parts))
        if uid in found:
            other = found[uid].path.relative_to(folder)
            rejects.append(Reject(name=str(path), reason=f"has the name of {other}; rename one"))
        else:
            first = path.parts[0] if len(path.parts) > 1 else ""
            found[uid] = MeshFile(uid, folder / path, first)
    return [found[uid] for uid in sorted(found)], rejects


def render_meshes(
    folder: Path,
    out: Path,
    config: RenderConfig,
    *,
    jobs: int = 1,
    val_share: float | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Rendered:
    """Renders what is not there yet, then writes the lists; Ctrl-C ends it early, lists and all.

    Args:
        folder: of meshes.
        out: the set to make, or to go on with.
        config: of the pictures.
        jobs: processes.
        val_share: of the objects that are held out, in (0, 1); no lists of splits if not given.
        force: make anew what is there.
        progress: told (done, all) after each mesh.

    Raises:
        UserError: no mesh, or `out` holds something else, or was made with another config.
    """
    meshes, rejects = find_meshes(folder)
    _claim(out, config, [mesh.uid for mesh in meshes] if force else None)
    done = Rendered(total=len(meshes) + len(rejects), rejects=rejects)
    done.kept = [mesh.uid for mesh in meshes if (out / mesh.uid / "000.npy").is_file()]
    kept = set(done.kept)
    tasks = [_Task(mesh, out / mesh.uid, config) for mesh in meshes if mesh.uid not in kept]
    finished = len(done.kept) + len(rejects)
    if progress is not None:
        progress(finished, done.total)
    try:
        for index, reason in results_of(_render, tasks, jobs, [__name__]):
            mesh = tasks[index].mesh
            if reason != "":
                died = "the process that rendered it died, perhaps for want of memory"
                name = str(mesh.path.relative_to(folder))
                done.rejects.append(Reject(name=name, reason=died if reason is None else reason))
            finished += 1
            if progress is not None:
                progress(finished, done.total)
    except KeyboardInterrupt:
        done.stopped = True
    # what other processes ended while Ctrl-C was heard counts too
    done.rendered = [task.mesh.uid for task in tasks if (task.place / "000.npy").is_file()]
    done.rejects.sort(key=lambda reject: reject.name)
    done.held_out = _held_out(done.whole, val_share, config.seed) if val_share else []
    _write_lists(out, folder, meshes, done, val_share is not None)
    return done


def _word(name: str) -> str:
    """Lists of objects are split at spaces."""
    return re.sub(r"[\s/\\]+", "_", name)


def _claim(out: Path, config: RenderConfig, anew: Sequence[str] | None) -> None:
    """Makes the folder, or checks that it goes on; the objects to be made anew are removed."""
    path = out / SETTINGS_FILE
    settings = {"format": _FORMAT, **asdict(config), "rays": "embree" if has_embree() else "z"}
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; choose another --out.")
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        changed = [key for key, value in settings.items() if before.get(key) != value]
        if changed and anew is None:
            told = ", ".join(f"{key} {before.get(key)}" for key in changed)
            raise UserError(
                f"{out}/: was rendered with {told}; give the same again, another --out, or --force."
            )
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out}/: holds something else than renders; choose another --out.")
    for uid in anew or ():
        if (out / uid / "000.npy").is_file():
            shutil.rmtree(out / uid)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _render(task: _Task) -> str:
    """Renders an object; the reason if it can not be, empty if it was."""
    try:
        _write_object(task)
    except UserError as error:
        return reason_of(str(error), str(task.mesh.path))
    except MemoryError:
        return "does not fit into memory"
    return ""


def _write_object(task: _Task) -> None:
    mesh, config = task.mesh, task.config
    _refuse(mesh.path)
    surface = read_object_mesh(mesh.path)
    faces = sum(len(part.triangles) for part in surface.parts)
    if faces > config.max_faces:
        raise UserError(
            f"{mesh.path}: has {faces:,} triangles, more than {config.max_faces:,}; simplify it, "
            "or raise --max-faces."
        )
    is_gltf = mesh.path.suffix.lower() in (".glb", ".gltf")
    surface = to_unit_size(surface, "y" if is_gltf else config.up)
    if area(surface) < _LEAST_AREA:
        raise UserError(f"{mesh.path}: its triangles have no area; export a surface.")
    digest = hashlib.sha256(f"{config.seed}/{mesh.uid}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    light = draw_light(config.light, rng)
    camera = draw_cameras(config.views, config.directions, rng)
    pictures = render_surface(
        surface, camera, light, config.size, config.supersample, between=raise_if_stopped
    )
    matrices = to_zero123(camera).numpy()
    with atomic_folder(task.place, force=True, shown_by="000.npy") as partial:
        for view, (picture, matrix) in enumerate(zip(pictures, matrices, strict=True)):
            Image.fromarray(picture).save(partial / f"{view:03d}.png")
            np.save(partial / f"{view:03d}.npy", np.ascontiguousarray(matrix, dtype=np.float64))


def _refuse(path: Path) -> None:
    """What a reader of triangles would read wrongly, or not at all."""
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path}: is larger than {_MOST_BYTES >> 30} GiB; simplify it.")
    try:
        about = gltf_header(path)
        skinned = any("skin" in node and "mesh" in node for node in about.get("nodes", []))
        packed = [name for name in _COMPRESSIONS if name in about.get("extensionsRequired", [])]
    except DECODE_ERRORS as error:
        raise UserError(f"{path}: is no whole mesh; write it again.") from error
    if skinned:
        raise UserError(
            f"{path}: its mesh hangs on bones (a skin), which are not read; export it posed."
        )
    if packed:
        raise UserError(f"{path}: is compressed ({packed[0]}); export it uncompressed.")


def _held_out(uids: Sequence[str], share: float, seed: int) -> list[str]:
    """The objects whose names have the lowest digests: few change when others are added."""
    count = min(len(uids) - 1, max(1, round(share * len(uids))))

    def digest(uid: str) -> bytes:
        return hashlib.sha256(f"val/{seed}/{uid}".encode()).digest()

    return sorted(sorted(uids, key=digest)[: max(0, count)])


def _write_lists(
    out: Path, folder: Path, meshes: Sequence[MeshFile], done: Rendered, split: bool
) -> None:
    val = set(done.held_out)
    train = [uid for uid in done.whole if uid not in val]
    ordered = [*train, *done.held_out]
    texts = {"valid_paths.json": json.dumps(ordered) + "\n"}
    if split:
        texts |= {"train.txt": "\n".join([*train, ""]), "val.txt": "\n".join([*done.held_out, ""])}
    else:  # of an earlier run
        for name in ("train.txt", "val.txt"):
            (out / name).unlink(missing_ok=True)
    table, by_uid = io.StringIO(), {mesh.uid: mesh for mesh in meshes}
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["uid", "class", "source"])
    for uid in ordered:
        mesh = by_uid[uid]
        rows.writerow([uid, mesh.class_name, mesh.path.relative_to(folder).as_posix()])
    texts["objects.csv"] = table.getvalue()
    for name, text in texts.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
