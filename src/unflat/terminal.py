"""What a run says while it runs: stages with seconds, one bar, plain lines when nobody looks on.

A terminal gets a moving bar; a pipe gets whole lines without carriage returns; ``--json`` gets one
object per line on stdout and the words on stderr; ``--quiet`` gets errors alone. Nothing is told by
colour.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from unflat.report import Stage

_BAR_WIDTH = 14
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_CERTAIN_SECONDS = 2.0
"""Before this, a remaining time would be a guess, so none is shown."""


@runtime_checkable
class Stream(Protocol):
    """What a terminal needs of a text file."""

    def write(self, text: str, /) -> object:
        """Take some text."""
        ...

    def flush(self) -> object:
        """Let it be seen now."""
        ...

    def isatty(self) -> bool:
        """Whether a person looks on."""
        ...


class Terminal:
    """Where the words of a run go.

    Args:
        quiet: only errors.
        json_lines: machine-readable: objects on stdout, everything else on stderr.
        stdout: replaces ``sys.stdout``.
        stderr: replaces ``sys.stderr``.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        json_lines: bool = False,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
    ) -> None:
        self.quiet = quiet
        self.json_lines = json_lines
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._words = self._stderr if json_lines else self._stdout
        dumb = os.environ.get("TERM", "") == "dumb"
        self._moving = self._words.isatty() and not dumb and not quiet
        self._began = 0.0
        self._drawn_at = 0.0
        self._warned: dict[str, int] = {}

    @property
    def columns(self) -> int | None:
        """How many letters fit side by side, where a person looks on; None where nobody does."""
        return shutil.get_terminal_size().columns if self._moving else None

    def line(self, text: str = "") -> None:
        """One line of words."""
        if not self.quiet:
            self._write(self._words, text)

    def object(self, event: str, values: Mapping[str, Any]) -> None:
        """One object for machines; nothing without ``--json``."""
        if self.json_lines:
            text = json.dumps({"event": event, **values}, ensure_ascii=False, allow_nan=False)
            self._write(self._stdout, text)

    def error(self, sentence: str) -> None:
        """What went wrong, always shown, on stderr."""
        self._write(self._stderr, sentence)

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        self._began = self._drawn_at = time.perf_counter()
        if self._moving:
            self._draw(f"  {stage.name:<10}   ...")

    def advanced(self, stage: Stage) -> None:
        """A stage is further along; redraws at most ten times a second."""
        now = time.perf_counter()
        pause = _REDRAW_SECONDS if self._moving else _LINE_SECONDS
        if self.quiet or stage.total is None or now - self._drawn_at < pause:
            return
        self._drawn_at = now
        text = f"  {stage.name:<10} {now - self._began:5.1f} s   {self._progress(stage, now)}"
        if self._moving:
            self._draw(text)
        elif stage.done < stage.total:
            self._write(self._words, text)

    def finished(self, stage: Stage) -> None:
        """A stage ended: its name, its seconds, its note."""
        steps = f"{stage.done} {stage.unit}".rstrip() if stage.total else ""
        note = ", ".join(part for part in (steps, stage.note) if part)
        text = f"  {stage.name:<10} {stage.seconds:5.1f} s   {note}".rstrip()
        if self._moving:
            self._draw("")
        self.line(text)
        self.object("stage", {"name": stage.name, "seconds": round(stage.seconds, 4), "note": note})

    def warned(self, sentence: str, about: str | None) -> None:
        """A warning; the same one about other files is counted, and told at the end."""
        count = self._warned[sentence] = self._warned.get(sentence, 0) + 1
        self.object("warning", {"warning": sentence, "about": about})
        if count == 1 and not self.quiet:
            if self._moving:
                self._draw("")
            text = f"{about}: {sentence}" if about else sentence
            self._write(self._words, f"  warning: {text}")

    def repeated_warnings(self) -> None:
        """Once, at the end: how often each repeated warning came."""
        for sentence, count in self._warned.items():
            if count > 1:
                self.line(f"  warning, {count} times: {sentence}")

    def _progress(self, stage: Stage, now: float) -> str:
        assert stage.total is not None
        share = min(1.0, stage.done / max(1, stage.total))
        filled = round(_BAR_WIDTH * share)
        text = f"{'#' * filled}{'-' * (_BAR_WIDTH - filled)}  {stage.done}/{stage.total}"
        text = f"{text} {stage.unit}".rstrip()
        passed = now - self._began
        if share > 0 and passed >= _CERTAIN_SECONDS:
            text += f", {_duration(passed / share * (1 - share))} left"
        return text

    def _draw(self, text: str) -> None:
        """Replace the moving line; an empty text clears it."""
        self._words.write(f"\r\x1b[K{text}")
        self._words.flush()

    def _write(self, stream: Stream, text: str) -> None:
        stream.write(f"{text}\n")
        stream.flush()


def _duration(seconds: float) -> str:
    """Seconds in the unit that a person would say, as in "40 s", "12 min", "1 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
