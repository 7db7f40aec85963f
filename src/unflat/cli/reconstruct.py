"""``unflat reconstruct``: one photo, or a folder of them, becomes scenes to look around in."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from unflat.cli.options import (
    Completing,
    Computed,
    Modelled,
    Placed,
    Planned,
    Speech,
    Switch,
    formats_of,
    require_range,
)
from unflat.cli.picture_jobs import copy_example, inputs_or_example, result_folder, run_many
from unflat.errors import UserError
from unflat.report import Report, versions
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.collection import Job
    from unflat.data import DepthSource
    from unflat.systems.vq3d.generate import SceneMaker

_EXAMPLE_NAME = "unflat-example.png"


class _Opened(NamedTuple):
    """What is read once for all pictures."""

    depth: "DepthSource | None"
    maker: "SceneMaker | None"


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Computed, Modelled, Completing):
    """One photo becomes a scene to look around in; a folder of photos becomes a folder of scenes.

    cat.jpg gives cat/ beside you: scene, preview, orbit, viewer, report. A folder gives one
    sub-folder for each picture and an index.html; the same command again does what is left.
    """

    inputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")
    ] = ()
    """Pictures, folders, patterns, or - for a picture on stdin."""
    example: Switch = False
    """Use a bundled photo, copied to unflat-example.png."""
    format: str | None = None
    """Also write these, as in mp4,glb: mp4 webp (orbit: one of them) glb (or mesh) ply obj splat
    depth."""
    fov_deg: float | None = None
    """Field of view across the picture, degrees; from the photo's own data or a usual one if not
    given."""
    seed: int = 0
    """Of everything random."""
    mode: Literal["detail", "tokens"] = "detail"
    """detail: the photo gives what is seen, the model the rest; tokens: all comes from the model's
    own codes."""
    depth: str | None = None
    """Where the visible surface is, if something knows better than the model: a map of the whole
    picture (png, npy, npz, pfm; larger is nearer), or a depth model (a file of ours, a folder of
    transformers, or a hub id)."""
    depth_from: Literal["depth", "disparity"] | None = None
    """What --depth holds or gives: values that grow with distance, or with nearness."""
    size: int | None = None
    """Side of the orbit in pixels; the scene's own if not given."""
    frames: int = 72
    """Pictures of the orbit, 24 a second."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of reconstructing."""
    from unflat.collection import Job, find_pictures

    inputs = inputs_or_example("reconstruct", options.inputs, options.example, _EXAMPLE_NAME)
    formats = formats_of(options.format, _formats()) if options.format else ()
    _check(options, formats)
    jobs = find_pictures(inputs)
    many = len(jobs) > 1 or Path(inputs[0]).is_dir()
    out = result_folder(options.out, inputs, jobs, many, "scenes")
    _check_depth(options, jobs)
    if options.dry_run:
        return _say_plan(options, terminal, jobs, out, many)
    if options.example:
        from unflat.hub import example_picture

        copy_example(example_picture(), _EXAMPLE_NAME)
    opened = _Opened(_depth(options), _maker(options))
    if many:
        return _many(options, terminal, jobs, out, formats, opened)
    report = _report(options, [jobs[0].source], terminal)
    job = Job(source=jobs[0].source, name=jobs[0].name)
    _one(options, job, out, report, formats, opened, terminal)
    terminal.object("report", report.json())
    return 0


def _formats() -> tuple[str, ...]:
    from unflat.result import FORMATS

    return FORMATS


def _check(options: Options, formats: tuple[str, ...]) -> None:
    """Refuse before work what would fail after it."""
    from unflat.device import choose_device
    from unflat.hub import find
    from unflat.result import check_formats

    require_range(options.fov_deg, 5, 150, "--fov-deg", "degrees")
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    choose_device(options.device)
    check_formats(formats)
    find(options.model, offline=options.offline)
    prior = options.completed_by()
    if prior is not None and options.mode == "tokens":
        raise UserError("--complete: needs what the photo shows; use it with --mode detail.")
    if prior is not None:
        find(prior, offline=options.offline)


def _check_depth(options: Options, jobs: list["Job"]) -> None:
    if options.depth is None:
        if options.depth_from is not None:
            raise UserError("--depth-from: tells of --depth, which is not given; drop it.")
        return
    from unflat.systems.depth.source import is_map

    if options.mode == "tokens":
        raise UserError(
            "--depth: is of the visible surface, which --mode tokens does not have; drop one."
        )
    if len(jobs) > 1 and is_map(options.depth):
        raise UserError(
            f"--depth {options.depth}: is the map of one picture, but {len(jobs)} are given; "
            "give a depth model, or one picture."
        )


def _depth(options: Options) -> "DepthSource | None":
    """What tells the visible surface, opened once for all pictures."""
    if options.depth is None:
        return None
    from unflat.device import choose_device
    from unflat.systems.depth.source import depth_source

    return depth_source(
        options.depth,
        meaning=options.depth_from,
        device=choose_device(options.device),
        offline=options.offline,
    )


def _maker(options: Options) -> "SceneMaker | None":
    """What draws unseen parts, opened once for all pictures."""
    prior = options.completed_by()
    if prior is None:
        return None
    from unflat.device import choose_device
    from unflat.systems.vq3d.complete import COMPLETING
    from unflat.systems.vq3d.generate import open_maker

    return open_maker(
        prior,
        options.model,
        device=choose_device(options.device),
        offline=options.offline,
        sampling=COMPLETING,
    )


def _report(options: Options, inputs: list[str], terminal: Terminal) -> Report:
    from unflat.device import choose_device

    return Report(
        "reconstruct",
        inputs=inputs,
        seed=options.seed,
        device=choose_device(options.device),
        settings={
            "model": options.model,
            "fov_deg": options.fov_deg,
            "mode": options.mode,
            "depth": options.depth,
            "depth_from": options.depth_from,
            "complete": options.completed_by(),
            "size": options.size,
            "frames": options.frames,
        },
        listener=terminal,
    )


def _one(
    options: Options,
    job: "Job",
    out: Path,
    report: Report,
    formats: tuple[str, ...],
    opened: "_Opened",
    terminal: Terminal,
) -> None:
    """Reconstruct one picture into its folder and say so."""
    from unflat.result import in_words, write_result

    terminal.line(_headline(options, report))
    name = Path(job.name).name
    write_result(
        lambda: _scene(options, job, opened, report),
        out,
        report,
        name=name,
        formats=formats,
        frames=options.frames,
        size=options.size,
        force=options.force,
    )
    for note in report.settings.get("preprocessing", ()):
        terminal.line(f"{job.source}: {note}")
    terminal.line(f"confidence {in_words(report.confidence)}")
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.line(f"open {out / 'viewer.html'} to look around")


def _headline(options: Options, report: Report) -> str:
    """Version, model and device in one line."""
    from unflat.hub import MODELS

    about = MODELS.get(options.model)
    model = f"{options.model} (bundled, {about.size_mb:g} MB)" if about else options.model
    return f"unflat {versions()['unflat']}  {model}  {report.device}  {', '.join(report.inputs)}"


def _scene(options: Options, job: "Job", opened: "_Opened", report: Report) -> Any:
    from unflat.collection import STDIN
    from unflat.data import open_picture
    from unflat.systems.vq3d.pipeline import reconstruct_picture

    picture: Any = job.source
    if job.source == STDIN:
        picture = open_picture(sys.stdin.buffer.read(), name="stdin")
    scene = reconstruct_picture(
        picture,
        model=options.model,
        fov_deg=options.fov_deg,
        device=report.device or "cpu",
        seed=options.seed,
        detail=options.mode == "detail",
        depth=opened.depth,
        offline=options.offline,
        report=report,
    )
    if opened.maker is None:
        return scene
    from unflat.systems.vq3d.complete import complete_scene

    with report.stage("complete") as stage:
        scene, done = complete_scene(scene, opened.maker, seed=options.seed)
        stage.note = f"{done.tokens} tokens drawn in {done.views} views"
    report.figures |= {"tokens_drawn": done.tokens, "views_completed": done.views}
    return scene


def _many(
    options: Options,
    terminal: Terminal,
    jobs: list["Job"],
    out: Path,
    formats: tuple[str, ...],
    opened: "_Opened",
) -> int:
    """Reconstruct all pictures into one folder; 3 if some failed."""
    from unflat.result import write_result

    def work(job: "Job", folder: Path, report: Report) -> None:
        write_result(
            lambda: _scene(options, job, opened, report),
            folder,
            report,
            name=Path(job.name).name,
            formats=formats,
            frames=options.frames,
            size=options.size,
            force=options.force,
        )

    report = _report(options, list(options.inputs), terminal)
    headline = _headline(options, report)
    return run_many(jobs, out, work, report, terminal, headline=headline, force=options.force)


def _say_plan(
    options: Options, terminal: Terminal, jobs: list["Job"], out: Path, many: bool
) -> int:
    from unflat.hub import MODELS

    known = MODELS.get(options.model)
    cost = "time and memory not measured for this model"
    if known is not None:
        seconds = known.seconds_cpu * len(jobs)
        cost = f"about {seconds:.0f} s on a CPU with two cores, {known.memory_mib} MiB of memory"
    terminal.line(f"would reconstruct {len(jobs)} pictures with {options.model}: {cost}")
    for job in jobs:
        folder = out / job.name if many else out
        terminal.line(f"  {job.source} -> {folder}/")
        terminal.object("plan", {"input": job.source, "out": str(folder)})
    return 0
