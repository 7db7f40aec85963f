"""``unflat generate`` with a generator of objects: seeds become objects, seen from all around."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unflat.cli.options import formats_of
from unflat.errors import UserError
from unflat.report import Report, versions
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.cli.generate import Options
    from unflat.collection import Job
    from unflat.systems.gan.pipeline import ObjectModel

_SHEET_SIDE = 160  # pixels of an object in the grid
_MOST_COLUMNS = 8
SETTLED = ("model", "truncation")  # what objects of one folder share


def run(options: "Options", path: Path, formats: tuple[str, ...], terminal: Terminal) -> int:
    """Exit code of generating.

    Args:
        options: as given.
        path: the model's file.
        formats: beside the usual files.
        terminal: where to speak.
    """
    from unflat.cli.generate import refuse_others
    from unflat.collection import own_share, run_jobs
    from unflat.device import choose_device
    from unflat.result import FORMATS, write_result
    from unflat.systems.gan.pipeline import load

    _refuse_what_does_nothing(options)
    truncation = 1.0 if options.truncation is None else options.truncation
    if not 0 <= truncation <= 1:
        raise UserError(
            f"--truncation {truncation:g}: must be from 0 (all alike) to 1 (as learned)."
        )
    device = choose_device(options.device)
    model = load(path, device)
    out = options.out or Path("generated")
    jobs = _jobs(options.count)
    settings: dict[str, Any] = {
        "model": options.model,
        "truncation": truncation,
        "size": options.size,
        "frames": options.frames,
    }
    if not options.force:
        refuse_others(out, options.seed, settings, SETTLED)
    if options.dry_run:
        terminal.line(f"would make {len(jobs)} objects with {options.model}, to {out}/")
        for job in jobs:
            terminal.object("plan", {"out": str(out / job.name)})
        return 0
    report = Report(
        "generate",
        inputs=[options.model],
        seed=options.seed,
        device=device,
        settings=settings,
        listener=terminal,
    )
    terminal.line(
        f"unflat {versions()['unflat']}  {options.model} ({model.system}, {model.resolution} px)  "
        f"{device}  {options.count} objects, to {out}"
    )
    asked = formats_of(options.format, FORMATS) if options.format else ()
    optional = [kind for kind in formats if kind not in asked]  # an object may have no surface
    numbers = {job.name: number for number, job in enumerate(jobs)}

    def work(job: "Job", folder: Path, own: Report) -> None:
        write_result(
            lambda: model.scene(
                numbers[job.name],
                seed=options.seed,
                truncation=truncation,
                name=options.model,
                sha256_of=path,
            ),
            folder,
            own,
            name=job.name,
            formats=formats,
            frames=options.frames,
            size=options.size,
            force=options.force,
            optional=optional,
        )

    tally = run_jobs(own_share(jobs), out, work, report, force=options.force)
    with report.stage("grid"):
        _write_grid(model, options, truncation, out / "grid.png")
    report.files = ["grid.png", "index.html", "report.jsonl", *(job.name for job in jobs)]
    report.write(out / "report.json")
    terminal.repeated_warnings()
    terminal.line(
        f"wrote {out}/  {len(tally.done)} new, {len(tally.skipped)} were there; grid.png shows all"
    )
    terminal.line(f"open {out / 'index.html'} to look through them")
    terminal.object("report", report.json())
    return 0


def _refuse_what_does_nothing(options: "Options") -> None:
    """Options of priors that a generator of objects has no use for."""
    from dataclasses import fields

    from unflat.cli.options import Sampled

    given = [f.name for f in fields(Sampled) if getattr(options, f.name) != f.default]
    if options.class_name is not None:
        given.append("class")
    if given:
        name = given[0].replace("_", "-")
        raise UserError(f"--{name}: is for priors; {options.model} makes objects of one kind.")


def _jobs(count: int) -> list["Job"]:
    from unflat.collection import Job

    digits = max(2, len(str(count - 1)))
    return [Job(source="object", name=f"object-{n:0{digits}d}") for n in range(count)]


def _write_grid(model: "ObjectModel", options: "Options", truncation: float, path: Path) -> None:
    """All objects from the canonical camera, as the generator pictures them."""
    import math

    import torch
    from torch.nn.functional import interpolate

    from unflat.export import contact_sheet, write_png

    fronts = []
    for number in range(options.count):
        codes = model.codes(model.latents([number], options.seed), truncation)
        image = model.pictures(codes, model.camera[:1], model.shown_side).image
        image = interpolate(image.clamp(0, 1), (_SHEET_SIDE, _SHEET_SIDE), mode="bicubic")
        fronts.append(image[0].clamp(0, 1).cpu())
    columns = min(_MOST_COLUMNS, math.ceil(math.sqrt(len(fronts))))
    assert isinstance(fronts[0], torch.Tensor)
    write_png(contact_sheet(fronts, columns), path)
