"""Freed memory stays with the process: on Linux the C library gives arrays of megabytes back to the system as soon as they are
freed, and fetching such pages anew, a step's every array, takes a fifth to a quarter of a training step on a CPU.

It cannot be undone, so only a command asks for it, whose process is its own; `Trainer` leaves the process as it is.
"""

from __future__ import annotations

import ctypes

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT, _LARGEST = (1 << 31) - 1, 1 << 30  # bytes that stay with the process; larger single arrays do not


def keep_freed_memory() -> None:
    """Tell the C library so, for the life of the process; where it is not glibc, nothing happens. No result depends on it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_MMAP, _LARGEST):  # alone, the other would send every array to the system
        return
    mallopt(_TRIM, _KEPT)
