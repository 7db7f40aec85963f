"""``unflat evaluate reconstruction``: how well a model reconstructs, beside simple baselines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unflat.cli.options import Computed, Modelled, Planned, Speech, Switch, require_range
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Computed, Modelled):
    """How well a model reconstructs scenes whose cameras and depths are known.

    Baselines are measured in the same run: the input unchanged, and the input warped by depth.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")]
    """Posed scenes: .tar files or folders, as `unflat data procedural` writes val.tar."""
    photos: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Pictures without cameras, for the canonical figures."""
    report: Path | None = None
    """JSON file for the figures and the protocol."""
    force: Switch = False
    """Replace an older report."""
    limit: int | None = None
    """Only the first so many scenes and photos."""
    resolution: int | None = None
    """Side in pixels at which all is compared; the model's own if not given."""
    samples: int | None = None
    """Intervals of a ray; the evaluation's own number if not given."""
    per_scene: Switch = False
    """Keep every scene's values in the report."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    from unflat.cli.main import DONE, SOME_FAILED
    from unflat.hub import find

    target = options.report
    if target is not None and target.exists() and not options.force:
        raise UserError(f"{target}: is there already; add --force to replace it.")
    require_range(options.limit, 1, 10**9, "--limit", "scenes")
    require_range(options.samples, 2, 1024, "--samples", "intervals")
    model = find(options.model, offline=options.offline)
    if options.dry_run:
        terminal.line(f"would evaluate {model} on {', '.join(map(str, options.data))}")
        terminal.object("plan", {"model": str(model), "report": str(target) if target else None})
        return 0
    from unflat.device import choose_device
    from unflat.evaluation import evaluate_reconstruction, table_lines

    report = Report(
        "evaluate reconstruction",
        inputs=[str(path) for path in (*options.data, *options.photos)],
        device=choose_device(options.device),
        settings={"model": options.model, "limit": options.limit, "resolution": options.resolution},
        listener=terminal,
    )
    with report.stage("evaluate", total=1, unit="") as stage:

        def told(done: int, total: int) -> None:
            stage.total = total
            stage.advance(done - stage.done)

        found = evaluate_reconstruction(
            model,
            list(options.data),
            photos=list(options.photos) or None,
            limit=options.limit,
            resolution=options.resolution,
            samples=options.samples,
            device=report.device or "cpu",
            per_scene=options.per_scene,
            progress=told,
        )
    for line in table_lines(found):
        terminal.line(line)
    rejected = found["protocol"].get("rejected", [])
    for reject in rejected:
        report.warn(reject)
    report.figures = found.pop("figures")
    report.parts = found
    if target is not None:
        report.write(target)
        terminal.line(f"wrote {target}")
    terminal.object("report", report.json())
    return SOME_FAILED if rejected else DONE
