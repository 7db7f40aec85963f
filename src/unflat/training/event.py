"""What a run tells while it goes on, and how a terminal shows it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal[
    "start", "init", "resume", "step", "log", "sample", "checkpoint", "warning", "stop", "end"
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run."""

    kind: EventKind
    """``step`` comes after every optimizer step, without a message."""
    step: int
    """Optimizer steps done."""
    progress: float = 0.0
    """Share of the run that is done, in [0, 1]."""
    elapsed: float = 0.0
    """Seconds of the run, all its parts together."""
    message: str = ""
    """A sentence for a person."""
    values: dict[str, Any] = field(default_factory=dict)
    """Figures of a log line, the path of a file."""


OnEvent = Callable[[Event], None]


class ConsoleReporter:
    """Shows events: a bar on a terminal, plain lines when piped."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        console = self._console
        if event.kind == "start" and console.is_terminal and not console.is_dumb_terminal:
            self._begin_bar()
        if self._bar is not None:
            self._bar.update(self._task, completed=event.progress, step=event.step)
        if event.message:
            self._console.print(event.message, markup=False)
        if event.kind in ("stop", "end"):
            self.close()

    def close(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin_bar(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TextColumn("{task.percentage:>4.1f} %"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,
        )
        self._task = self._bar.add_task("train", total=1.0, step=0)
        self._bar.start()
