"""``unflat data tokens``: pictures become tokens, kept for training the second stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unflat.cli.options import Device, Modelled, Planned, Speech, require_range
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Modelled):
    """Writes the tokens of every picture and of its mirror image, to learn from.

    Where it was cut, the same command goes on.
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH [PATH ...]")]
    """Folders or .tar files. PATH:CLASS,CLASS keeps some classes of one; the word example is a
    small made-up set."""
    out: Path
    """The folder of tokens."""
    classes: str | None = None
    """Keep only these classes of every data set, as in fruit,vegetable."""
    margin: int = 0
    """Pixels more on a side, out of which windows are cut."""
    crops: int = 1
    """Windows of each picture: the middle one, then random ones; more than 1 needs a margin."""
    seed: int = 0
    """Of the random windows."""
    device: Device = "auto"
    """Where to compute; auto takes a CUDA GPU if there is one."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of writing."""
    from unflat.cli.training_run import counts_of, open_datasets
    from unflat.device import choose_device
    from unflat.systems.vq3d import load
    from unflat.systems.vq3d.tokens import extract_tokens

    require_range(options.margin, 0, 256, "--margin", "pixels")
    require_range(options.crops, 1, 64, "--crops", "windows")
    if options.crops > 1 and not options.margin:
        raise UserError(f"--crops {options.crops}: needs a --margin, in which windows can differ.")
    about = {
        "data": list(options.data),
        "classes": options.classes.split(",") if options.classes else None,
        "margin": options.margin,
    }
    device = choose_device(options.device)
    report = Report(
        "data tokens",
        inputs=about["data"],
        seed=options.seed,
        device=device,
        settings={**about, "model": options.model, "crops": options.crops},
        listener=terminal,
    )
    model = load(options.model, device, options.offline)
    with report.stage("data") as stage:
        datasets = open_datasets(about, model.config.resolution)
        stage.note = counts_of(datasets)
    pictures = sum(len(data) for data in datasets)
    if options.dry_run:
        sequences = 2 * options.crops * pictures
        terminal.line(f"would write {sequences} sequences of tokens to {options.out}/")
        terminal.object("plan", {"out": str(options.out), "sequences": sequences})
        return 0
    with report.stage("tokens", total=pictures, unit="pictures") as stage:

        def told(done: int, total: int) -> None:
            stage.advance(done - stage.done)

        tokens = extract_tokens(
            model,
            datasets,
            options.out,
            autoencoder=options.model,
            crops=options.crops,
            seed=options.seed,
            progress=told,
        )
    report.figures = {"sequences": len(tokens), "classes": len(tokens.classes)}
    report.files = ["tokens.json"]
    report.write(options.out / "report.json")
    terminal.line(f"wrote {options.out}/  {len(tokens)} sequences, {len(tokens.classes)} classes")
    terminal.line(f"next: unflat train vq3d-prior --tokens {options.out} --out runs/prior")
    terminal.object("report", report.json())
    return 0
