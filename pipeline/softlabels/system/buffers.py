"""Memory that is used again: a buffer comes back when no array of it is left.

Fresh memory costs a page fault every 4 KiB, about as much as reading what the system has in its cache.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALLEST = 1 << 16  # bytes: what is smaller the allocator itself uses again


class Buffers:
    """Arrays in memory of which up to `most` bytes are kept while nobody holds them, in buffers of powers of two: pages that
    nobody writes to take no memory. Several threads may ask.
    """

    def __init__(self, most: int) -> None:
        sizes = [1 << power for power in range(SMALLEST.bit_length() - 1, most.bit_length())]
        self._most, self._free = most, {size: deque[NDArray[np.uint8]]() for size in sizes}
        self._held: dict[int, weakref.ref[NDArray[np.uint8]]] = {}

    def __reduce__(self) -> tuple[object, ...]:  # another process has memory of its own
        return type(self), (self._most,)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array filled with anything. Its memory is used again once neither it nor a view of it is left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = 1 << (size - 1).bit_length()
        if room not in self._free:
            return np.empty(shape, dtype)
        try:
            memory = self._free[room].pop()
        except IndexError:
            memory = np.empty(room, np.uint8)
        array = np.frombuffer(memory.data, np.uint8, size)  # what is made of it keeps it alive, not only the memory
        ref = weakref.ref(array, self._back(memory))
        self._held[id(ref)] = ref
        return array.view(dtype).reshape(shape)

    def _back(self, memory: NDArray[np.uint8]) -> Callable[[weakref.ref[NDArray[np.uint8]]], None]:
        """What takes `memory` back, in whatever thread."""
        held, all_free, most = self._held, self._free, self._most

        def back(ref: weakref.ref[NDArray[np.uint8]]) -> None:
            held.pop(id(ref), None)
            if memory.nbytes + sum(size * len(free) for size, free in all_free.items()) <= most:
                all_free[memory.nbytes].append(memory)

        return back
