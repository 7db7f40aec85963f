"""``unflat generate``: a class name becomes new scenes; a seed becomes new objects."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unflat.cli.options import (
    PRIOR,
    Computed,
    Placed,
    Planned,
    Sampled,
    Speech,
    Switch,
    formats_of,
    require_range,
)
from unflat.errors import UserError
from unflat.report import Report, versions
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.collection import Job, Tally
    from unflat.systems.vq3d.generate import SceneMaker

_ALWAYS = ("glb", "depth")
_CELL = 160  # pixels of a scene in the grid
_MOST_COLUMNS = 8
_SETTLED = ("model", "autoencoder", "class", "sampling")  # what scenes of one folder share


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed, Computed, Sampled):
    """A class name becomes new scenes to look around in; a seed becomes new objects.

    car gives car-00/, car-01/ ... in one folder, each with scene, preview, orbit, depth, mesh,
    viewer and report, and grid.png of all; a generator of objects gives object-00/ and so on. The
    same command again does what is left.
    """

    model: str = PRIOR
    """A prior, or a generator of objects: a name from `unflat models list`, or the path of a model
    file."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME|ID")] = None
    """What the scenes show, by name or number; all classes in turn if not given."""
    count: int = 16
    """Scenes in all."""
    seed: int = 0
    """Of everything random; a scene depends on it and on its number alone."""
    format: str | None = None
    """Also write these, as in mp4,ply: mp4 webp (orbit: one of them) glb (or mesh) ply obj splat
    depth."""
    truncation: float | None = None
    """For generators of objects: 1 as learned, less is nearer to the average; 1 if not given."""
    size: int | None = None
    """Side of the orbit in pixels; 256 if not given."""
    frames: int = 72
    """Pictures of the orbit, 24 a second."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of generating."""
    from unflat.cli import generate_objects
    from unflat.device import choose_device
    from unflat.hub import find
    from unflat.systems.vq3d.generate import classes_in_turn, find_class, open_maker, sampling_of
    from unflat.training.model_file import read_header

    formats = _check(options)
    path = find(options.model, offline=options.offline)
    _refuse_published(path)
    if read_header(path).get("system") == "gan":
        return generate_objects.run(options, path, formats, terminal)
    if options.truncation is not None:
        raise UserError(f"--truncation: is for generators of objects; {options.model} is a prior.")
    device = choose_device(options.device)
    maker = open_maker(
        options.model,
        options.autoencoder,
        device=device,
        offline=options.offline,
        sampling=sampling_of(options),
    )
    text = options.class_name
    chosen = None if text is None else find_class(text, maker.classes)
    jobs = _jobs(classes_in_turn(chosen, maker.classes, options.count))
    out = options.out or Path(f"{_stem(chosen)}-scenes" if chosen else "generated")
    settings: dict[str, Any] = {
        "model": options.model,
        "autoencoder": options.autoencoder,
        "class": chosen,
        "sampling": asdict(maker.sampling),
        "size": options.size,
        "frames": options.frames,
    }
    if not options.force:
        refuse_others(out, options.seed, settings, _SETTLED)
    if options.dry_run:
        return _say_plan(terminal, options, jobs, out)
    report = Report(
        "generate",
        inputs=[chosen or "all classes"],
        seed=options.seed,
        device=device,
        settings=settings,
        listener=terminal,
    )
    terminal.line(
        f"unflat {versions()['unflat']}  {options.model}  {device}  "
        f"{options.count} scenes of {chosen or 'all classes'}, to {out}"
    )
    tally = _make(options, maker, jobs, out, report, formats)
    _finish(options, terminal, tally, jobs, out, report)
    return 0


def _refuse_published(path: Path) -> None:
    """Files of other people's programs, with what can be done with each."""
    from unflat.hub import read_generator_file

    if path.suffix == ".safetensors":
        return
    file = read_generator_file(path)  # pickles, encoders and the like are refused here
    raise UserError(
        f"{path}: holds a generator of {file.system}, which knows no cameras of its own; open it "
        "in Python (docs/formats.md, Weights of others), or give a model that unflat has trained."
    )


def _check(options: Options) -> tuple[str, ...]:
    """The formats; refuses before work what would fail after it."""
    from unflat.result import FORMATS, check_formats

    formats = formats_of(options.format, FORMATS) if options.format else ()
    formats = tuple(dict.fromkeys((*formats, *_ALWAYS)))
    check_formats(formats)
    require_range(options.count, 1, 10**6, "--count", "scenes")
    require_range(options.seed, 0, 2**31 - 1, "--seed", "")
    require_range(options.frames, 2, 3600, "--frames", "pictures")
    require_range(options.size, 16, 2048, "--size", "pixels")
    options.require_sampling()
    return formats


def _stem(class_name: str | None) -> str:
    return "scene" if class_name is None else class_name.replace("/", "-")


def _jobs(classes: list[str | None]) -> list["Job"]:
    """One for each scene; the number in its name is the one it is drawn by."""
    from unflat.collection import Job

    digits = max(2, len(str(len(classes) - 1)))
    return [
        Job(source=name or "any class", name=f"{_stem(name)}-{number:0{digits}d}")
        for number, name in enumerate(classes)
    ]


def refuse_others(out: Path, seed: int, settings: dict[str, Any], settled: tuple[str, ...]) -> None:
    """A folder of other scenes is not gone on with: the new ones would look like part of them."""
    for path in sorted(out.glob("*/report.json")):
        there = json.loads(path.read_text(encoding="utf-8"))
        known = there.get("settings", {})
        wanted = json.loads(json.dumps(settings))
        if there.get("seed") != seed or any(known.get(k) != wanted[k] for k in settled):
            raise UserError(
                f"{out}: holds scenes that were made with other options ({path.parent.name}); "
                "choose another --out, or add --force to replace them."
            )


def _make(
    options: Options,
    maker: "SceneMaker",
    jobs: list["Job"],
    out: Path,
    report: Report,
    formats: tuple[str, ...],
) -> "Tally":
    from unflat.collection import own_share, run_jobs
    from unflat.result import write_result

    numbers = {job.name: number for number, job in enumerate(jobs)}

    def work(job: "Job", folder: Path, own: Report) -> None:
        name = job.source if job.source in maker.classes else None

        def make() -> Any:
            with own.stage("tokens"):
                indices = maker.draw(name, seed=options.seed, number=numbers[job.name])
            with own.stage("scene"):
                return maker.scene(indices, class_name=name, seed=options.seed)

        write_result(
            make,
            folder,
            own,
            name=job.name,
            formats=formats,
            frames=options.frames,
            size=options.size,
            force=options.force,
        )

    return run_jobs(own_share(jobs), out, work, report, force=options.force)


def _finish(
    options: Options,
    terminal: Terminal,
    tally: "Tally",
    jobs: list["Job"],
    out: Path,
    report: Report,
) -> None:
    """The grid of all that are there, the report of the run, and what to say of it."""
    from torch.nn.functional import interpolate

    from unflat.collection import is_done
    from unflat.export import contact_sheet, write_png
    from unflat.scene import Scene

    with report.stage("grid"):
        there = [job for job in jobs if is_done(out, job)]
        fronts = []
        for job in there:
            front = Scene.load(out / job.name / "scene.safetensors").photo
            assert front is not None  # generated scenes carry it
            fronts.append(interpolate(front[None], (_CELL, _CELL), mode="area")[0])
        columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(fronts))))
        write_png(contact_sheet(fronts, columns), out / "grid.png")
    report.files = ["grid.png", "index.html", "report.jsonl", *(job.name for job in there)]
    report.write(out / "report.json")
    terminal.repeated_warnings()
    terminal.line(
        f"wrote {out}/  {len(tally.done)} new, {len(tally.skipped)} were there; grid.png shows all"
    )
    terminal.line(f"open {out / 'index.html'} to look through them")
    terminal.object("report", report.json())


def _say_plan(terminal: Terminal, options: Options, jobs: list["Job"], out: Path) -> int:
    terminal.line(f"would make {len(jobs)} scenes with {options.model}, to {out}/")
    for job in jobs:
        terminal.line(f"  {job.source} -> {out / job.name}/")
        terminal.object("plan", {"class": job.source, "out": str(out / job.name)})
    return 0
