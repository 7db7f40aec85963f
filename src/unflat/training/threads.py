"""How many CPU threads a run takes."""

import time
from collections.abc import Callable

import torch

_REPEATS = 2


def fastest_threads(work: Callable[[], object]) -> int:
    """1 or all of torch's threads, whichever does ``work`` faster; the number is set, too.

    On a busy machine two threads in lockstep wait for the one that lost its core, and one alone
    is faster. Nothing is measured where torch has one thread.

    Args:
        work: a representative piece, without lasting effects; called six times.
    """
    most = torch.get_num_threads()
    if most == 1:
        return 1
    seconds: dict[int, float] = {}
    for threads in (most, 1):
        torch.set_num_threads(threads)
        work()
        times: list[float] = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        seconds[threads] = min(times)
    best = min(seconds, key=lambda threads: seconds[threads])
    torch.set_num_threads(best)
    return best
