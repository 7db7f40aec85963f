"""Whether compiling a kernel pays: that costs some fifteen seconds, once on a computer.

As long as a kernel has never been compiled here, pictures are left to the reference until it has
been given as much work as would have paid for compiling, so that one photo does not wait for what
only many are quicker with. After that the kernel is always taken.
"""

from collections import Counter
from contextlib import suppress

from unflat.rendering.backends.cpu.simd import machine_code

SAMPLES = 10_000_000
"""Work that pays: the reference takes about a microsecond for a sample."""

_given: Counter[str] = Counter()
_ready: set[str] = set()


def pays(kernel: str, samples: int) -> bool:
    """Whether a kernel is taken for so many samples more.

    Args:
        kernel: a name, as in "TriplaneField-forward".
        samples: that are asked for now.
    """
    if kernel not in _ready and (machine_code() / kernel).exists():
        _ready.add(kernel)
    if kernel in _ready:
        return True
    _given[kernel] += samples
    return _given[kernel] >= SAMPLES


def is_ready(kernel: str) -> None:
    """Notes, also for later processes, that a kernel has been compiled."""
    if kernel in _ready:
        return
    _ready.add(kernel)
    with suppress(OSError):  # then it is found out anew each time
        machine_code().mkdir(parents=True, exist_ok=True)
        (machine_code() / kernel).touch()
