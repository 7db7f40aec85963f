"""Cases in processes of their own, and the memory that they take.

Imports neither torch nor unflat: Linux lets a child begin with its parent's peak of memory, so
what starts measurements stays small.
"""

import contextlib
import ctypes
import gc
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def run_child(
    module: str, words: list[str], threads: int, more: dict[str, str] | None = None
) -> Any:
    """The JSON of the last line that ``python -m module`` prints.

    Args:
        module: of this folder.
        words: its arguments.
        threads: of torch and numba, at most.
        more: environment variables on top of this process's.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **(more or {})}
    environment["NUMBA_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """Most memory that this process ever held; macOS counts bytes, Linux KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def memory_of(work: Callable[[], Any]) -> float:
    """MiB by which the process grows at most while a piece of work runs.

    On Linux the peak is forgotten first, and freed memory given back; elsewhere growth below an
    earlier peak stays unseen.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        _CLEAR.write_text("5")
        before = _status("VmRSS")
    except OSError:
        before = peak_mib()
        work()
        return peak_mib() - before
    work()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"{_STATUS} has no {name}"
    return int(found[1]) / 1024
