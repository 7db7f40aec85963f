"""``unflat views``: one picture of an object becomes pictures from other sides."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from unflat.cli.angles import angles_of, placed_file
from unflat.cli.options import Switch, require_range
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
    from unflat.systems.zero123.model import Views
    from unflat.systems.zero123.prepare import Prepared
    from unflat.systems.zero123.view_folder import ViewFolder

_EXAMPLE_NAME = "unflat-example-car.png"
_MOST_VIEWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Options(ViewOptions):
    """One picture of an object becomes pictures of it from other sides.

    unflat views mug.png --azimuth-deg 0:360:30 gives mug/: views, sheet, orbit, cameras, report.
    The object is told from the rest by transparency, a --mask, or a plain backdrop. Views that are
    there stay when a run is stopped; --resume goes on. Many pictures give a folder each.
    """

    inputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")
    ] = ()
    """Pictures, folders, patterns, or - for a picture on stdin."""
    example: Switch = False
    """Use a bundled picture of a lorry, copied to unflat-example-car.png."""
    azimuth_deg: str = "0:360:30"
    """Around the object to the camera's right: numbers with commas, or from:to:step."""
    elevation_deg: str | None = None
    """How high the cameras stand, written alike; that of the picture if not given."""
    distance: float = 0.0
    """Farther than the picture's camera by so many sizes of the object; negative is nearer."""
    count: int = 1
    """Samples of every view."""
    best_of: int = 1
    """Make so many sets of views and keep the one whose outlines agree best."""
    consistent: Switch = False
    """Make views one after the other, each from the picture and the views before it; slower."""
    also: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE@AZ,EL ...")] = ()
    """Further pictures of the same object: their azimuth and elevation from the first, as in
    side.png@90,0."""
    own_noise: Switch = False
    """Begin every view with other noise; else all begin alike, which makes them agree better."""
    resume: Switch = False
    """Go on where a run into --out stopped."""


class _Asked(NamedTuple):
    """What was asked for, in numbers."""

    azimuths: list[float]
    elevations: list[float] | None
    also: list[tuple[str, float, float]]
    views: int

    @property
    def needs_elevation(self) -> bool:
        """Whether it matters how high the picture was taken."""
        return self.elevations is not None or bool(self.also)


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of making views."""
    from unflat.collection import find_pictures
    from unflat.hub import example_object

    inputs = inputs_or_example("views", options.inputs, options.example, _EXAMPLE_NAME)
    asked = _check(options)
    jobs = find_pictures(inputs)
    many = len(jobs) > 1 or Path(inputs[0]).is_dir()
    if many and (options.mask is not None or options.also):
        option = "--mask" if options.mask is not None else "--also"
        raise UserError(f"{option}: is of one picture, but {len(jobs)} are given.")
    out = result_folder(options.out, inputs, jobs, many, "views")
    if options.dry_run:
        source = f"{len(jobs)} pictures" if len(jobs) != 1 else jobs[0].source
        terminal.line(f"would make {asked.views} views of {source} with {options.model}, to {out}/")
        for job in jobs:
            folder = out / job.name if many else out
            plan = {"input": job.source, "out": str(folder), "views": asked.views}
            terminal.object("plan", plan)
        return 0
    if options.example:
        copy_example(example_object(), _EXAMPLE_NAME)
    report = _report(options, list(options.inputs) if many else [jobs[0].source], terminal)
    headline = f"unflat {versions()['unflat']}  {options.model}  {report.device}  "
    headline += ", ".join(report.inputs)
    opened = open_model(options, report, asked.views)
    if many:

        def work(job: "Job", folder: Path, own: Report) -> None:
            _one(options, asked, job, folder, own, opened)

        return run_many(jobs, out, work, report, terminal, headline=headline, force=options.force)
    terminal.line(headline)
    try:
        _one(options, asked, jobs[0], out, report, opened)
    except KeyboardInterrupt:
        terminal.line(f"stopped; finished views stay in {out}/, add --resume to go on")
        raise
    terminal.line(f"wrote {out}/  {asked.views} views  sheet.png  transforms.json  report.json")
    terminal.line(f"look at {out / 'sheet.png'}")
    terminal.object("report", report.json())
    return 0


def _check(options: Options) -> _Asked:
    """Refuse before work what would fail after it; what was asked for."""
    check_view_options(options)
    require_range(options.distance, -1, 3, "--distance", "sizes of the object")
    require_range(options.count, 1, 64, "--count", "samples")
    require_range(options.best_of, 1, 64, "--best-of", "sets")
    azimuths = angles_of(options.azimuth_deg, "--azimuth-deg", -360.0, 360.0)
    elevations = None
    if options.elevation_deg is not None:
        elevations = angles_of(options.elevation_deg, "--elevation-deg", -85.0, 85.0)
    count = len(azimuths) * len(elevations or [0]) * options.count
    if count > _MOST_VIEWS:
        raise UserError(f"--azimuth-deg: {count} views are asked for; {_MOST_VIEWS} is the most.")
    also = [placed_file(text, "--also") for text in options.also]
    return _Asked(azimuths, elevations, also, count)


def _report(options: Options, inputs: list[str], terminal: Terminal) -> Report:
    from unflat.device import choose_device

    return Report(
        "views",
        inputs=inputs,
        seed=options.seed,
        device=choose_device(options.device),
        settings=_settings(options),
        listener=terminal,
    )


def _settings(options: Options) -> dict[str, object]:
    """All that decides how views look."""
    own = ("azimuth_deg", "elevation_deg", "distance", "count", "best_of", "consistent", "also")
    return settings_of(options, *own, "own_noise")


def _one(
    options: Options, asked: _Asked, job: "Job", out: Path, report: Report, opened: Opened
) -> None:
    """All views of one picture, into its folder."""
    from unflat.collection import STDIN

    label = "stdin" if job.source == STDIN else job.source
    with report.stage("cut out") as stage:
        shown, stage.note = read_shown(
            options, job.source, options.mask, opened.model, report, label
        )
    height: float | None = None
    if options.input_elevation_deg is not None or asked.needs_elevation:
        height = find_height(options, shown, opened.model, report, label)
    folder = _folder(options, asked, out, shown, math.degrees(height or 0.0))
    missing = folder.open(force=options.force, resume=options.resume)
    if missing:
        _make(options, asked, folder, missing, shown, height, opened, report)
    with report.stage("write"):
        report.files = folder.finish(shown, math.degrees(height or 0.0))
    report.files.append("report.json")
    report.write(out / "report.json")


def _folder(
    options: Options, asked: _Asked, out: Path, shown: "Prepared", height_deg: float
) -> "ViewFolder":
    """Where the views go."""
    from unflat.systems.zero123.view_folder import Asked, ViewFolder, picture_hash

    views = [
        Asked(
            azimuth_deg=azimuth,
            elevation_deg=elevation,
            distance=options.distance,
            sample=sample,
        )
        for elevation in (asked.elevations or [round(height_deg, 3)])
        for azimuth in asked.azimuths
        for sample in range(options.count)
    ]
    settings = {**_settings(options), "picture": picture_hash(shown), "height_deg": height_deg}
    return ViewFolder(out, views, settings)


def _make(
    options: Options,
    asked: _Asked,
    folder: "ViewFolder",
    missing: list[int],
    shown: "Prepared",
    height: float | None,
    opened: Opened,
    report: Report,
) -> None:
    """The views that are missing; each is written as it comes."""
    from unflat.geometry.relative_pose import RelativePose
    from unflat.systems.zero123.make import Known, no_move
    from unflat.systems.zero123.order import Order, carry_out

    height_deg = math.degrees(height or 0.0)
    pictures = [Known(image=shown.image, opacity=shown.opacity, pose=no_move())]
    for source, azimuth, elevation in asked.also:
        other, _ = read_shown(options, source, None, opened.model, report, source)
        # its elevation is told from the first picture's
        pose = RelativePose.from_degrees(
            azimuth, height_deg + elevation, input_elevation_deg=height_deg
        )
        pictures.append(Known(image=other.image, opacity=other.opacity, pose=pose))
    order = Order(
        pictures=pictures,
        poses=folder.poses(height_deg),
        samples=[one.sample for one in folder.asked],
        height=height,
        sampler=sampler_of(options, opened.model.guidance_scale),
        seed=options.seed,
        shared_noise=not options.own_noise,
        consistent=options.consistent,
        best_of=options.best_of,
        batch=opened.batch,
    )
    with report.stage("views", total=len(missing), unit="views") as stage:

        def finished(places: list[int], views: "Views") -> None:
            for index, place in enumerate(places):
                folder.write(place, views, index)
            stage.advance(len(places))

        carry_out(opened.model, order, missing, finished)
