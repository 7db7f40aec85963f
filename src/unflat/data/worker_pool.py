"""The same work on many things in several processes, some of which may die of it.

for index, result in results_of(render, tasks, jobs=8):
    ...
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Event
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_stop: Event | None = None


class Stopped(Exception):
    """The work is not wanted any more."""


def cores() -> int:
    """How many processes can run at once."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known is not None else os.cpu_count() or 1


def raise_if_stopped() -> None:
    """To be called by the work now and then, so that Ctrl-C need not wait for its end.

    Raises:
        Stopped: the other processes' owner has gone on, or was interrupted.
    """
    if _stop is not None and _stop.is_set():
        raise Stopped


def results_of(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    preload: Sequence[str] = (),
) -> Iterator[tuple[int, Result | None]]:
    """Number and result of each task, as they become done; None where the process died of it.

    Processes are started afresh, never forked from one whose threads have run. One job means this
    process, and no other.

    Args:
        work: a function of a module, and its results, have to be picklable.
        tasks: in the order in which they are begun.
        jobs: processes.
        preload: modules that all processes need.
    """
    if jobs <= 1:
        yield from ((number, work(task)) for number, task in enumerate(tasks))
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    waiting = list(range(len(tasks)))[::-1]
    while waiting:
        begun: dict[Future[Result], int] = {}
        with _Pool(context, min(jobs, len(waiting))) as pool:
            try:
                while waiting or begun:
                    # few are begun at once: each of them is a suspect when a process dies
                    while waiting and len(begun) < jobs:
                        begun[pool.submit(work, tasks[waiting[-1]])] = waiting[-1]
                        waiting.pop()  # only now: a broken pool takes nothing
                    for done in wait(begun, return_when=FIRST_COMPLETED).done:
                        result = done.result()
                        yield begun.pop(done), result
            except BrokenProcessPool:
                pass
        for suspect in sorted(begun.values()):
            yield suspect, _alone(context, work, tasks[suspect])


def _alone(context: BaseContext, work: Callable[[Task], Result], task: Task) -> Result | None:
    """A task in a process of its own; None if that dies."""
    try:
        with _Pool(context, 1) as pool:
            return pool.submit(work, task).result()
    except BrokenProcessPool:
        return None


class _Pool:
    """Processes that are told to stop when the block ends early, and are waited for."""

    def __init__(self, context: BaseContext, jobs: int) -> None:
        self.stop = context.Event()
        self.executor = ProcessPoolExecutor(
            jobs, context, initializer=_begin, initargs=(self.stop,)
        )

    def __enter__(self) -> ProcessPoolExecutor:
        return self.executor

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.executor.shutdown(wait=True, cancel_futures=True)


def _begin(stop: Event) -> None:
    """Ctrl-C reaches all processes of a terminal: the first one tells the others."""
    import torch

    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
