"""What verbs share that take one picture or many: where results go, and how many are done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.collection import Job


def result_folder(
    out: Path | None, inputs: Sequence[str], jobs: Sequence["Job"], many: bool, kind: str
) -> Path:
    """The result's folder for one picture; the folder of results for many.

    Args:
        out: what the person named.
        inputs: as they were given.
        jobs: of all pictures.
        many: whether each gets a folder of its own.
        kind: what results are, in the plural.
    """
    if out is not None:
        return out
    if not many:
        return Path(Path(jobs[0].name).name)
    if len(inputs) == 1 and Path(inputs[0]).is_dir():
        return Path(f"{Path(inputs[0]).resolve().name}-{kind}")
    return Path(f"unflat-{kind}")


def run_many(
    jobs: list["Job"],
    out: Path,
    work: "Callable[[Job, Path, Report], None]",
    report: Report,
    terminal: Terminal,
    *,
    headline: str,
    force: bool,
) -> int:
    """Do all pictures into one folder; the exit code, which tells whether some failed.

    Args:
        jobs: of all processes; this one takes its share.
        out: the folder of results.
        work: does one picture into its folder.
        report: of the whole run.
        terminal: who is told.
        headline: what begins.
        force: replace older results.
    """
    from unflat.cli.main import DONE, SOME_FAILED
    from unflat.collection import own_share, run_jobs

    terminal.line(f"{headline}: {len(jobs)} pictures, to {out}")
    tally = run_jobs(own_share(jobs), out, work, report, force=force)
    terminal.repeated_warnings()
    terminal.line(
        f"wrote {out}/  {len(tally.done)} new, {len(tally.skipped)} were there, "
        f"{len(tally.failed)} failed (listed in {out / 'report.jsonl'})"
    )
    terminal.line(f"open {out / 'index.html'} to look through them")
    terminal.object("report", report.json())
    return SOME_FAILED if tally.failed else DONE
