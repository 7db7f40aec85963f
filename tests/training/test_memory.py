import platform
import subprocess
import sys

import pytest

from unflat.training import memory

FAULTS = """
import resource
import torch
from unflat.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)  # 64 MiB: 16384 small pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = min(faults() for _ in range(3))
assert keep_freed_memory()
faults()
print(usual, min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_freed_memory_is_not_asked_for_again():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    usual, kept = (int(count) for count in done.stdout.split())
    assert usual >= 16  # with large pages, one for each 2 MiB and more
    assert kept <= usual // 8


def test_another_system_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(memory.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: 1 / 0)
    assert memory.keep_freed_memory() is False
