"""Work on several cores: plain threads, since compiled functions run without Python's lock.

As many as PyTorch uses (``torch.set_num_threads``). Numba's own threads are not used: they do not
outlive a fork, after which data workers would die.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def run(work: Callable[..., None], tasks: Iterable[tuple[object, ...]]) -> None:
    """Calls ``work(*task)`` for all tasks; returns when the last is done.

    Raises:
        Exception: what the first task that failed raised.
    """
    listed = list(tasks)
    threads = min(torch.get_num_threads(), len(listed))
    if threads <= 1:
        for task in listed:
            work(*task)
        return
    for done in [_pool(os.getpid(), threads).submit(work, *task) for task in listed]:
        done.result()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork has to make its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="unflat-march")
