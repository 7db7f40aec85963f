"""``unflat data check``: what a data set holds, and what of it is unusable."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unflat.cli.options import Placed, Speech
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data.check import CheckReport

_MOST_REASONS = 10
_MOST_CLASSES = 30


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Placed):
    """Decodes every picture once: counts, unusable ones with reasons, a sheet of examples.

    Of objects with cameras, their pictures tell whether the cameras are what they should be, and
    the sheet shows where they stand. Writes report.json and sheet.png into --out, NAME-check/
    beside you if not given. Exit code 3 if something is unusable.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH ...")]
    """Folders of pictures, .tar files of pictures, posed scenes, published sets with cameras."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of checking."""
    from unflat.cli.main import DONE, SOME_FAILED
    from unflat.data.check import check
    from unflat.files import atomic_folder

    out = options.out or Path(f"{options.data[0].resolve().stem}-check")
    report = Report("data check", inputs=[str(path) for path in options.data], listener=terminal)
    with atomic_folder(out, options.force) as partial:
        with report.stage("decode", total=1, unit="items") as stage:

            def told(done: int, total: int) -> None:
                stage.total, stage.done = total, done - 1
                stage.advance()

            found = check(list(options.data), progress=told)
        report.figures = found.to_json()
        for sentence in found.warnings:
            report.warn(sentence)
        report.files = ["report.json"]
        if found.sheet is not None:
            found.sheet.save(partial / "sheet.png")
            report.files.append("sheet.png")
        report.write(partial / "report.json")
    _print(found, terminal)
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.object("report", report.json())
    return SOME_FAILED if found.rejects else DONE


def _print(found: "CheckReport", terminal: Terminal) -> None:
    scenes = f" in {found.scenes} posed scenes" if found.scenes else ""
    terminal.line(f"{found.pictures} pictures{scenes}, {found.with_disparity} with disparity")
    for sentence in found.layouts:
        terminal.line(sentence)
    for name, count in list(found.size_counts.items())[:_MOST_REASONS]:
        terminal.line(f"  {count:>8}  {name} pixels")
    for name, count in list(found.class_counts.items())[:_MOST_CLASSES]:
        terminal.line(f"  {count:>8}  of class {name}")
    if len(found.class_counts) > _MOST_CLASSES:
        terminal.line(f"  and {len(found.class_counts) - _MOST_CLASSES} more classes")
    if found.rejects:
        terminal.line(f"{len(found.rejects)} unusable:")
    for reason, count in list(found.reason_counts.items())[:_MOST_REASONS]:
        terminal.line(f"  {count:>8}  {reason}")
