"""Work on several cores, as many as PyTorch uses (``torch.set_num_threads``).

Compiled functions run without Python's lock, so plain threads would do. But where PyTorch's own
threads are OpenMP's, they turn in circles for some milliseconds after each of its operations, in
the hope of more work, and others wait for the cores meanwhile. So the work is given to them. A fork
has lost them, and gets plain threads; so does a system where they are not GNU's.
"""

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PROCESS = os.getpid()
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(work: Callable[..., None], tasks: Iterable[tuple[object, ...]]) -> None:
    """Calls ``work(*task)`` for all tasks; returns when the last is done.

    Raises:
        Exception: what a task that failed raised.
    """
    listed = list(tasks)
    threads = min(torch.get_num_threads(), len(listed))
    if threads <= 1:
        for task in listed:
            work(*task)
        return
    parallel = _openmp() if os.getpid() == _PROCESS else None
    if parallel is None:
        for done in [_pool(os.getpid(), threads).submit(work, *task) for task in listed]:
            done.result()
        return
    left, failed = iter(listed), list[BaseException]()

    def body(_: Any) -> None:
        try:
            for task in left:  # each thread takes the next one
                work(*task)
        except BaseException as error:
            failed.append(error)

    parallel(_Body(body), None, threads, 0)
    if failed:
        raise failed[0]


@cache
def _openmp() -> Any:
    """GNU OpenMP's way to have a function called by several threads, of the copy PyTorch uses."""
    for library in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
        parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork has to make its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="unflat-march")
