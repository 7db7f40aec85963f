"""``unflat interpolate``: from one picture's scene to another's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.options import (
    Computed,
    Modelled,
    Placed,
    Planned,
    Speech,
    formats_of,
    require_range,
)
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import Prepared
    from unflat.scene import Scene, SceneHeader

_CELL = 192  # pixels of a picture in the strip


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Computed, Modelled):
    """From one picture's scene to another's: a strip of both and what lies between, two videos.

    cat.jpg and dog.jpg give cat-to-dog/: strip.png, front (one camera, there and back) and orbit
    (the camera moves as well), scene-00.safetensors and so on, report. Pictures are what the
    model's codes hold of them, without the photos' own detail.
    """

    first: Annotated[Path, tyro.conf.Positional]
    """A picture; its centre square is used."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another one."""
    count: int = 8
    """Scenes in all, the two pictures' own among them."""
    way: Literal["latents", "planes", "tokens"] = "latents"
    """What is mixed: codes before rounding; the planes they become; or token after token is
    switched, so that each step is made of real codes."""
    format: str | None = None
    """Of the videos: mp4 (needs the video extra), webp, or both; orbit, which is mp4 where it
    can be, if not given."""
    size: int = 128
    """Side of the videos in pixels."""
    frames: int = 72
    """Pictures of each video, 24 a second."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of interpolating."""
    from unflat.device import choose_device
    from unflat.files import atomic_folder
    from unflat.hub import find
    from unflat.result import VIDEO_FORMATS, check_formats, usual_video

    videos = formats_of(options.format or usual_video(), VIDEO_FORMATS)
    check_formats(videos)
    require_range(options.count, 2, 1000, "--count", "scenes")
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    device = choose_device(options.device)
    find(options.model, offline=options.offline)
    stems = options.first.stem, options.second.stem
    folder = options.out or Path(f"{stems[0]}-to-{stems[1]}")
    if options.dry_run:
        terminal.line(f"would make {options.count} scenes and two videos, to {folder}/")
        terminal.object("plan", {"out": str(folder), "count": options.count})
        return 0
    report = Report(
        "interpolate",
        inputs=[str(options.first), str(options.second)],
        device=device,
        settings={
            name: getattr(options, name) for name in ("model", "way", "count", "size", "frames")
        },
        listener=terminal,
    )
    with atomic_folder(folder, options.force) as partial:
        _write(options, partial, report, videos)
        report.write(partial / "report.json")
    terminal.line(f"wrote {folder}/  {'  '.join(report.files)}")
    terminal.object("report", report.json())
    return 0


def _write(options: Options, folder: Path, report: Report, videos: tuple[str, ...]) -> None:
    """Strip, scenes and videos, into a folder that exists."""
    import torch

    from unflat.data import prepare_picture
    from unflat.systems.vq3d import interpolate
    from unflat.systems.vq3d.pipeline import load

    with report.stage("prepare"):
        model = load(options.model, report.device or "cpu", options.offline)
        pictures = [
            prepare_picture(path, model.config.resolution)
            for path in (options.first, options.second)
        ]
        for path, picture in zip((options.first, options.second), pictures, strict=True):
            notes = [f"{path.name}: {note}" for note in picture.notes]
            report.settings.setdefault("preprocessing", []).extend(notes)
        images = torch.stack([picture.model_image for picture in pictures])
        ends = interpolate.encode_ends(model, images.to(report.device))
    header = _header(options)
    report.licences["model"] = header.licence
    with report.stage("scenes", total=options.count, unit="scenes") as stage:
        scenes: list[Scene] = []
        for number in range(options.count):
            share = number / (options.count - 1)
            planes = interpolate.planes_between(model, ends, share, options.way)
            own = replace(header, settings={**header.settings, "share": round(share, 4)})
            scenes.append(interpolate.scene_of_planes(model, planes, own))
            scenes[-1].save(folder / f"scene-{number:02d}.safetensors")
            stage.advance()
        _write_strip(pictures, scenes, folder / "strip.png")
    with report.stage("render", total=2 * options.frames, unit="views") as stage:
        films = interpolate.film_between(
            model,
            ends,
            options.way,
            header,
            frames=options.frames,
            size=(options.size, options.size),
            progress=stage.advance,
        )
    for kind in videos:
        for name, film in zip(("front", "orbit"), films, strict=True):
            film.save(folder / f"{name}.{kind}")
    report.files = [*sorted(path.name for path in folder.iterdir()), "report.json"]


def _header(options: Options) -> "SceneHeader":
    from unflat.hub import find
    from unflat.scene import SceneHeader
    from unflat.training.model_file import model_hash, read_header

    path = find(options.model, offline=options.offline)
    return SceneHeader(
        system="vq3d",
        model=str(options.model),
        model_sha256=model_hash(path),
        licence=str(read_header(path).get("card", {}).get("licence", "not stated")),
        settings={
            "mode": "interpolated",
            "way": options.way,
            "first": options.first.name,
            "second": options.second.name,
        },
    )


def _write_strip(pictures: list["Prepared"], scenes: list["Scene"], path: Path) -> None:
    """The first photo, the scenes' front views, the second photo; below, their disparity."""
    import torch
    from torch.nn.functional import interpolate

    from unflat.export import colorize_disparity, contact_sheet, write_png

    cell = (_CELL, _CELL)
    photos = [interpolate(one.image[None], cell, mode="area")[0] for one in pictures]
    seen = [scene.render(size=cell) for scene in scenes]
    fronts = [one.rgb[0] for one in seen]
    nearest = max(float(one.disparity.max()) for one in seen)
    depths = [colorize_disparity(one.disparity[0], 0.0, nearest) for one in seen]
    empty = torch.ones(3, *cell)
    rows = [photos[0], *fronts, photos[1], empty, *depths, empty]
    write_png(contact_sheet(rows, len(fronts) + 2), path)
