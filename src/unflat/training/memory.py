"""Memory that one step frees and the next one wants again."""

import ctypes
import platform

# mallopt's numbers in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_INT = 2**31 - 1
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """True if freed memory now stays with this process, which then asks for it but once.

    Usually glibc gives large pieces back to the system, which hands them out again page by page,
    cleared: tens of thousands of interruptions in a step whose temporaries are as large as the last
    step's. Pieces of 1 GiB and more, and everything under another C library, are left as they are.

    For processes that do one thing over and over: their memory stays at its peak until they end.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_MMAP_THRESHOLD, 1024 * _MIB) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    )
