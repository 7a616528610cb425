"""The order of an epoch: which item stands where, as a pure function of a few numbers. No files, no labels, no torch.

An item is a row of the student's data (numbered 0..N-1 after selection); it lies in the chunk of the store that holds
its label. An epoch permutes the chunks, cuts them into windows of at most `window` chunks, and permutes the items
inside each window; batches are consecutive slices of that sequence. So each chunk is read about once an epoch, no more
than `window` chunks are wanted at a time, and batch g is found without generating the batches before it.

Permutations sort the outputs of SplitMix64 over item numbers (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
number generators"). The function is a bijection, so there are no ties, and the order depends on no library's random
stream.

Neighbours: `join.py` says which items there are, `loader.py` reads them in this order.
Shape letters: N items, K chunks that hold items.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(key: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Outputs `counters` of the SplitMix64 stream that starts at `key`; distinct counters give distinct outputs."""
    return mix(np.uint64(key) + counters * _GAMMA)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What SplitMix64 gives in state `x`: a bijection of 64-bit numbers that scatters them."""
    z = x + _GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def permute(values: Ints, key: int) -> Ints:
    """Distinct `values` >= 0 in the order of their hashes under `key`, in whatever order they came."""
    return values[np.argsort(splitmix64(key, values.astype(np.uint64)))]


def order_digest(*, content: str, keys: NDArray[np.uint8], facts: Mapping[str, int]) -> str:
    """blake3 of everything that the order depends on but the epoch: two runs with equal digests see the same batches.

    Args:
        content: content digest of the store ("" without one).
        keys: (N, 16) content keys of the items, in item order.
        facts: rows a chunk, window, batch size, seed and whatever else decides the order.
    """
    described = json.dumps({"content": content, **facts}, sort_keys=True).encode()
    return blake3(b"softlabels order 1\n" + described + blake3(np.ascontiguousarray(keys).data).digest()).hexdigest()


@dataclass(frozen=True)
class Epoch:
    """One pass over N items: window w is the positions `bounds[w]:bounds[w + 1]` of the sequence of items."""

    batch_size: int
    bounds: Ints  # (windows + 1,), from 0 to N
    window: Callable[[int], Ints]  # the items of one window, in the order in which they are visited

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return len(self.bounds) - 1

    def window_at(self, position: int) -> int:
        """The window that holds `position` of the sequence."""
        return int(np.searchsorted(self.bounds, position, side="right")) - 1


class Order:
    """How N items are visited, epoch after epoch.

    Args:
        chunk_of_item: (N,) chunk that holds each item's label.
        digest: what `order_digest` gave.
        window: chunks in a window, at most.
        batch_size: items in a batch; the last batch of an epoch may be shorter, and no item is dropped or repeated.
    """

    def __init__(self, chunk_of_item: Ints, *, digest: str, window: int, batch_size: int) -> None:
        self._digest, self._window, self._batch_size = digest, window, batch_size
        self._by_chunk = np.argsort(chunk_of_item, kind="stable")  # (N,) items, chunk after chunk
        _, first, counts = np.unique(chunk_of_item[self._by_chunk], return_index=True, return_counts=True)
        self._first, self._counts = first, counts  # (K,)

    def epoch(self, epoch: int) -> Epoch:
        """The shuffled order of one epoch."""
        material = blake3(f"{self._digest} epoch {epoch}".encode()).digest(16)
        chunk_key, item_key = (int.from_bytes(material[:8], "little"), int.from_bytes(material[8:], "little"))
        chunks = permute(np.arange(len(self._first)), chunk_key)
        windows = -(-len(chunks) // self._window)
        # Windows of nearly equal size: a last window of a single chunk would hardly be shuffled.
        cuts = np.arange(windows + 1) * len(chunks) // windows
        ends = np.cumsum(self._counts[chunks])[cuts[1:] - 1]

        def window(number: int) -> Ints:
            places = ((self._first[k], self._counts[k]) for k in chunks[cuts[number] : cuts[number + 1]])
            return permute(np.concatenate([self._by_chunk[first : first + count] for first, count in places]), item_key)

        return Epoch(self._batch_size, np.concatenate([[0], ends]), window)


def as_they_stand(items: int, *, window_items: int, batch_size: int) -> Epoch:
    """The items in their own order, 0..N-1, in windows of `window_items` items: for evaluation."""
    bounds = np.minimum(np.arange(-(-items // window_items) + 1) * window_items, items)
    return Epoch(batch_size, bounds, lambda number: np.arange(bounds[number], bounds[number + 1]))
