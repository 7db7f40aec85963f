"""What verbs share that take one picture or many: where results go, and how many are done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unflat.errors import UserError
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


def inputs_or_example(
    verb: str, inputs: Sequence[str], wants_example: bool, example: str
) -> list[str]:
    """What a person named, or the bundled picture by the name that it gets.

    Raises:
        UserError: nothing is named, or both.
    """
    if wants_example:
        if inputs:
            raise UserError("--example: goes without other pictures; drop one of the two.")
        return [example]
    if not inputs:
        raise UserError(f"{verb}: no picture is named; give one, a folder, or --example.")
    return list(inputs)


def copy_example(bundled: Path, name: str) -> None:
    """A bundled picture as a file of the person's own; one that is there already is kept."""
    if Path(name).exists():
        return
    from unflat.data import open_picture
    from unflat.files import atomic_path

    with atomic_path(name) as temporary:
        open_picture(bundled).save(temporary, format="PNG")


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
