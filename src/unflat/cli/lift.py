"""``unflat lift``: one picture of an object becomes a textured mesh."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unflat.cli.options import Switch, formats_of, require_range
from unflat.cli.picture_jobs import copy_example, inputs_or_example, result_folder, run_many
from unflat.cli.view_options import (
    Opened,
    ViewOptions,
    check_view_options,
    find_height,
    open_model,
    read_shown,
    sampler_of,
    settings_of,
)
from unflat.errors import UserError
from unflat.report import Report, versions
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.collection import Job
    from unflat.systems.zero123.lift.lift import Lifted
    from unflat.systems.zero123.prepare import Prepared

_EXAMPLE_NAME = "unflat-example-car.png"


@dataclass(frozen=True, kw_only=True)
class Options(ViewOptions):
    """One picture of any object becomes a textured mesh.

    unflat lift mug.png gives mug/: mesh, scene, preview, orbit, viewer, report. A model of new
    views looks at the object from other sides; fit makes these views once and fits a solid to them,
    sds and sjc ask the model at every step. Many pictures give a folder each.
    """

    inputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")
    ] = ()
    """Pictures, folders, patterns, or - for a picture on stdin."""
    example: Switch = False
    """Use a bundled picture of a lorry, copied to unflat-example-car.png."""
    method: Literal["fit", "sds", "sjc"] = "fit"
    """How: fit a solid to views made once; score distillation; score Jacobian chaining as
    published."""
    preset: Literal["fast", "best"] = "fast"
    """How long it may take: best makes twice the views and polishes, or takes more steps."""
    consistent: Switch = False
    """For fit: make views one after the other, each from the picture and the views before it."""
    format: str | None = None
    """Also write these, as in mp4,ply: mp4 webp ply obj splat depth."""
    size: int | None = None
    """Side of the orbit in pixels; the scene's own if not given."""
    frames: int = 72
    """Pictures of the orbit, 24 a second."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of lifting."""
    from unflat.collection import find_pictures
    from unflat.hub import example_object
    from unflat.result import FORMATS

    inputs = inputs_or_example("lift", options.inputs, options.example, _EXAMPLE_NAME)
    formats = formats_of(options.format, FORMATS) if options.format else ()
    _check(options, formats)
    jobs = find_pictures(inputs)
    many = len(jobs) > 1 or Path(inputs[0]).is_dir()
    if many and options.mask is not None:
        raise UserError(f"--mask {options.mask}: is of one picture, but {len(jobs)} are given.")
    out = result_folder(options.out, inputs, jobs, many, "objects")
    if options.dry_run:
        source = f"{len(jobs)} pictures" if len(jobs) != 1 else jobs[0].source
        terminal.line(f"would lift {source} by {options.method} with {options.model}, to {out}/")
        for job in jobs:
            folder = out / job.name if many else out
            terminal.object("plan", {"input": job.source, "out": str(folder)})
        return 0
    if options.example:
        copy_example(example_object(), _EXAMPLE_NAME)
    report = _report(options, list(options.inputs) if many else [jobs[0].source], terminal)
    headline = f"unflat {versions()['unflat']}  {options.model}  {report.device}  "
    headline += ", ".join(report.inputs)
    opened = open_model(options, report, 1)
    if many:

        def work(job: "Job", folder: Path, own: Report) -> None:
            _one(options, job, folder, own, formats, opened)

        return run_many(jobs, out, work, report, terminal, headline=headline, force=options.force)
    terminal.line(headline)
    _one(options, jobs[0], out, report, formats, opened)
    from unflat.result import in_words

    terminal.line(f"confidence {in_words(report.confidence)}")
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.line(f"open {out / 'viewer.html'} to look around")
    terminal.object("report", report.json())
    return 0


def _check(options: Options, formats: tuple[str, ...]) -> None:
    """Refuse before work what would fail after it."""
    from unflat.result import check_formats

    check_view_options(options)
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    check_formats(formats)
    if options.consistent and options.method != "fit":
        raise UserError(f"--consistent: is of --method fit, not of {options.method}; drop it.")


def _report(options: Options, inputs: list[str], terminal: Terminal) -> Report:
    from unflat.device import choose_device

    own = ("method", "preset", "consistent", "size", "frames")
    return Report(
        "lift",
        inputs=inputs,
        seed=options.seed,
        device=choose_device(options.device),
        settings=settings_of(options, *own),
        listener=terminal,
    )


def _one(
    options: Options,
    job: "Job",
    out: Path,
    report: Report,
    formats: tuple[str, ...],
    opened: Opened,
) -> None:
    """Lift one picture into its folder."""
    from unflat.result import write_result

    found: list[Lifted] = []

    def make() -> Any:
        found.append(_lifted(options, job, report, opened))
        return found[0].scene

    write_result(
        make,
        out,
        report,
        name=Path(job.name).name,
        formats=("glb", *(kind for kind in formats if kind != "glb")),
        frames=options.frames,
        size=options.size,
        force=options.force,
        also=lambda folder: _write_more(found[0], folder),
    )


def _lifted(options: Options, job: "Job", report: Report, opened: Opened) -> "Lifted":
    """The object, and what is to be said of it."""
    from unflat.collection import STDIN
    from unflat.scene import SceneHeader
    from unflat.systems.zero123.lift.lift import lift

    label = "stdin" if job.source == STDIN else job.source
    model = opened.model
    with report.stage("cut out") as stage:
        shown, stage.note = read_shown(options, job.source, options.mask, model, report, label)
    height = find_height(options, shown, model, report, label)
    header = SceneHeader(
        system="zero123",
        model=options.model,
        source=Path(label).name,
        settings={"seed": options.seed, "method": options.method, "preset": options.preset},
    )
    with report.stage("lift", total=1, unit="steps") as stage:

        def progress(what: str, done: int, total: int) -> None:
            stage.total, stage.unit = total, f"steps of {what}"
            stage.advance(done - stage.done)

        found = lift(
            model,
            shown.image,
            shown.opacity,
            method=options.method,
            preset=options.preset,
            elevation=height,
            seed=options.seed,
            guidance_scale=options.guidance_scale,
            make_views=_maker(options, shown, height, opened),
            header=header,
            progress=progress,
        )
        stage.note = f"outline IoU with the picture {found.figures['picture_iou']:.2f}"
    report.figures |= found.figures
    told = report.figures.get("input_elevation_confidence", 1.0)
    own = found.scene.header.confidence
    report.confidence = None if own is None else own * float(told)
    return found


def _maker(options: Options, shown: "Prepared", height: float, opened: Opened) -> Any:
    """What makes views for a fit."""
    from unflat.geometry.relative_pose import RelativePose
    from unflat.systems.zero123.make import Known, joined, no_move
    from unflat.systems.zero123.model import Views
    from unflat.systems.zero123.order import Order, carry_out

    def make(poses: RelativePose, seed: int) -> Views:
        count = len(poses.polar)
        order = Order(
            pictures=[Known(image=shown.image, opacity=shown.opacity, pose=no_move())],
            poses=poses,
            samples=[0] * count,
            height=height,
            sampler=sampler_of(options, opened.model.guidance_scale),
            seed=seed,
            consistent=options.consistent,
            batch=opened.batch,
        )
        made: dict[int, Views] = {}

        def finished(places: list[int], views: Views) -> None:
            for index, place in enumerate(places):
                opacity = None if views.opacity is None else views.opacity[index : index + 1].cpu()
                made[place] = Views(views.image[index : index + 1].cpu(), opacity)

        carry_out(opened.model, order, range(count), finished)
        return joined([made[place] for place in range(count)])

    return make


def _write_more(found: "Lifted", folder: Path) -> list[str]:
    """The views it was fitted to, where the camera was, and how it came to be; their names."""
    import json

    import numpy as np
    from PIL import Image

    from unflat.export import contact_sheet, to_uint8, write_video
    from unflat.result import usual_video

    sheet = contact_sheet(list(found.shots.image.clamp(0, 1)), columns=6)
    Image.fromarray(sheet).save(folder / "views.png")
    names = ["views.png"]
    pose = {
        "elevation_deg": found.figures["elevation_deg"],
        "camera_to_world": found.scene.camera.camera_to_world.tolist(),
        "fov_deg": math.degrees(float(found.scene.camera.fov)),
    }
    (folder / "pose.json").write_text(json.dumps(pose, indent=1) + "\n", encoding="utf-8")
    names.append("pose.json")
    if len(found.frames) > 1:
        film = f"steps.{usual_video()}"
        frames = np.stack([to_uint8(frame) for frame in found.frames])
        write_video(frames, folder / film, fps=6.0)
        names.append(film)
    return names
