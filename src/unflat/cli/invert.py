"""``unflat invert``: one picture of an object of a known kind becomes its shape, pose, colors."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from unflat.cli.options import (
    Computed,
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
    from torch import nn

    from unflat.collection import Job
    from unflat.systems.inversion.invert import Inverted
    from unflat.systems.inversion.pipeline import InversionModel

_MOST_STEPS = 10_000
_EXAMPLE_NAME = "unflat-example-car.png"
_EXAMPLE_MODEL = "find-cars"
_GRID = 128  # samples of the distance along the box's side, in sdf.npz


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Computed):
    """One picture of an object of a known kind becomes a mesh, with its camera and its colors.

    unflat invert car.png --model find-cars gives car/: mesh, scene, pose, preview, viewer, report.
    The object is told from the rest by transparency, a --mask, or a plain backdrop. Many pictures
    give a folder each.
    """

    inputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")
    ] = ()
    """Pictures, folders, patterns, or - for a picture on stdin."""
    example: Switch = False
    """Use a bundled picture of a car, copied to unflat-example-car.png."""
    model: str = ""
    """What the picture is searched for: find-cars, find-planes, or the path of a model of
    unflat train inversion-encoder. find-cars for --example."""
    mask: Path | None = None
    """A picture that is white where the object is."""
    steps: int = 10
    """How many steps are taken from the encoder's guess; 0 takes it as it is, 30 is thorough."""
    fov_deg: float | None = None
    """Field of view across the longer side of the picture, degrees; from the photo's own data, or
    as in training, if not given."""
    format: str | None = None
    """Also write these, as in mp4,ply: mp4 webp ply obj splat depth."""
    seed: int = 0
    """Of everything random."""
    size: int | None = None
    """Side of the orbit in pixels; the scene's own if not given."""
    frames: int = 72
    """Pictures of the orbit, 24 a second."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


class _Opened(NamedTuple):
    """What is read once for all pictures."""

    path: Path
    model: "InversionModel"
    distance: "nn.Module"


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of inverting."""
    from unflat.collection import find_pictures
    from unflat.device import choose_device
    from unflat.hub import example_object
    from unflat.result import FORMATS

    inputs = inputs_or_example("invert", options.inputs, options.example, _EXAMPLE_NAME)
    if options.example and not options.model:
        options = replace(options, model=_EXAMPLE_MODEL)
    formats = formats_of(options.format, FORMATS) if options.format else ()
    path = _check(options, formats)
    jobs = find_pictures(inputs)
    many = len(jobs) > 1 or Path(inputs[0]).is_dir()
    if many and options.mask is not None:
        raise UserError(f"--mask {options.mask}: is of one picture, but {len(jobs)} are given.")
    out = result_folder(options.out, inputs, jobs, many, "objects")
    if options.dry_run:
        count = f"{len(jobs)} pictures" if len(jobs) != 1 else jobs[0].source
        terminal.line(f"would invert {count} with {options.model}, to {out}/")
        for job in jobs:
            folder = out / job.name if many else out
            terminal.object("plan", {"input": job.source, "out": str(folder)})
        return 0
    if options.example:
        copy_example(example_object(), _EXAMPLE_NAME)
    opened = _open(path, choose_device(options.device))
    if many:
        return _many(options, terminal, jobs, out, formats, opened)
    report = _report(options, [jobs[0].source], terminal)
    terminal.line(_headline(options, report))
    _one(options, jobs[0], out, report, formats, opened)
    from unflat.result import in_words

    terminal.line(f"confidence {in_words(report.confidence)}")
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.line(f"open {out / 'viewer.html'} to look around")
    terminal.object("report", report.json())
    return 0


def _check(options: Options, formats: tuple[str, ...]) -> Path:
    """Refuse before work what would fail after it; the model's file."""
    from unflat.hub import find
    from unflat.result import check_formats
    from unflat.systems.inversion.pipeline import require_inversion

    require_range(options.steps, 0, _MOST_STEPS, "--steps", "steps")
    require_range(options.fov_deg, 2, 120, "--fov-deg", "degrees")
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    check_formats(formats)
    if not options.model:
        raise UserError(
            "--model: names none; give find-cars, find-planes, or what unflat train "
            "inversion-encoder has made."
        )
    path = find(options.model, offline=options.offline)
    require_inversion(path, options.model)
    if options.mask is not None and not options.mask.is_file():
        raise UserError(f"--mask {options.mask}: there is no such file.")
    return path


def _open(path: Path, device: str) -> _Opened:
    from unflat.hub import find
    from unflat.hub.registry import FEATURES
    from unflat.losses import FeatureDistance, frozen
    from unflat.systems.features import load as load_features
    from unflat.systems.inversion.pipeline import load

    distance = frozen(FeatureDistance(load_features(find(FEATURES)))).to(device)
    return _Opened(path, load(path, device), distance)


def _report(options: Options, inputs: list[str], terminal: Terminal) -> Report:
    from unflat.device import choose_device

    return Report(
        "invert",
        inputs=inputs,
        seed=options.seed,
        device=choose_device(options.device),
        settings={
            "model": options.model,
            "steps": options.steps,
            "fov_deg": options.fov_deg,
            "mask": None if options.mask is None else str(options.mask),
            "size": options.size,
            "frames": options.frames,
        },
        listener=terminal,
    )


def _headline(options: Options, report: Report) -> str:
    return (
        f"unflat {versions()['unflat']}  {options.model}  {report.device}  "
        f"{', '.join(report.inputs)}"
    )


def _one(
    options: Options,
    job: "Job",
    out: Path,
    report: Report,
    formats: tuple[str, ...],
    opened: _Opened,
) -> None:
    """Invert one picture into its folder."""
    from unflat.result import write_result

    found: list[Inverted] = []

    def make() -> Any:
        found.append(_inverted(options, job, opened, report))
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
        optional=("glb",),
        also=lambda folder: _write_more(found[0], folder),
    )


def _inverted(options: Options, job: "Job", opened: _Opened, report: Report) -> "Inverted":
    """The object, and what is to be said of it."""
    import math

    from unflat.collection import STDIN
    from unflat.data.cutout import cut_out
    from unflat.scene import SceneHeader
    from unflat.systems.inversion.fit import steps_of
    from unflat.systems.inversion.invert import invert
    from unflat.training.model_file import model_hash

    is_stdin = job.source == STDIN
    label = "stdin" if is_stdin else job.source
    with report.stage("cut out") as stage:
        source = sys.stdin.buffer.read() if is_stdin else job.source
        cutout = cut_out(source, options.mask, name=label)
        stage.note = f"by {cutout.source}"
    for warning in cutout.warnings:
        report.warn(warning, about=label)
    fov = None if options.fov_deg is None else math.radians(options.fov_deg)
    header = SceneHeader(
        system="inversion",
        model=options.model,
        model_sha256=model_hash(opened.path),
        licence=str(opened.model.header.get("card", {}).get("licence", "not stated")),
        source=Path(label).name,
        fov_from="option" if fov is not None else "exif" if cutout.fov is not None else "default",
        settings={"seed": options.seed, "steps": options.steps},
    )
    with report.stage("invert", total=max(options.steps, 1), unit="steps") as stage:
        found = invert(
            opened.model,
            cutout.image,
            cutout.opacity,
            opened.distance,
            steps_of(options.steps),
            fov=cutout.fov if fov is None else fov,
            header=header,
            seed=options.seed,
            progress=lambda done, _: stage.advance(done - stage.done),
        )
        stage.note = f"outline IoU {found.before['iou']:.2f} -> {found.after['iou']:.2f}"
    report.confidence = found.confidence
    report.figures |= {
        **{f"{name}_before": value for name, value in found.before.items()},
        **{f"{name}_after": value for name, value in found.after.items()},
        "hypotheses": len(found.start.estimates[0].hypotheses),
        "steps_taken": found.fitted.steps[0],
    }
    if found.problem is not None:
        report.warn(f"no camera was found: {found.problem}", about=label)
    if found.is_kept:
        report.warn("the steps made it worse, so the encoder's guess was kept", about=label)
    if bool(found.fitted.is_broken[0]):
        report.warn("the steps ran into numbers that are not finite and were ended", about=label)
    return found


def _write_more(found: "Inverted", folder: Path) -> list[str]:
    """Pose, codes, distances, and the steps as a moving picture; their names."""
    import json

    from unflat.export import write_video
    from unflat.result import usual_video
    from unflat.systems.inversion.invert import pose_json, write_distances, write_latent

    (folder / "pose.json").write_text(
        json.dumps(pose_json(found), indent=1) + "\n", encoding="utf-8"
    )
    write_latent(found, folder / "latent.safetensors")
    write_distances(found, folder / "sdf.npz", _GRID)
    names = ["pose.json", "latent.safetensors", "sdf.npz"]
    if len(found.frames) > 1:
        film = f"steps.{usual_video()}"
        write_video(found.film(), folder / film, fps=6.0)
        names.append(film)
    return names


def _many(
    options: Options,
    terminal: Terminal,
    jobs: list["Job"],
    out: Path,
    formats: tuple[str, ...],
    opened: _Opened,
) -> int:
    """Invert all pictures into one folder; 3 if some failed."""

    def work(job: "Job", folder: Path, own: Report) -> None:
        _one(options, job, folder, own, formats, opened)

    report = _report(options, list(options.inputs), terminal)
    headline = _headline(options, report)
    return run_many(jobs, out, work, report, terminal, headline=headline, force=options.force)
