"""Batches for a student: inputs, hard labels and soft labels, in an order that keys, seed and epoch decide.

`order.py` says which example stands where, `examples.py` reads them; the loader reads a window of blocks in a
background thread while the batches of the window before are in use. Its place is two integers, epoch and batch:
`epoch(e, start=k)` goes on where another run stopped. For other training loops there are `batches.py` and `dataset.py`.

Shape letters: B batch, P positions of a row of tokens, R rows of the transfer set, M members, C classes; N = B * P positions of
a batch, row after row (B where rows have no positions).
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.gather import Block
from softlabels.store.key_index import Missing
from softlabels.stream.batch import Batch, TargetBatch
from softlabels.stream.chunk_cache import cached
from softlabels.stream.collate import tensors_of
from softlabels.stream.examples import Examples, join_examples
from softlabels.stream.exchange import Exchange, Share
from softlabels.stream.join import Ints
from softlabels.stream.order import (
    MOST_ROWS,
    Epoch,
    Order,
    as_they_stand,
    default_block,
    default_span,
    order_digest,
    order_digest_by_chunks,
    times_wanted,
)
from softlabels.stream.parts import Part
from softlabels.stream.prefetch import prefetch
from softlabels.stream.stored_rows import EmbeddedRows, StoredRows
from softlabels.stream.stretch import Stretch
from softlabels.stream.travel import packed, unpacked
from softlabels.system.buffers import Buffers

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows

# Inputs copied from a mapped file at a time: a window of images would take gigabytes, and a copy of many megabytes drives the
# student's weights out of the processor's cache.
INPUT_BYTES = 1 << 22
READ_BYTES, READ_ROWS = (
    1 << 24,
    1 << 14,
)  # small windows are read several at a time, as far as they are no more than this
ANOTHER_ORDER = 1.5  # times as many chunks as of rows in order are wanted: then they stand in another one
KEPT_BYTES = 2 * READ_BYTES  # of the memory of windows that nobody holds any more, for the next ones
READERS = 2  # threads that read and check chunks; on two cores a third brought nothing


class Loader:
    """Batches of the rows of `rows`, with soft labels from `store` (None: hard labels only).

    Args:
        batch_size: rows in a batch; the last batch of an epoch may be shorter, no row is dropped or repeated.
        seed: with the epoch's number it decides the order; time, workers and restarts do not change it.
        selection: distinct row numbers to use; all by default.
        shuffle: False gives the rows in the order of `selection` in every epoch. If the store has them in another order, memory
            stays bounded but chunks are read more than once.
        block: consecutive rows of `rows` that stay together in the shuffle, up to its windows; `default_block` by default. Only
            keys, seed, epoch and this decide the order; the store's content, row order and chunks do not.
        window: blocks whose rows are mixed with each other. Memory holds up to three windows of the stores' data (or three
            times `READ_BYTES` if that is more); if chunks do not fit into blocks, as many chunks as two windows have blocks;
            and of memory-mapped inputs three times `INPUT_BYTES`, or three batches. With a `part`, each process holds its part
            of that, and up to three times its part of what it reads at once. `KEPT_BYTES` of these are kept for the next epoch.
        missing: "error", or "skip" to leave out rows that the store does not label (`left_out` counts them).
        weights: (M,) member weights; by default those of the store.
        members: numbers of the members to use, with these `weights`; by default all.
        labelled: (R,) bool, the rows whose hard label may be used; the others become unlabelled.
        targets: names of the store's targets that batches carry; by default all.
        part: this process's rows of every batch, if several processes share them; all by default. Batches, their order and
            `order_digest` are those of one process; `Batch.first` and `Batch.size` give the place of a part. Each process reads
            its part of the chunks, and they exchange rows in the background. So all must have the same data and arguments, and
            begin and leave an epoch at the same batch.

    Attributes:
        steps_per_epoch: batches in an epoch.
        rows: (N,) int64, the used rows of the transfer set, in the order of `selection`.
        left_out: how many selected rows have no soft labels.
        order_digest: equal for two loaders that give the same rows in the same order at every epoch.
        order: what decides the order, for the files of a run: {"by": "keys", "block": rows}, or {"by": "chunks"}.

    Raises:
        UnlabelledRows, LabelError, ClassMismatch, AlignmentError, ConfigError: as for `examples.join_examples`.

    Example:
        >>> loader = Loader(EmbeddedRows(store), store, batch_size=50, seed=0)
        >>> [len(batch) for batch in loader.epoch(0)]
        [50, 50, 50, 10]
    """

    def __init__(
        self,
        rows: TransferRows | EmbeddedRows | StoredRows,
        store: Store | None,
        *,
        batch_size: int,
        seed: int,
        selection: Ints | None = None,
        shuffle: bool = True,
        block: int | None = None,
        window: int = 16,
        missing: Missing = "error",
        weights: Sequence[float] | None = None,
        members: Sequence[int] | None = None,
        labelled: NDArray[np.bool_] | None = None,
        targets: Collection[str] | None = None,
        part: Part | None = None,
    ) -> None:
        require_positive(batch_size=batch_size, window=window, block=block)
        self._joined = self._examples = examples = join_examples(
            rows, store, selection=selection, missing=missing, weights=weights, members=members, labelled=labelled,
            targets=targets,
        )  # fmt: skip
        self._store = store or (rows.store if isinstance(rows, EmbeddedRows) else None)
        self._content = "" if store is None else store.content_digest
        self._facts = {"window": window, "batch_size": batch_size, "seed": seed, "shuffle": shuffle}
        self._keys = rows.keys[examples.items]
        self.rows = examples.items
        self.left_out = (len(rows.keys) if selection is None else len(selection)) - len(examples)
        self.batch_size, self.part, self._memory = batch_size, part or Part(), Buffers(KEPT_BYTES)
        self.steps_per_epoch = -(-len(examples) // batch_size)
        block = block or default_block(row_bytes(examples, rows, self._store))
        self._blocks, self._span = examples.items // block, default_span(block, len(examples), window)
        self.order: dict[str, Any] = {"by": "keys", "block": block}
        self.order_digest = order_digest(keys=self._keys, blocks=self._blocks, facts=self._facts | {"block": block})
        if shuffle and block % self.rows_per_chunk:  # the next window wants the rest of this one's chunks
            chunks = -(-2 * window // self.part.world) + (self.part.world > 1)  # turns are uneven by one
            self._examples = cached(examples, chunks * self.rows_per_chunk * examples.stored_bytes)

    def __getstate__(self) -> dict[str, Any]:
        examples = {name: packed(self.__dict__[name]) for name in ("_examples", "_joined")}
        return {name: value for name, value in self.__dict__.items() if name != "_order"} | examples

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {name: unpacked(state[name]) for name in ("_examples", "_joined")}

    @property
    def examples(self) -> Examples:
        """The examples that it reads, in the order of `rows`."""
        return self._joined

    @property
    def rows_per_chunk(self) -> int:
        """Rows per chunk of the store; without a store, the default."""
        return MOST_ROWS if self._store is None else self._store.rows_per_chunk

    def by_chunks(self) -> Loader:
        """The same rows in the order of earlier versions, which depended on the store's content and chunks: for runs begun with
        it.
        """
        other = object.__new__(Loader)
        other.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "_order"}
        other._examples, other._span = self._joined, 1
        other._blocks = self._joined.labelled_by // self.rows_per_chunk
        other.order = {"by": "chunks"}
        facts = self._facts | {"rows_per_chunk": self.rows_per_chunk}
        other.order_digest = order_digest_by_chunks(content=self._content, keys=self._keys, facts=facts)
        return other

    @cached_property
    def _order(self) -> Order:
        facts: dict[str, Any] = {name: self._facts[name] for name in ("window", "batch_size")}
        return Order(self._blocks, digest=self.order_digest, span=self._span, **facts)

    def _epoch(self, epoch: int) -> Epoch:
        if self._facts["shuffle"]:
            return self._order.epoch(epoch)
        rows = self._facts["window"] * self.rows_per_chunk
        return as_they_stand(len(self._examples), window_items=rows, batch_size=self.batch_size)

    def times_read(self) -> float:
        """How often an epoch reads a chunk of labels: once if the store has its rows in this order, else estimated from a
        sample of windows.
        """
        labelled_by, epoch = self._examples.labelled_by, self._epoch(0)
        in_order = np.empty_like(labelled_by)
        in_order[np.argsort(self.rows)] = np.sort(labelled_by)
        at_once, size = _windows_at_once(self._examples, epoch), self.rows_per_chunk
        often, least = (times_wanted(epoch, each // size, at_once) for each in (labelled_by, in_order))
        return often if often > ANOTHER_ORDER * least else 1.0

    def repeats(self) -> int:
        """How many rows share the key, and so the labels, of an earlier row; 0 if the store has the other rows in another
        order.
        """
        labelled_by = self._examples.labelled_by[np.argsort(self.rows)]
        _, firsts = np.unique(labelled_by, return_index=True)
        in_order = bool((np.diff(labelled_by[np.sort(firsts)]) > 0).all())
        return (len(labelled_by) - len(firsts)) * in_order

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from `start` to the end of an epoch, the same on every call. Close the iterator, or drop it, to stop early.

        Raises `MissingShard` or `DamagedShard` before it gives a row of that shard, and `AlignmentError` before a row whose
        tokens are not those that the store counts.
        """
        if not 0 <= start <= self.steps_per_epoch:
            raise ConfigError(
                f"an epoch has batches 0 to {self.steps_per_epoch - 1}, there is no batch {start} to start at",
                remedy="check that the run that is resumed had the same data and batch size",
            )
        return self._batches(self._epoch(epoch), start)

    def columns(self, epoch: int, stretch: Stretch, start: int = 0) -> Generator[dict[str, Tensor]]:
        """The batches of a stretch of an epoch, from its own batch `start` on, as tensors by column name. Only this process
        reads the stretch. Raises as `epoch` does.
        """
        if start * stretch.size < stretch.stop - stretch.start:
            own = self._epoch(epoch).stretch(stretch.start, stretch.stop, batch_size=stretch.size)
            with closing(_cut(self._examples, own, start, Part(), self._memory)) as blocks:
                for block, _, _ in blocks:
                    yield tensors_of(self._examples, block)

    def _batches(self, epoch: Epoch, start: int) -> Iterator[Batch]:
        with closing(_cut(self._examples, epoch, start, self.part, self._memory)) as blocks:
            for block, first, size in blocks:
                yield self._batch(block, first, size)

    def _batch(self, block: Block, first: int, size: int) -> Batch:
        tensors = {name: torch.from_numpy(block[name]) for name in block if name != "row"}
        targets = {}
        for name, target in self._examples.targets.items():
            soft = None if target.soft is None else target.soft.soft_labels(tensors)
            targets[name] = TargetBatch(tensors[stored_name(name, LABEL)], soft, target.classes)
        return Batch(tensors["input"], targets, block["row"], tensors.get("mask"), first, size)


def require_positive(**counts: int | None) -> None:
    """Raise `ConfigError` where one that is given is less than 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}", remedy=f"give a larger {name}")


def row_bytes(examples: Examples, rows: TransferRows | EmbeddedRows | StoredRows, store: Store | None) -> int:
    """Bytes of a row's distributions in float16, by positions and classes alone, and of its input."""
    kept = examples.own if examples.inputs is None else None
    inputs = examples.mapped_bytes if kept is None else kept.columns["input"].row_bytes
    if store is not None:  # also of the targets that a student leaves out
        return inputs + 2 * (store.positions or 1) * sum(each.label_space.classes for each in store.spec.targets)
    return inputs + (0 if rows.sequence is None else 2 * rows.sequence.positions * rows.sequence.classes)


def _cut(
    examples: Examples, epoch: Epoch, start: int, part: Part, memory: Buffers
) -> Generator[tuple[Block, int, int]]:
    """What `part` is given of each batch from `start` on, where that begins in the batch, and how many rows this has."""
    source, usual = _blocks(examples, epoch, start, part, memory), part.rows(epoch.batch_size)
    with closing(prefetch(source, together=part.world > 1)) as blocks:
        for block, sizes in blocks:
            at = 0
            for size in sizes:
                rows = usual if size == epoch.batch_size else part.rows(size)
                end = at + rows.stop - rows.start
                yield {name: values[at:end] for name, values in block.items()}, rows.start, size
                at = end


def _windows_at_once(examples: Examples, epoch: Epoch) -> int:
    rows = min(READ_ROWS, READ_BYTES // max(1, examples.stored_bytes))
    return max(1, rows * epoch.windows // int(epoch.bounds[-1]))


def _ask(examples: Examples, epoch: Epoch, number: int, asked: int, at_once: int, exchange: Exchange | None) -> int:
    """Before windows from `number` on are read, `at_once` together, say that they are, and as many behind them; up to `asked`
    that was said before. Returns up to which window it is said now.

    Of near places nothing is said: to make the windows took a third of the time of reading narrow labels.
    Windows 2n and 2n + 1 share what lies side by side, so they are said together and come in half as many requests; but not the
    first one, for which the student waits, and not where processes deal out the chunks of each. These say windows of near
    places too, or those near and far would deal differently.
    """
    if exchange is None and examples.near:
        return asked
    paired = at_once == 1 and exchange is None
    while asked < min(number + 2 * at_once, epoch.windows):
        step = 2 - asked % 2 if paired and asked > number else at_once
        asked = min(asked + step, epoch.windows)
        examples.ahead(epoch.several(number, asked - number), exchange=exchange)
    return asked


def _blocks(
    examples: Examples, epoch: Epoch, start: int, part: Part, memory: Buffers
) -> Iterator[tuple[Block, list[int]]]:
    """What `part` is given of the batches from `start` on, some windows or a piece of one at a time, in `memory`; with each
    block the sizes of its whole batches.
    """
    total, size = int(epoch.bounds[-1]), epoch.batch_size
    position, done, rest = start * size, start, None
    most = -(-size // part.world)  # rows of a batch that a process is given
    step = max(1, INPUT_BYTES // (max(1, examples.mapped_bytes) * most))  # batches at a time, in every process as many
    at_once = _windows_at_once(examples, epoch)
    exchange = Exchange(part) if part.world > 1 else None
    asked = epoch.window_at(position)
    with ThreadPoolExecutor(READERS, thread_name_prefix="softlabels-read") as pool:
        for number in range(epoch.window_at(position), epoch.windows, at_once):
            asked = _ask(examples, epoch, number, asked, at_once, exchange)
            numbers = epoch.several(number, at_once)[max(0, position - int(epoch.bounds[number])) :]
            end = int(epoch.bounds[min(number + at_once, epoch.windows)])
            share = None
            if exchange is not None:
                share = Share(exchange, part.ranks(end - len(numbers), end, size=size, total=total))
            block = examples.take(numbers, lead=rest, pool=pool, share=share, memory=memory)
            ready = end // size if end < total else -(-total // size)
            at = 0
            for first in range(done, ready, step):
                sizes = [size] * (min(step, ready - first) - 1)
                sizes.append(min(size, total - (first + len(sizes)) * size))
                last = at + part.count(size) * (len(sizes) - 1) + part.count(sizes[-1])
                yield examples.with_inputs({name: values[at:last] for name, values in block.items()}), sizes
                at = last
            done, rest = ready, {name: values[at:] for name, values in block.items()}
