"""What this machine can do at most, what figures depend on, and how a piece of work is timed.

A floor is the time that a piece of work takes at least: its float32 operations at the rate of a
large matrix product, or its bytes at the rate of a large copy, whichever takes longer. It counts
multiplications and additions only: exponentials, address arithmetic and waiting come on top.
"""

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch

from unflat.report import versions

SIDE = 1536  # of the matrices multiplied: past it the rate grows no more
COPIED = 1 << 26  # numbers of a copy: 256 MiB, far beyond every cache
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Work = Callable[[], Any]


class Rates(NamedTuple):
    """Measured with as many threads as the work will have."""

    flops: float
    """Float32 multiplications and additions a second, of a square matrix product."""
    bytes: float
    """Bytes a second, read and written, of a copy."""

    def floor(self, flops: float, moved: float) -> float:
        """Seconds below which the work cannot come."""
        return max(flops / self.flops, moved / self.bytes)


@torch.no_grad()
def rates(clock: str = "wall") -> Rates:
    """The machine's rates with torch's present number of threads."""
    left, right = torch.randn(2, SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)
    product = fastest(lambda: torch.mm(left, right, out=out), seconds=1.0, clock=clock)
    source = torch.zeros(COPIED)
    target = torch.empty_like(source)
    copy = fastest(lambda: target.copy_(source), seconds=1.0, clock=clock)
    return Rates(2 * SIDE**3 / product, 2 * 4 * COPIED / copy)


def fastest(work: Work, seconds: float = 1.0, clock: str = "wall") -> float:
    """Seconds of the fastest of at least three calls, after one to warm up."""
    return min(alternate({"it": work}, seconds, clock)["it"])


def alternate(
    works: Mapping[str, Work],
    seconds: float = 2.0,
    clock: str = "wall",
    least: int = 3,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of every call of every work, one after the other in turns.

    What disturbs a busy machine then disturbs all of them.

    Args:
        works: what is timed, by name.
        seconds: goes on for so long, on the wall, all works together.
        clock: what a call is timed by.
        least: calls of each work, whatever they take.
        warm_up: calls each once before.
    """
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values() if warm_up else ():
        work()
    gc.collect()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(times.values()))) < least:
        for name, work in works.items():
            start = now()
            work()
            times[name].append(now() - start)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Fastest and median in seconds, and how many calls there were."""
    return {"min": min(times), "median": median(times), "calls": len(times)}


def machine_facts() -> dict[str, Any]:
    """What figures depend on beside the code; no names of machines."""
    instructions = torch.backends.cpu.get_cpu_capability().replace("AVX", "AVX-")
    known = {name: value for name, value in versions().items() if name != "system"}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} cores, {instructions}, {platform.system()} "
        f"{platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": known,
    }
