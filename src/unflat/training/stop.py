"""Ctrl-C and SIGTERM as a wish that the loop fulfils after the step at hand."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopWish:
    """Whether a signal to stop has come."""

    def __init__(self) -> None:
        self.came = False


@contextmanager
def stop_signals() -> Iterator[StopWish]:
    """Inside the block the first Ctrl-C or SIGTERM is only noted; a second one acts at once.

    Outside the main thread, where Python delivers no signals, nothing is noted.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def note(_number: int, _frame: object) -> None:
        wish.came = True
        for name in names:
            signal.signal(name, before[name])

    for name in names:
        signal.signal(name, note)
    try:
        yield wish
    finally:
        for name in names:
            signal.signal(name, before[name])
