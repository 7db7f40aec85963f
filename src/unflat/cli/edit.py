"""``unflat edit``: a mesh or another scene is put into a scene; or an object changes its colors."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unflat.cli.options import (
    Placed,
    Planned,
    Rendered,
    Speech,
    formats_of,
    require_range,
)
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from unflat.geometry import Placement
    from unflat.object_scene import ObjectScene
    from unflat.scene import Scene

_OPTION_OF = {
    "placement x": "--at X",
    "placement y": "--at Y",
    "placement nearness": "--at Z",
    "placement size": "--object-size",
    "placement turn": "--turn-deg",
    "a nearness of": "a Z of",
    "a smaller size": "a smaller --object-size",
}
"""What the library calls a number, and which option a person gave it by."""


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Rendered):
    """Something is put into a scene, or an object takes the colors of another.

    cat/ gives cat-edited/: scene, preview, orbit, viewer, report. What is put in is hidden by what
    stands before it and hides what is behind; light and shadows of the scene do not fall on it.
    """

    scene: Annotated[Path, tyro.conf.Positional]
    """A scene.safetensors, or the result folder that holds one."""
    insert: Path | None = None
    """What to put in: a mesh (glb, gltf, obj, ply, off, stl), an object's scene, or the scene of
    another photo, of which the subject is taken."""
    at: str | None = None
    """Where: X,Y puts its underside on what is seen there, X,Y,Z its middle to that place. X: -1
    left to 1 right border of the picture; Y: -1 lower to 1 upper; Z: 0 farthest to 1 nearest, dark
    to bright in the preview's depth."""
    colors_from: Path | None = None
    """Another object of the same model, in whose colors the object is to be."""
    object_size: float = 0.3
    """Its longest side as a share of what of the scene's height is visible where it is."""
    turn_deg: float = 0.0
    """Turn about its upright axis, degrees, counter-clockwise seen from above."""
    farthest: float | None = None
    """Of an inserted scene: what is kept, from this (0 farthest to 1 nearest) on; what parts its
    near from its far best if not given."""
    mask: Path | None = None
    """Of an inserted scene: a picture that is white where its photo is kept; what stands on its
    ground if not given."""
    resolution: int = 128
    """Voxels along the longest side of an inserted mesh."""
    format: str | None = None
    """Also write these, as in mp4,glb: mp4 webp (orbit: one of them) glb (or mesh) ply obj splat
    depth."""
    size: int | None = None
    """Side of the orbit in pixels; the scene's own if not given."""
    frames: int = 72
    """Pictures of the orbit, 24 a second."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of editing."""
    from unflat.result import FORMATS, check_formats, scene_file

    formats = formats_of(options.format, FORMATS) if options.format else ()
    check_formats(formats)
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    require_range(options.resolution, 16, 256, "--resolution", "voxels")
    require_range(options.farthest, 0, 1, "--farthest", "(farthest to nearest)")
    source = scene_file(options.scene)
    if options.colors_from is not None:
        return _recolor(options, source, formats, terminal)
    if options.insert is None or options.at is None:
        missing = "--insert" if options.insert is None else "--at"
        raise UserError(
            f"{missing}: is not given; give --insert with --at to put something in, or "
            "--colors-from for other colors."
        )
    given = scene_file(options.insert) if _is_scene(options.insert) else options.insert
    name = source.resolve().parent.name
    folder = options.out or Path(f"{name}-edited")
    place = _numbers(options.at)
    placement = _place(options, place, nearness=0.5 if len(place) == 2 else place[2])
    if options.dry_run:
        terminal.line(f"would put {given} into {source}, to {folder}/")
        terminal.object("plan", {"scene": str(source), "insert": str(given), "out": str(folder)})
        return 0
    report = Report(
        "edit",
        inputs=[str(source), str(given)],
        settings={
            "at": list(place),
            "object_size": options.object_size,
            "turn_deg": options.turn_deg,
            "farthest": options.farthest,
            "mask": None if options.mask is None else str(options.mask),
            "resolution": options.resolution,
        },
        listener=terminal,
    )

    def make() -> "Scene":
        return _edited(options, source, given, placement, report, terminal)

    _write(options, make, folder, report, formats, terminal)
    return 0


def _recolor(options: Options, source: Path, formats: tuple[str, ...], terminal: Terminal) -> int:
    """Exit code of exchanging colors."""
    from unflat.object_scene import ObjectScene
    from unflat.result import scene_file

    assert options.colors_from is not None
    if options.insert is not None or options.at is not None:
        raise UserError(
            "--colors-from: does not go with --insert and --at; do one, then the other."
        )
    given = scene_file(options.colors_from)
    folder = options.out or Path(f"{source.resolve().parent.name}-edited")
    if options.dry_run:
        terminal.line(f"would give {source} the colors of {given}, to {folder}/")
        terminal.object("plan", {"scene": str(source), "colors": str(given), "out": str(folder)})
        return 0
    report = Report("edit", inputs=[str(source), str(given)], settings={}, listener=terminal)

    def make() -> "ObjectScene":
        with report.stage("load"):
            return ObjectScene.load(source).recolored(ObjectScene.load(given))

    _write(options, make, folder, report, formats, terminal)
    return 0


def _write(
    options: Options,
    make: "Callable[[], Scene | ObjectScene]",
    folder: Path,
    report: Report,
    formats: tuple[str, ...],
    terminal: Terminal,
) -> None:
    from unflat.result import write_result

    write_result(
        make,
        folder,
        report,
        name=folder.name,
        formats=formats,
        frames=options.frames,
        size=options.size,
        force=options.force,
    )
    terminal.line(f"wrote {folder}/  {'  '.join(report.files)}")
    terminal.line(f"open {folder / 'viewer.html'} to look around")
    terminal.object("report", report.json())


def _edited(
    options: Options,
    source: Path,
    given: Path,
    placement: "Placement",
    report: Report,
    terminal: Terminal,
) -> "Scene":
    """The scene with what is put in."""
    from dataclasses import replace

    from unflat.data import read_object_mesh
    from unflat.object_scene import ObjectScene, load_scene
    from unflat.scene import Scene

    with report.stage("load"):
        scene = Scene.load(source)
        other = load_scene(given) if given.suffix == ".safetensors" else read_object_mesh(given)
    known = isinstance(other, Scene | ObjectScene)
    report.licences["inserted"] = other.header.licence if known else "not stated"
    seen = scene.nearness_at(placement.x, placement.y)
    if placement.stands:
        placement = replace(placement, nearness=seen)
    elif abs(placement.x) <= 1:
        word = "before" if placement.nearness > seen else "behind"
        terminal.line(f"what is seen there lies at Z {seen:.2f}: its middle comes {word} it")
    report.figures |= {"nearness": round(placement.nearness, 4), "nearness_seen": round(seen, 4)}
    with report.stage("insert"):
        try:
            return scene.insert(
                other.field if isinstance(other, ObjectScene) else other,
                placement,
                resolution=options.resolution,
                farthest=options.farthest,
                mask=_mask(options.mask),
            )
        except UserError as error:
            raise _in_options(error) from error


def _mask(path: Path | None) -> "Tensor | None":
    """Pixels of the centred square that are brighter than half."""
    if path is None:
        return None
    from unflat.data import prepare_picture

    image = prepare_picture(path, 64).image
    return image.mean(0) > 0.5


def _is_scene(path: Path) -> bool:
    return path.is_dir() or path.suffix == ".safetensors"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (2, 3):
        raise UserError(f"--at {text}: is no place; write X,Y or X,Y,Z, as in 0.3,-0.4,0.6.")
    return numbers


def _place(options: Options, place: tuple[float, ...], nearness: float) -> "Placement":
    from unflat.geometry import Placement

    try:
        return Placement(
            x=place[0],
            y=place[1],
            nearness=nearness,
            size=options.object_size,
            turn=math.radians(options.turn_deg),
            stands=len(place) == 2,
        )
    except UserError as error:
        raise _in_options(error) from error


def _in_options(error: UserError) -> UserError:
    """The same sentence with the names of options."""
    text = str(error)
    text = f"--{text}" if text.startswith("farthest") else text
    for word, option in _OPTION_OF.items():
        text = text.replace(word, option)
    return UserError(text)
