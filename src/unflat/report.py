"""What ran, on what, for how long: the ``report.json`` that every verb leaves beside its output.

report = Report("reconstruct", inputs=["cat.jpg"], seed=0, device="cpu")
with report.stage("scene") as stage:
    ...
    stage.note = "confidence 0.71 (fine)"
report.warn("the object is cut by the left edge; its side will be a guess", about="cat.jpg")
report.write("cat/report.json")
"""

import json
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unflat.files import atomic_path

FORMAT = 1
"""Version of the file's layout; raised when a key changes its meaning."""

_VERSIONED = ("unflat", "torch", "numpy", "pillow", "safetensors")
_MIB = 1024 * 1024


@dataclass
class Stage:
    """One named part of the work, while it runs and afterwards."""

    name: str
    """One word, as in "scene"."""
    total: int | None = None
    """How many steps it has, if that is known."""
    unit: str = ""
    """What one step is, in the plural, as in "views"."""
    done: int = 0
    """Steps so far."""
    seconds: float = 0.0
    """How long it took, once it ended."""
    note: str = ""
    """What to say beside its seconds."""
    _listener: "Listener | None" = field(default=None, repr=False)

    def advance(self, steps: int = 1) -> None:
        """One more step (or several) of ``total`` is done."""
        self.done += steps
        if self._listener is not None:
            self._listener.advanced(self)


@runtime_checkable
class Listener(Protocol):
    """Who is told while the work runs; the terminal, usually."""

    def started(self, stage: Stage) -> None:
        """A stage begins."""
        ...

    def advanced(self, stage: Stage) -> None:
        """``stage.done`` has grown."""
        ...

    def finished(self, stage: Stage) -> None:
        """A stage ended, well or not; its seconds and note are there."""
        ...

    def warned(self, sentence: str, about: str | None) -> None:
        """Something to know, about a file or an option or the whole run."""
        ...


class Report:
    """What is known about one run; fill it while working, write it at the end.

    Args:
        verb: the command, as in "reconstruct".
        inputs: files or folders that were read, as the person named them.
        seed: of the run, where it has one.
        device: "cpu", "cuda" or "mps".
        settings: the options that shaped the result.
        listener: is told about stages and warnings as they happen.
    """

    def __init__(
        self,
        verb: str,
        *,
        inputs: Sequence[str] = (),
        seed: int | None = None,
        device: str | None = None,
        settings: Mapping[str, Any] | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.verb = verb
        self.inputs = list(inputs)
        self.seed = seed
        self.device = device
        self.settings = dict(settings or {})
        self.confidence: float | None = None
        """In [0, 1]; how it is computed is the system's own page."""
        self.figures: dict[str, Any] = {}
        """Measured quantities by name, with units in the names."""
        self.licences: dict[str, str] = {}
        """What each part of the result (model, input) may be used for."""
        self.files: list[str] = []
        """What was written, relative to the report."""
        self.failures: list[dict[str, str]] = []
        """Inputs of many that could not be used: {"input": ..., "reason": ...}."""
        self.parts: dict[str, Any] = {}
        """Further parts of the file by name, as in "protocol"."""
        self.stages: list[Stage] = []
        self.warnings: Counter[tuple[str, str | None]] = Counter()
        self._listener = listener
        self._started = time.time()
        self._clock = time.perf_counter()

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        """A named part of the work, timed; the same name again adds a second entry.

        Args:
            name: one word.
            total: steps, if the stage calls ``advance``.
            unit: what a step is, in the plural.
        """
        stage = Stage(name, total, unit, _listener=self._listener)
        start = time.perf_counter()
        if self._listener is not None:
            self._listener.started(stage)
        try:
            yield stage
        finally:
            stage.seconds = time.perf_counter() - start
            self.stages.append(stage)
            if self._listener is not None:
                self._listener.finished(stage)

    def warn(self, sentence: str, about: str | None = None) -> None:
        """Say something now and keep it in the file.

        Args:
            sentence: without the file's name, so that the same warning about many files counts as
                one.
            about: the file or option that it is about.
        """
        self.warnings[sentence, about] += 1
        if self._listener is not None:
            self._listener.warned(sentence, about)

    def fail(self, about: str, reason: str) -> None:
        """One input of many could not be used; the others go on."""
        self.failures.append({"input": about, "reason": reason})

    def json(self) -> dict[str, Any]:
        """Everything, as plain JSON types; numbers that are not finite become None."""
        seconds: dict[str, float] = {}
        for stage in self.stages:
            seconds[stage.name] = round(seconds.get(stage.name, 0.0) + stage.seconds, 4)
        return _plain(
            {
                "format": FORMAT,
                "verb": self.verb,
                "command": ["unflat", *sys.argv[1:]],
                "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
                "inputs": self.inputs,
                "settings": self.settings,
                "seed": self.seed,
                "device": self.device,
                "seconds": seconds,
                "seconds_total": round(time.perf_counter() - self._clock, 4),
                "peak_memory_mib": peak_memory_mib(),
                "confidence": self.confidence,
                "figures": self.figures,
                "warnings": [
                    {"warning": sentence, "about": about, "count": count}
                    for (sentence, about), count in self.warnings.items()
                ],
                "failures": self.failures,
                "licences": self.licences,
                "files": self.files,
                "versions": versions(),
                **self.parts,
            }
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """The report as a JSON file, whole or not at all.

        Raises:
            UserError: the place can not be written.
        """
        with atomic_path(path) as temporary:
            text = json.dumps(self.json(), indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        return Path(path)


def versions() -> dict[str, str]:
    """Versions of unflat and of what its numbers depend on, without importing any of it."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def peak_memory_mib() -> dict[str, float]:
    """Most memory held so far in MiB: "process", and "device" where a GPU was used."""
    peaks: dict[str, float] = {}
    try:
        import resource
    except ImportError:  # Windows counts differently; better no figure than a wrong one.
        pass
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks["process"] = round(peak / (_MIB if sys.platform == "darwin" else 1024), 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peaks["device"] = round(torch.cuda.max_memory_allocated() / _MIB, 1)
    return peaks


def _plain(value: Any) -> Any:
    """``value`` with only what JSON knows; paths and other objects become their names."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a number of torch or numpy
        return _plain(value.item())
    return str(value)
