"""``unflat data objects``: writes made-up objects seen from all around."""

import math
from dataclasses import dataclass
from pathlib import Path

from unflat.cli.options import Planned, Speech, Switch, require_range
from unflat.report import Report
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned):
    """Writes made-up objects of one category: objects.tar, with known cameras and depth."""

    out: Path
    """The folder to make."""
    force: Switch = False
    """Replace an older result."""
    count: int = 64
    """Objects to train from; an eighth as many (at least 4) are added to val, and to test."""
    resolution: int = 32
    """Side of the pictures in pixels."""
    views: int = 16
    """Pictures of each object."""
    azimuth_deg: float = 180.0
    """How far to each side of the front cameras stand; 180 all around."""
    seed: int = 0
    """Of objects and cameras."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of writing."""
    from unflat.data.procedural_objects import write_procedural_objects

    require_range(options.azimuth_deg, 1, 180, "--azimuth-deg", "degrees")
    if options.dry_run:
        terminal.line(f"would write {options.count} objects to train from to {options.out}/")
        terminal.object("plan", {"out": str(options.out), "count": options.count})
        return 0
    report = Report(
        "data objects",
        seed=options.seed,
        settings={
            "count": options.count,
            "resolution": options.resolution,
            "views": options.views,
            "azimuth_deg": options.azimuth_deg,
        },
        listener=terminal,
    )
    around = math.radians(options.azimuth_deg)
    with report.stage("objects", total=options.count, unit="objects") as stage:

        def told(done: int, total: int) -> None:
            stage.total = total
            stage.advance(done - stage.done)

        files = write_procedural_objects(
            options.out,
            options.count,
            options.resolution,
            options.seed,
            options.views,
            azimuth=(-around, around),
            force=options.force,
            progress=told,
        )
    report.figures = {f"{split}_objects": count for split, count in files.objects.items()}
    report.files = [files.path.name]
    report.write(options.out / "report.json")
    terminal.line(f"wrote {files.path}")
    terminal.line(
        f"next: unflat train gan --system sdf_triplane --preset tiny --data {files.path} "
        "--out runs/objects --max-time 20m"
    )
    terminal.object("report", report.json())
    return 0
