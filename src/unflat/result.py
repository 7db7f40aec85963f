"""The folder that a person gets for a picture: the scene, pictures of it, a viewer, a report.

cat/
    input.png            what the model saw: squared
    scene.safetensors    the scene
    preview.png          input | reconstruction | two sides | depth; objects: all sides, normals
    orbit.mp4            3 s, loops; orbit.webp without the video extra
    viewer.html          one file, no network
    report.json          see unflat.report
    mesh.glb, ...        what else was asked for
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unflat.errors import UserError, require_extra
from unflat.files import atomic_folder
from unflat.report import Report

if TYPE_CHECKING:
    from unflat.export import Layer
    from unflat.geometry.camera import Camera
    from unflat.object_scene import ObjectScene
    from unflat.scene import Frames, PathName, Scene

FORMATS = ("mp4", "webp", "glb", "ply", "obj", "splat", "depth", "html")
"""What a scene can be written as, by the names of ``--format``."""

VIDEO_FORMATS = ("mp4", "webp")

ORBIT_FRAMES = 72
ORBIT_FPS = 24
"""Three seconds."""

LEAST_CONFIDENCE, _FINE = 0.3, 0.6
"""Confidence below which a person is warned, and from which it is called fine."""

_PREVIEW_WIDTH = 1024
_PREVIEW_PICTURES = 5
_LAYER_SIDE = 512
"""Most pixels on a side of the layers that the viewer, splats and depth are made from."""
_SIDE_SHARE = 0.6
"""Of the honest range, for the two side views in the preview."""

_FILES = {
    "mp4": "orbit.mp4",
    "webp": "orbit.webp",
    "glb": "mesh.glb",
    "ply": "mesh.ply",
    "obj": "mesh.obj",
    "splat": "splats.ply",
    "depth": "depth.png",
    "html": "viewer.html",
}


_BESIDE = {"obj": ("mesh.mtl", "mesh.png"), "depth": ("depth.npy",)}
"""What may lie beside a file and belongs to it."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what this installation cannot write, before any work is done.

    Raises:
        UserError: a format needs an extra that is missing.
    """
    if "mp4" in formats:
        require_extra("av", "video", "--format mp4")


def resolve_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Names from `FORMATS`, each once, of names as a person says them.

    ``orbit`` is the usual video, ``mesh`` a GLB file.
    """
    meant = {"orbit": usual_video(), "mesh": "glb"}
    return tuple(dict.fromkeys(meant.get(name, name) for name in names))


def usual_video() -> str:
    """``mp4`` where the video extra is installed, else ``webp``."""
    return "mp4" if importlib.util.find_spec("av") is not None else "webp"


def write_result(
    make: "Callable[[], Scene | ObjectScene]",
    folder: str | Path,
    report: Report,
    *,
    name: str,
    formats: Sequence[str] = (),
    frames: int = ORBIT_FRAMES,
    size: int | None = None,
    force: bool = False,
    optional: Sequence[str] = (),
    also: "Callable[[Path], Sequence[str]] | None" = None,
) -> Path:
    """The result folder, whole or not at all; refused before the work if it cannot be.

    Args:
        make: gives the scene of a photo or of an object.
        folder: where to.
        report: goes into the folder as ``report.json``; gets stages, files and warnings.
        name: of the picture, for titles and for people who do not see it.
        formats: beside the usual files, from `FORMATS`.
        frames: of the orbit.
        size: of the orbit in pixels; the scene's own unless given.
        force: replace an older result.
        optional: formats that are left out, with a warning, if an object has no surface; so is the
            viewer, if it is not asked for.
        also: writes further files into the folder once the scene is made, gives their names.

    Raises:
        UserError: the folder is in use or cannot be written, or a format needs an extra.
    """
    check_formats(formats)
    videos = [kind for kind in VIDEO_FORMATS if kind in formats] or [usual_video()]
    wanted = [*videos, "html", *(kind for kind in formats if kind not in (*videos, "html"))]
    with atomic_folder(folder, force) as partial:
        scene = make()
        report.licences.setdefault("model", scene.header.licence)
        _warn_of_low_confidence(scene, report, name)
        with report.stage("preview"):
            write_preview(scene, partial)
        scene.save(partial / "scene.safetensors")
        report.files = ["input.png", "scene.safetensors", "preview.png"]
        if also is not None:
            report.files += also(partial)
        write_formats(
            scene,
            partial,
            wanted,
            report,
            name=name,
            frames=frames,
            size=size,
            optional=optional if "html" in formats else (*optional, "html"),
        )
        report.files = [file for file in report.files if (partial / file).exists()]
        report.files.append("report.json")
        report.write(partial / "report.json")
    return Path(folder)


def _warn_of_low_confidence(scene: "Scene | ObjectScene", report: Report, name: str) -> None:
    if report.confidence is not None and report.confidence < LEAST_CONFIDENCE:
        report.warn(
            f"low confidence: far from what {scene.header.model} was trained on; "
            "expect a flat or wrong shape",
            about=name,
        )


def write_formats(
    scene: "Scene | ObjectScene",
    folder: Path,
    formats: Sequence[str],
    report: Report,
    *,
    name: str,
    path: "PathName" = "orbit",
    video: str = "orbit",
    frames: int = ORBIT_FRAMES,
    size: int | None = None,
    quality: Literal["layers", "field"] | None = None,
    describe: str | None = None,
    optional: Sequence[str] = (),
) -> None:
    """Write a scene in some formats into a folder that exists; adds to ``report.files``.

    Each file is whole or absent.

    Args:
        scene: to write.
        folder: where to.
        formats: from `FORMATS`.
        report: gets stages, files and figures.
        name: of the picture.
        path: camera path of the videos: ``orbit``, ``spiral`` or ``wiggle``.
        video: name of the videos, without ending.
        frames: of the videos.
        size: of the videos in pixels; the scene's own unless given.
        quality: of the videos of a photo's scene, see `unflat.scene.Scene.orbit`; ``layers`` unless
            given. Objects are always rendered from their field.
        describe: a sentence for people who do not see it; from the name unless given.
        optional: formats that are left out, with a warning, if an object has no surface.

    Raises:
        UserError: an object has no surface, or no layers.
    """
    from unflat.object_result import write_object_files
    from unflat.object_scene import ObjectScene

    what = "object" if isinstance(scene, ObjectScene) else "scene"
    if quality == "layers" and what == "object":
        raise UserError("--quality layers: objects are rendered from their field; drop the option.")
    made = f"{what} made from the picture" if scene.header.source else f"generated {what},"
    describe = describe or f"{'an' if made[0] == 'o' else 'a'} {made} {name}"
    square = None if size is None else (size, size)
    film = None
    videos = [kind for kind in formats if kind in VIDEO_FORMATS]
    if videos:
        film = _film(scene, path, frames, square, quality or "layers", report)
        for kind in videos:
            film.save(folder / f"{video}.{kind}")
            report.files.append(f"{video}.{kind}")
    files = {kind: _FILES[kind] for kind in formats if kind not in VIDEO_FORMATS}
    if isinstance(scene, ObjectScene):
        write_object_files(
            scene,
            folder,
            files,
            report,
            name=name,
            describe=describe,
            info=_info(scene, report, name),
            film=film if path == "orbit" else None,
            optional=optional,
        )
    else:
        _write_scene_files(scene, folder, files, report, name, describe)


def _film(
    scene: "Scene | ObjectScene",
    path: "PathName",
    frames: int,
    size: tuple[int, int] | None,
    quality: Literal["layers", "field"],
    report: Report,
) -> "Frames":
    from unflat.object_scene import ObjectScene

    with report.stage("render", total=frames, unit="views") as stage:

        def told(done: int, _: int) -> None:
            stage.advance(done - stage.done)

        if isinstance(scene, ObjectScene):
            return scene.orbit(path, frames, size, progress=told)
        return scene.orbit(path, frames, size, quality=quality, progress=told)


def _write_scene_files(
    scene: "Scene",
    folder: Path,
    files: Mapping[str, str],
    report: Report,
    name: str,
    describe: str,
) -> None:
    """Formats of a photo's scene that are no videos."""
    from unflat.export import splats_from_layers, write_depth, write_mesh, write_splats

    meshes = [kind for kind in files if kind in ("glb", "ply", "obj")]
    if meshes:
        with report.stage("mesh") as stage:
            mesh = scene.mesh()
            stage.note = f"{len(mesh.faces)} triangles, vertex colours"
            for kind in meshes:
                write_mesh(mesh, folder / files[kind], describe=describe)
                report.files.append(files[kind])
    if not any(kind in files for kind in ("splat", "depth", "html")):
        return
    with report.stage("layers"):
        height, width = scene.size
        layers = scene.layers((min(_LAYER_SIDE, height), min(_LAYER_SIDE, width)))
    if "splat" in files:
        with report.stage("splats") as stage:
            splats = splats_from_layers(layers, scene.camera)
            write_splats(splats, folder / files["splat"])
            stage.note = f"{len(splats.centers)} splats"
            report.files.append(files["splat"])
    if "depth" in files:
        scale = write_depth(layers[0].depth, folder / files["depth"])
        report.figures["depth_units_per_level"] = scale
        report.files += [files["depth"], "depth.npy"]
    if "html" in files:
        with report.stage("viewer"):
            _write_viewer(scene, layers, folder / files["html"], report, name, describe)
            report.files.append(files["html"])


def write_preview(scene: "Scene | ObjectScene", folder: Path) -> None:
    """``input.png`` if the scene carries the photo it is of, and the strip ``preview.png``."""
    from unflat.export import colorize_disparity, preview_strip, write_png
    from unflat.object_result import write_object_preview
    from unflat.object_scene import ObjectScene

    if isinstance(scene, ObjectScene):
        write_object_preview(scene, folder)
        return
    side = _PREVIEW_WIDTH // _PREVIEW_PICTURES
    front = scene.render(size=(side, side))
    label = "reconstruction" if scene.header.source else "front"
    label = "edited" if scene.is_edited else label
    pictures: list[tuple[str, Any]] = [(label, front.rgb[0])]
    if scene.photo is not None and scene.header.source:  # a generated scene shows itself
        write_png(scene.photo, folder / "input.png")
        pictures.insert(0, ("input", scene.photo))
    layered = scene.layered((2 * side, 2 * side))
    for label, sign in (("from the left", -1), ("from the right", 1)):
        camera = _side_camera(scene, sign * _SIDE_SHARE * scene.max_angle)
        pictures.append((label, layered.view(camera)))
    pictures.append(("depth, near is bright", colorize_disparity(front.disparity[0])))
    write_png(preview_strip(pictures, _PREVIEW_WIDTH), folder / "preview.png")


def in_words(confidence: float | None) -> str:
    """A confidence with what to think of it, as in "0.71 (fine)"."""
    if confidence is None:
        return "not known"
    word = "low" if confidence < LEAST_CONFIDENCE else "fine" if confidence >= _FINE else "middling"
    return f"{confidence:.2f} ({word})"


def free_places(
    folder: Path, formats: Sequence[str], *, video: str = "orbit", force: bool = False
) -> list[Path]:
    """Where `write_formats` would write.

    Raises:
        UserError: a file is there already, and ``force`` is not given.
    """
    places = []
    for kind in formats:
        place = folder / (f"{video}.{kind}" if kind in VIDEO_FORMATS else _FILES[kind])
        for taken in (place, *(folder / name for name in _BESIDE.get(kind, ()))):
            if taken.exists() and not force:
                raise UserError(
                    f"{taken}: is there already; add --force to replace it or choose --out."
                )
        places.append(place)
    return places


def scene_file(given: str | Path) -> Path:
    """The scene file that a person means by a file or by a result folder.

    Raises:
        UserError: there is none.
    """
    path = Path(given)
    if path.is_dir():
        inside = path / "scene.safetensors"
        if not inside.is_file():
            raise UserError(f"{given}: holds no scene.safetensors; give a result folder.")
        return inside
    if not path.is_file():
        raise UserError(f"{given}: there is no such file; give a scene.safetensors or its folder.")
    return path


def _side_camera(scene: "Scene", angle: float) -> "Camera":
    """The canonical camera turned about the scene's pivot by an angle (radians, right positive)."""
    import torch

    from unflat.geometry.camera import Camera
    from unflat.geometry.trajectory import turn_about_pivot

    right, up = torch.tensor([angle]), torch.zeros(1)
    return Camera(
        camera_to_world=turn_about_pivot(right, up, scene.pivot_depth),
        intrinsics=scene.camera.intrinsics.reshape(1, 4),
    )


def _write_viewer(
    scene: "Scene",
    layers: list["Layer"],
    path: Path,
    report: Report,
    name: str,
    describe: str,
) -> None:
    from unflat.export.viewer import write_viewer

    write_viewer(
        layers,
        scene.camera,
        path,
        title=name,
        info=_info(scene, report, name),
        max_angle_deg=math.degrees(scene.max_angle),
        pivot_depth=scene.pivot_depth,
        describe=describe,
    )


def _info(scene: "Scene | ObjectScene", report: Report, name: str) -> dict[str, object]:
    """What a viewer tells of where its scene came from."""
    header = scene.header
    confidence = header.confidence if report.confidence is None else report.confidence
    return {
        "picture" if header.source else "name": header.source or name,
        "model": header.model,
        "licence": header.licence,
        "confidence": in_words(confidence),
        "date": header.created,
    }
