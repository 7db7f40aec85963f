"""``unflat views``: one picture of an object becomes pictures from other sides."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from unflat.cli.angles import angles_of, placed_file
from unflat.cli.options import Computed, Placed, Planned, Speech, Switch, require_range
from unflat.cli.picture_jobs import copy_example, inputs_or_example, result_folder, run_many
from unflat.errors import UserError
from unflat.report import Report, versions
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.collection import Job
    from unflat.systems.zero123.model import ViewModel, Views
    from unflat.systems.zero123.prepare import Prepared
    from unflat.systems.zero123.sampler import Sampler
    from unflat.systems.zero123.view_folder import ViewFolder

_EXAMPLE_NAME = "unflat-example-car.png"
_MOST_VIEWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Computed):
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
    model: str = "unflat-views"
    """A name from `unflat models list`, or the path of a model."""
    azimuth_deg: str = "0:360:30"
    """Around the object to the camera's right: numbers with commas, or from:to:step."""
    elevation_deg: str | None = None
    """How high the cameras stand, written alike; that of the picture if not given."""
    distance: float = 0.0
    """Farther than the picture's camera by so many sizes of the object; negative is nearer."""
    input_elevation_deg: float | None = None
    """How high the picture was taken; estimated where it is needed if not given."""
    count: int = 1
    """Samples of every view."""
    best_of: int = 1
    """Make so many sets of views and keep the one whose outlines agree best."""
    consistent: Switch = False
    """Make views one after the other, each from the picture and the views before it; slower."""
    also: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE@AZ,EL ...")] = ()
    """Further pictures of the same object: their azimuth and elevation from the first, as in
    side.png@90,0."""
    mask: Path | None = None
    """A picture that is white where the object is."""
    framing: Literal["centered", "published", "as-is"] = "centered"
    """How the object is placed: scaled to --foreground in the middle; as Zero-1-to-3's demo; or
    the whole picture as it is."""
    foreground: float | None = None
    """For centered: longer side of the object as a share of the picture; the model's own if not
    given."""
    sampler: Literal["dpm++", "ddim"] = "dpm++"
    """How noise is taken away: in few steps, or as published."""
    steps: int = 20
    """In how many steps."""
    spacing: Literal["trailing", "leading", "leading_drop", "hourglass"] = "trailing"
    """Where steps lie; leading_drop is the published one."""
    eta: float = 0.0
    """For ddim: fresh noise of each step, 0 to 1 (published)."""
    guidance_scale: float | None = None
    """How strongly the picture counts: 1 as learned; the model's own if not given."""
    own_noise: Switch = False
    """Begin every view with other noise; else all begin alike, which makes them agree better."""
    seed: int = 0
    """Of everything random."""
    resume: Switch = False
    """Go on where a run into --out stopped."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


class _Asked(NamedTuple):
    """What was asked for, in numbers."""

    azimuths: list[float]
    elevations: list[float] | None
    also: list[tuple[str, float, float]]

    @property
    def needs_elevation(self) -> bool:
        """Whether it matters how high the picture was taken."""
        return self.elevations is not None or bool(self.also)


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of making views."""
    from unflat.collection import find_pictures
    from unflat.device import choose_device
    from unflat.hub import example_object
    from unflat.systems.zero123.pipeline import load_view_model

    inputs = inputs_or_example("views", options.inputs, options.example, _EXAMPLE_NAME)
    asked = _check(options)
    jobs = find_pictures(inputs)
    many = len(jobs) > 1 or Path(inputs[0]).is_dir()
    if many and (options.mask is not None or options.also):
        option = "--mask" if options.mask is not None else "--also"
        raise UserError(f"{option}: is of one picture, but {len(jobs)} are given.")
    out = result_folder(options.out, inputs, jobs, many, "views")
    count = len(asked.azimuths) * len(asked.elevations or [0]) * options.count
    if options.dry_run:
        source = f"{len(jobs)} pictures" if len(jobs) != 1 else jobs[0].source
        terminal.line(f"would make {count} views of {source} with {options.model}, to {out}/")
        for job in jobs:
            folder = out / job.name if many else out
            terminal.object("plan", {"input": job.source, "out": str(folder), "views": count})
        return 0
    if options.example:
        copy_example(example_object(), _EXAMPLE_NAME)
    model = load_view_model(options.model, choose_device(options.device), offline=options.offline)
    if many:

        def work(job: "Job", folder: Path, own: Report) -> None:
            _one(options, asked, job, folder, own, model)

        report = _report(options, list(options.inputs), terminal)
        headline = _headline(options, report)
        return run_many(jobs, out, work, report, terminal, headline=headline, force=options.force)
    report = _report(options, [jobs[0].source], terminal)
    terminal.line(_headline(options, report))
    try:
        _one(options, asked, jobs[0], out, report, model)
    except KeyboardInterrupt:
        terminal.line(f"stopped; finished views stay in {out}/, add --resume to go on")
        raise
    terminal.line(f"wrote {out}/  {count} views  sheet.png  transforms.json  report.json")
    terminal.line(f"look at {out / 'sheet.png'}")
    terminal.object("report", report.json())
    return 0


def _check(options: Options) -> _Asked:
    """Refuse before work what would fail after it; what was asked for."""
    require_range(options.distance, -1, 3, "--distance", "sizes of the object")
    require_range(options.input_elevation_deg, -85, 85, "--input-elevation-deg", "degrees")
    require_range(options.count, 1, 64, "--count", "samples")
    require_range(options.best_of, 1, 64, "--best-of", "sets")
    require_range(options.foreground, 0.1, 1, "--foreground", "of the picture")
    require_range(options.steps, 1, 1000, "--steps", "steps")
    require_range(options.eta, 0, 1, "--eta", "")
    require_range(options.guidance_scale, 0, 100, "--guidance-scale", "(1 is as learned)")
    if options.eta and options.sampler != "ddim":
        raise UserError("--eta: is of --sampler ddim; add it, or leave --eta out.")
    if options.foreground is not None and options.framing != "centered":
        raise UserError("--foreground: is of --framing centered; leave one of the two out.")
    if options.mask is not None and not options.mask.is_file():
        raise UserError(f"--mask {options.mask}: there is no such file.")
    sampler_of(options, 1.0)
    azimuths = angles_of(options.azimuth_deg, "--azimuth-deg", -360, 360)
    elevations = None
    if options.elevation_deg is not None:
        elevations = angles_of(options.elevation_deg, "--elevation-deg", -85, 85)
    asked = _Asked(azimuths, elevations, [placed_file(text, "--also") for text in options.also])
    count = len(azimuths) * len(elevations or [0]) * options.count
    if count > _MOST_VIEWS:
        raise UserError(f"--azimuth-deg: {count} views are asked for; {_MOST_VIEWS} is the most.")
    return asked


def sampler_of(options: Options, usual_scale: float) -> "Sampler":
    """How to sample.

    Args:
        options: as given.
        usual_scale: of guidance, if none is named.

    Raises:
        UserError: no such number of steps can be placed.
    """
    from unflat.systems.zero123.sampler import Sampler
    from unflat.systems.zero123.schedule import timesteps

    try:
        timesteps(options.steps, options.spacing)
    except ValueError as error:
        raise UserError(f"--steps {options.steps}: {error}.") from error
    scale = usual_scale if options.guidance_scale is None else options.guidance_scale
    return Sampler(
        method=options.sampler,
        steps=options.steps,
        spacing=options.spacing,
        eta=options.eta,
        guidance_scale=scale,
    )


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
    names = (
        *("model", "azimuth_deg", "elevation_deg", "distance", "input_elevation_deg", "count"),
        *("best_of", "consistent", "also", "framing", "foreground", "sampler", "steps"),
        *("spacing", "eta", "guidance_scale", "own_noise", "seed"),
    )
    found: dict[str, object] = {name: getattr(options, name) for name in names}
    return found | {"mask": None if options.mask is None else str(options.mask)}


def _headline(options: Options, report: Report) -> str:
    return (
        f"unflat {versions()['unflat']}  {options.model}  {report.device}  "
        f"{', '.join(report.inputs)}"
    )


def _one(
    options: Options, asked: _Asked, job: "Job", out: Path, report: Report, model: "ViewModel"
) -> None:
    """All views of one picture, into its folder."""
    from unflat.collection import STDIN

    label = "stdin" if job.source == STDIN else job.source
    with report.stage("cut out") as stage:
        shown, stage.note = _shown(options, job.source, options.mask, model, report, label)
    height = _height(options, asked, shown, model, report, label)
    folder = _folder(options, asked, out, shown, math.degrees(height))
    missing = folder.open(force=options.force, resume=options.resume)
    if missing:
        _make(options, asked, folder, missing, shown, height, model, report)
    with report.stage("write"):
        report.files = folder.finish(shown, math.degrees(height))
    report.files.append("report.json")
    report.write(out / "report.json")


def _shown(
    options: Options,
    source: str,
    mask: Path | None,
    model: "ViewModel",
    report: Report,
    label: str,
) -> tuple["Prepared", str]:
    """A picture as the model sees it, and what told its object from the rest."""
    from unflat.collection import STDIN
    from unflat.data.cutout import cut_out
    from unflat.systems.zero123.prepare import prepare

    cutout = cut_out(sys.stdin.buffer.read() if source == STDIN else source, mask, name=label)
    for warning in cutout.warnings:
        report.warn(warning, about=label)
    shown = prepare(
        cutout.image,
        cutout.opacity,
        model.side,
        framing=options.framing,
        foreground=options.foreground or model.foreground,
    )
    return shown, f"by {cutout.source}, {model.side} px"


def _height(
    options: Options,
    asked: _Asked,
    shown: "Prepared",
    model: "ViewModel",
    report: Report,
    label: str,
) -> float:
    """Radians: how high the picture was taken; told, estimated where it matters, else 0."""
    from unflat.result import LEAST_CONFIDENCE
    from unflat.systems.zero123.elevation import estimate_elevation

    if options.input_elevation_deg is not None:
        return math.radians(options.input_elevation_deg)
    if not asked.needs_elevation:
        return 0.0
    with report.stage("elevation") as stage:
        found = estimate_elevation(model, shown, seed=options.seed)
        stage.note = f"{found.degrees:.0f} degrees, give or take {found.spread_deg:.0f}"
    report.confidence = found.confidence
    report.figures |= {
        "input_elevation_deg": found.degrees,
        "input_elevation_spread_deg": found.spread_deg,
    }
    if found.confidence < LEAST_CONFIDENCE:
        report.warn(
            f"its elevation of {found.degrees:.0f} degrees is a guess; tell it by "
            "--input-elevation-deg",
            about=label,
        )
    return found.radians


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
    height: float,
    model: "ViewModel",
    report: Report,
) -> None:
    """The views that are missing; each is written as it comes."""
    from unflat.geometry.relative_pose import RelativePose
    from unflat.systems.zero123.make import Known, no_move
    from unflat.systems.zero123.order import Order, carry_out

    pictures = [Known(image=shown.image, opacity=shown.opacity, pose=no_move())]
    for source, azimuth, elevation in asked.also:
        other, _ = _shown(options, source, None, model, report, source)
        pose = RelativePose.from_degrees(
            azimuth, elevation, input_elevation_deg=math.degrees(height)
        )
        pictures.append(Known(image=other.image, opacity=other.opacity, pose=pose))
    poses = folder.poses(math.degrees(height))
    is_known = options.input_elevation_deg is not None or asked.needs_elevation
    order = Order(
        pictures=pictures,
        poses=poses,
        samples=[one.sample for one in folder.asked],
        height=height if is_known else None,
        sampler=sampler_of(options, model.guidance_scale),
        seed=options.seed,
        shared_noise=not options.own_noise,
        consistent=options.consistent,
        best_of=options.best_of,
    )
    with report.stage("views", total=len(missing), unit="views") as stage:

        def finished(places: list[int], views: "Views") -> None:
            for index, place in enumerate(places):
                folder.write(place, views, index)
            stage.advance(len(places))

        carry_out(model, order, missing, finished)
