"""The order of an epoch: which item stands where, as a pure function of a few numbers. No files, no labels, no torch.

An item is a row of the student's data (numbered 0..N-1 after selection). Consecutive rows of the transfer set are a block, and
consecutive blocks a span. An epoch permutes the spans and takes `window` of them at a time, a shelf. It goes through a shelf in
windows of `window` blocks, one of each span, and permutes the items inside each window; batches are consecutive slices of that
sequence. So no more than a window is wanted in memory, and batch g is found without generating the batches before it.

Which block of a span comes next is its number with some bits flipped. So blocks that share an aligned part of the span, of any
power of two, come one behind the other, and with them what a store keeps in one chunk: a chunk that is larger than a block is
read once, and kept while `window` others are. The order itself knows no chunks.

Permutations sort the outputs of SplitMix64 over item numbers (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
number generators"). The function is a bijection, so there are no ties, and the order depends on no library's random
stream.

Neighbours: `join.py` says which items there are, `loader.py` reads them in this order.
Shape letters: N items, K blocks that hold items, S spans that do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MOST_ROWS, FEWEST_ROWS = 512, 16  # of a block that nobody chose
BLOCK_BYTES = 1 << 20  # as much as stores put into a chunk
SPAN_ROWS = 1024  # the most rows that stores put into a chunk where nobody says how many
SAMPLE = 8  # windows of an epoch that are looked at to say what it reads

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


def default_block(row_bytes: int) -> int:
    """Rows of a block where nobody says it: 512, or fewer, a power of two from 16, where they exceed `BLOCK_BYTES`.

    Args:
        row_bytes: of a row's distributions in float16 and its input, whatever a store keeps of them, so that all stores of a
            transfer set have the same blocks, and of rows of tokens none too. (Without a store nobody knows the classes of
            other rows, which count where there are thousands.)
    """
    rows = MOST_ROWS
    while rows > FEWEST_ROWS and rows * row_bytes > BLOCK_BYTES:
        rows //= 2
    return rows


def default_span(block: int, items: int, window: int) -> int:
    """Blocks of a span, a power of two: as many as fit into `SPAN_ROWS`, or fewer, so that few items have several shelves."""
    blocks = max(1, min(SPAN_ROWS, items // (4 * window)) // block)
    return 1 << (blocks.bit_length() - 1)


def order_digest(*, keys: NDArray[np.uint8], blocks: Ints, facts: Mapping[str, int]) -> str:
    """blake3 of everything that the order depends on but the epoch: two runs with equal digests see the same batches.

    Args:
        keys: (N, 16) content keys of the items, in item order.
        blocks: (N,) block of each item.
        facts: rows a block, window, batch size, seed and whatever else decides the order.
    """
    described = json.dumps(dict(facts), sort_keys=True).encode()
    hashed = [blake3(np.ascontiguousarray(values).view(np.uint8).data).digest() for values in (keys, blocks)]
    return blake3(b"softlabels order 2\n" + described + b"".join(hashed)).hexdigest()


def order_digest_by_chunks(*, content: str, keys: NDArray[np.uint8], facts: Mapping[str, int]) -> str:
    """What `order_digest` was where the order went by the chunks of the store, `content` being its content digest ("" of none);
    `facts` had the rows a chunk.
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

    def several(self, first: int, count: int) -> Ints:
        """The items of up to `count` windows from `first` on."""
        return np.concatenate([self.window(number) for number in range(first, min(first + count, self.windows))])

    def stretch(self, start: int, stop: int, *, batch_size: int) -> Epoch:
        """The positions `start:stop` of the sequence, at least one, as an epoch of their own, in batches of another size."""
        first, end = self.window_at(start), self.window_at(stop - 1) + 1
        whole, bounds = self.window, self.bounds

        def window(number: int) -> Ints:
            before = int(bounds[first + number])
            return whole(first + number)[max(0, start - before) : stop - before]

        return Epoch(batch_size, np.clip(bounds[first : end + 1], start, stop) - start, window)


class Order:
    """How N items are visited, epoch after epoch.

    Args:
        block_of_item: (N,) block that holds each item.
        digest: what `order_digest` gave.
        window: blocks in a window, and spans in a shelf, at most.
        batch_size: items in a batch; the last batch of an epoch may be shorter, and no item is dropped or repeated.
        span: blocks in a span; with one, blocks are permuted as they are.
    """

    def __init__(self, block_of_item: Ints, *, digest: str, window: int, batch_size: int, span: int = 1) -> None:
        self._digest, self._window, self._batch_size = digest, window, batch_size
        self._by_block = np.argsort(block_of_item, kind="stable")  # (N,) items, block after block
        blocks, first, counts = np.unique(block_of_item[self._by_block], return_index=True, return_counts=True)
        self._first, self._counts, self._in_span = first, counts, blocks % span  # (K,)
        self._spans, self._span = np.unique(blocks // span, return_inverse=True)  # (S,), (K,) of which span a block is
        self._bits = np.uint64((1 << (span - 1).bit_length()) - 1)  # that tell the blocks of a span apart

    def epoch(self, epoch: int) -> Epoch:
        """The shuffled order of one epoch."""
        material = blake3(f"{self._digest} epoch {epoch}".encode()).digest(24)
        span_key, item_key, flip_key = (int.from_bytes(material[at : at + 8], "little") for at in (0, 8, 16))
        blocks = self._sequence(span_key, flip_key)
        cuts = _even_cuts(len(blocks), self._window)
        ends = np.cumsum(self._counts[blocks])[cuts[1:] - 1]

        def window(number: int) -> Ints:
            places = ((self._first[k], self._counts[k]) for k in blocks[cuts[number] : cuts[number + 1]])
            return permute(np.concatenate([self._by_block[first : first + count] for first, count in places]), item_key)

        return Epoch(self._batch_size, np.concatenate([[0], ends]), window)

    def _sequence(self, span_key: int, flip_key: int) -> Ints:
        """(K,) the blocks, by their place among those that hold items, as an epoch goes through them."""
        spans = len(self._spans)
        place = np.argsort(permute(np.arange(spans), span_key))  # (S,) in which the epoch takes them
        shelf = np.searchsorted(_even_cuts(spans, self._window), place, side="right")  # (S,)
        flip = (splitmix64(flip_key, self._spans.astype(np.uint64)) & self._bits).astype(np.int64)  # (S,)
        return np.lexsort((place[self._span], self._in_span ^ flip[self._span], shelf[self._span]))


def _even_cuts(count: int, most: int) -> Ints:
    """Where to cut `count` things into parts of at most `most`, from 0 to `count`.

    Parts are of nearly equal size: a last one of a single chunk would hardly be shuffled.
    """
    parts = -(-count // most)
    return np.arange(parts + 1) * count // parts


def times_wanted(epoch: Epoch, chunk_of_item: Ints, at_once: int = 1) -> float:
    """How often a chunk of the store is wanted in an epoch, by a sample of its windows.

    Args:
        chunk_of_item: (N,) chunk that holds what is read of each item.
        at_once: windows for which a chunk is wanted once.
    """
    firsts = np.arange(0, epoch.windows, at_once)
    sample = np.unique(np.linspace(0, len(firsts) - 1, min(len(firsts), SAMPLE), dtype=np.int64))
    wanted = sum(len(np.unique(chunk_of_item[epoch.several(first, at_once)])) for first in firsts[sample].tolist())
    return wanted * len(firsts) / len(sample) / len(np.unique(chunk_of_item))


def as_they_stand(items: int, *, window_items: int, batch_size: int) -> Epoch:
    """The items in their own order, 0..N-1, in windows of `window_items` items: for evaluation."""
    bounds = np.minimum(np.arange(-(-items // window_items) + 1) * window_items, items)
    return Epoch(batch_size, bounds, lambda number: np.arange(bounds[number], bounds[number + 1]))
