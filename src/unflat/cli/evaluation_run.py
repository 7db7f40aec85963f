"""What the verbs of ``unflat evaluate`` share: options, the run, and what is written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unflat.cli.options import Computed, Planned, Speech, Switch, require_range
from unflat.errors import UserError
from unflat.files import atomic_path
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Speech, Planned, Computed):
    """What every task of evaluation asks for."""

    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")]
    """What to measure on: .tar files or folders."""
    limit: int | None = None
    """Only the first so many items."""
    seed: int = 0
    """Of everything random in the measurement."""
    report: Path | None = None
    """JSON file for the figures and the protocol; the same for the same seed."""
    html: Path | None = None
    """Page with the table, every item, and pictures of the best, median and worst."""
    per_item: Switch = False
    """Keep every item's values in the report."""
    force: Switch = False
    """Replace an older report or page."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


def run_evaluation(
    options: EvaluationOptions,
    terminal: Terminal,
    task: str,
    unit: str,
    evaluate: "Callable[[str, Progress], Evaluation]",
    settings: dict[str, Any],
    check: Callable[[], object] | None = None,
) -> int:
    """Exit code of a task: measures, says the tables, writes what was asked for.

    Args:
        options: of the verb.
        terminal: who is told.
        task: its name.
        unit: what an item is, in the plural.
        evaluate: measures on a device, telling its progress.
        settings: what else was chosen, for the plan and the report.
        check: refuses what is wrong at once, before anything is read.

    Raises:
        UserError: a file is there already, or whatever `evaluate` refuses.
    """
    from unflat.cli.main import DONE, SOME_FAILED, STOPPED
    from unflat.device import choose_device
    from unflat.rendering import backends

    backends.compile_at_once()  # a figure does not depend on what was compiled before
    targets = [path for path in (options.report, options.html) if path is not None]
    for path in targets:
        if path.exists() and not options.force:
            raise UserError(f"{path}: is there already; add --force to replace it.")
    for path in options.data:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; check the spelling.")
    require_range(options.limit, 1, 10**9, "--limit", unit)
    require_range(options.seed, 0, 2**31 - 1, "--seed", "")
    if check is not None:
        check()
    if options.dry_run:
        plan = {name: str(value) for name, value in settings.items() if value is not None}
        words = ", ".join(f"{name} {value}" for name, value in plan.items())
        where = ", ".join(map(str, targets)) or "the terminal alone"
        terminal.line(
            f"would evaluate {task} on {', '.join(map(str, options.data))} ({words}), to {where}; "
            f"the first {unit} tell how long it takes."
        )
        terminal.object("plan", {"task": task, **plan, "writes": [str(path) for path in targets]})
        return DONE
    report = Report(
        f"evaluate {task}",
        inputs=[str(path) for path in options.data],
        seed=options.seed,
        device=choose_device(options.device),
        settings={**settings, "limit": options.limit},
        listener=terminal,
    )
    try:
        with report.stage("evaluate", total=1, unit=unit) as stage:

            def told(done: int, total: int) -> None:
                stage.total = total
                stage.advance(done - stage.done)

            found = evaluate(report.device or "cpu", told)
    except KeyboardInterrupt:
        terminal.error("stopped; nothing was written, and the same command begins anew.")
        return STOPPED
    rate = (
        f"{stage.done} {unit} in {stage.seconds:.1f} s, {stage.done / stage.seconds:.2f} {unit}/s"
    )
    for line in found.lines():
        terminal.line(line)
    for sentence in found.warnings:
        report.warn(sentence)
    for reject in found.rejected:
        report.fail(reject.name, reject.reason)
        report.warn(reject.reason, about=reject.name)
    terminal.line(rate)
    _write(options, found, rate, report, terminal)
    report.figures = found.figures
    report.parts = {"protocol": found.protocol}
    terminal.object("report", report.json())
    return SOME_FAILED if found.rejected else DONE


def _write(
    options: EvaluationOptions,
    found: "Evaluation",
    rate: str,
    report: Report,
    terminal: Terminal,
) -> None:
    from unflat.evaluation import write_page

    if options.report is not None:
        text = json.dumps(found.json(options.per_item), indent=1, ensure_ascii=False)
        with atomic_path(options.report) as temporary:
            Path(temporary).write_text(text + "\n", encoding="utf-8")
        terminal.line(f"wrote {options.report}")
    if options.html is not None:
        with report.stage("page"):
            write_page(options.html, found, [rate])
        terminal.line(f"wrote {options.html}")
