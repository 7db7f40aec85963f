"""``unflat data procedural``: writes made-up scenes with exact depth and cameras."""

from dataclasses import dataclass
from pathlib import Path

from unflat.cli.options import Planned, Speech, Switch
from unflat.report import Report
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned):
    """Writes made-up scenes: train.tar (pictures with disparity) and val.tar (known cameras)."""

    out: Path
    """The folder to make."""
    force: Switch = False
    """Replace an older result."""
    count: int = 512
    """Training pictures."""
    resolution: int = 64
    """Side in pixels, even."""
    views: int = 8
    """Further views of each scene of val.tar."""
    seed: int = 0
    """Of the scenes."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of writing."""
    from unflat.data.procedural import write_procedural

    if options.dry_run:
        terminal.line(f"would write {options.count} pictures to {options.out}/train.tar")
        terminal.object("plan", {"out": str(options.out), "count": options.count})
        return 0
    report = Report(
        "data procedural",
        seed=options.seed,
        settings={"count": options.count, "resolution": options.resolution, "views": options.views},
        listener=terminal,
    )
    with report.stage("scenes", total=options.count, unit="scenes") as stage:

        def told(done: int, total: int) -> None:
            stage.total = total
            stage.advance(done - stage.done)

        files = write_procedural(
            options.out,
            options.count,
            options.resolution,
            options.seed,
            options.views,
            force=options.force,
            progress=told,
        )
    report.figures = {"train_pictures": files.train_count, "val_scenes": files.val_count}
    report.files = [files.train.name, files.val.name]
    report.write(options.out / "report.json")
    terminal.line(f"wrote {options.out}/  {'  '.join(report.files)}")
    terminal.line(
        f"next: unflat train vq3d-autoencoder --preset tiny --data {files.train} --out runs/a"
    )
    terminal.object("report", report.json())
    return 0
