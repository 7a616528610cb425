from __future__ import annotations

import numpy as np
import torch

from softlabels.system.buffers import SMALLEST, Buffers

SIZE = 2 * SMALLEST


def place(values: np.ndarray) -> int:
    return values.__array_interface__["data"][0]


def test_memory_is_used_again_once_no_view_of_it_is_left() -> None:
    buffers = Buffers(4 * SIZE)
    whole = buffers.empty((SIZE // 4, 2), np.uint16)
    at, part = place(whole), torch.from_numpy(np.frombuffer(whole.data.cast("B")[:-4], "<f2").reshape(2, -1)[1])
    del whole
    other = buffers.empty((SIZE,), np.uint8)
    assert place(other) != at  # a tensor still looks at the first
    del part
    assert place(buffers.empty((SIZE - 9,), np.uint8)) == at


def test_what_is_kept_is_bounded_and_small_or_large_arrays_are_not() -> None:
    buffers = Buffers(4 * SIZE)
    places = {place(values) for values in [buffers.empty((SIZE,), np.uint8) for _ in range(6)]}
    again = [buffers.empty((SIZE,), np.uint8) for _ in range(6)]
    assert len(places & {place(values) for values in again}) >= 4
    del again
    kept = [each for free in buffers._free.values() for each in free]
    assert sum(each.nbytes for each in kept) == 4 * SIZE
    for shape in ((0, 3), (SMALLEST // 4,), (8 * SIZE,)):
        assert buffers.empty(shape, np.uint8).shape == shape
    assert [each for free in buffers._free.values() for each in free] == kept
