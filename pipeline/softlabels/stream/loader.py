"""Batches for a student: inputs, hard labels and soft labels, in an order that seed and epoch decide.

`order.py` says which example stands where, `examples.py` reads them; the loader reads a window of chunks in a
background thread while the batches of the window before are in use. Its place is two integers, epoch and batch:
`epoch(e, start=k)` goes on where another run stopped. For other training loops there is `dataset.py`.

Shape letters: B batch, P positions of a row of tokens, R rows of the transfer set, M members, C classes; N = B * P positions of
a batch, row after row (B where rows have no positions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.labels.soft import SoftLabels
from softlabels.store.gather import Block
from softlabels.stream.examples import EmbeddedRows, Examples, StoredRows, join_examples
from softlabels.stream.join import Ints, Missing
from softlabels.stream.order import Epoch, Order, as_they_stand, order_digest
from softlabels.stream.prefetch import prefetch

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows

CHUNK_WITHOUT_STORE = 512  # rows that stay together in the shuffle where no store says how labels are cut
# Inputs copied from a mapped file at a time: a window of images would take gigabytes, and a copy of many megabytes drives the
# student's weights out of the processor's cache.
INPUT_BYTES = 1 << 22
READERS = 2  # threads that read and check chunks; on two cores a third brought nothing


@dataclass(frozen=True)
class Batch:
    """B examples.

    Attributes:
        inputs: (B, ...) of the prepared inputs' dtype.
        labels: int64 hard labels, -1 = none: (B,), of token rows (B, P), each position's next token.
        soft: the teacher's outputs of N positions, or None without a store.
        rows: (B,) int64, the row of each example in the transfer rows.
        mask: (B, P) bool, the positions that count; None where rows have none.
        classes: C where it is known: of token rows always, so that outputs that pad a vocabulary can be told.
    """

    inputs: Tensor
    labels: Tensor
    soft: SoftLabels | None
    rows: Ints
    mask: Tensor | None = None
    classes: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Batch:
        """Some of the rows, one behind the other."""
        start, stop, _ = part.indices(len(self))
        each = 1 if self.mask is None else self.mask.shape[1]
        return Batch(
            self.inputs[start:stop],
            self.labels[start:stop],
            None if self.soft is None else self.soft[start * each : stop * each],
            self.rows[start:stop],
            None if self.mask is None else self.mask[start:stop],
            self.classes,
        )

    @property
    def positions(self) -> int:
        """How many positions count; without a mask, rows."""
        return len(self) if self.mask is None else int(self.mask.sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        soft = None if self.soft is None else self.soft.to(device)
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.inputs.to(device), self.labels.to(device), soft, self.rows, mask, self.classes)


class Loader:
    """Batches of the rows of `rows`, with soft labels out of `store` (None: hard labels only).

    Args:
        batch_size: rows in a batch; the last batch of an epoch may be shorter, no row is dropped or repeated.
        seed: with the epoch's number decides the order, and nothing else does: not time, workers or restarts.
        selection: distinct row numbers to use; all by default.
        shuffle: False gives the rows in the order of `selection`, each epoch alike. Where the store keeps them in
            another order, memory stays bounded all the same but chunks are read more than once.
        window: chunks whose rows are mixed with each other. Up to three windows of what stores hold are in memory, and of
            inputs that are mapped from a file up to three times `INPUT_BYTES`, or three batches where those are larger.
        missing: "error", or "skip" to leave out rows that the store does not label (`left_out` counts them).
        weights: (M,) member weights; by default those of the store.
        members: numbers of the members to take, whose `weights` those are; by default all.
        labelled: (R,) bool, the rows whose hard label may be used; that of the others becomes -1.

    Attributes:
        steps_per_epoch: batches in an epoch.
        rows: (N,) int64, the rows of the transfer set that are used, in the order of `selection`.
        left_out: how many selected rows have no soft labels.
        order_digest: equal for two loaders that give the same rows in the same order at every epoch.

    Raises:
        UnlabelledRows, LabelError, ClassMismatch, AlignmentError, ConfigError: as `examples.join_examples` says.
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
        window: int = 16,
        missing: Missing = "error",
        weights: Sequence[float] | None = None,
        members: Sequence[int] | None = None,
        labelled: NDArray[np.bool_] | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("window", window)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", remedy=f"give a larger {name}")
        self._examples = examples = join_examples(
            rows, store, selection=selection, missing=missing, weights=weights, members=members, labelled=labelled
        )
        chunked = store or (rows.store if isinstance(rows, EmbeddedRows) else None)
        rows_per_chunk = CHUNK_WITHOUT_STORE if chunked is None else chunked.rows_per_chunk
        self.rows = examples.items
        self.left_out = (len(rows.keys) if selection is None else len(selection)) - len(examples)
        self.batch_size = batch_size
        self.steps_per_epoch = -(-len(examples) // batch_size)
        facts = {"rows_per_chunk": rows_per_chunk, "window": window, "batch_size": batch_size, "seed": seed}
        self.order_digest = order_digest(
            content="" if store is None else store.content_digest,
            keys=rows.keys[self.rows],
            facts=facts | {"shuffle": shuffle},
        )
        self._order: Order | None = None
        self._in_order = as_they_stand(len(examples), window_items=window * rows_per_chunk, batch_size=batch_size)
        if shuffle:
            chunks = examples.labelled_by // rows_per_chunk
            self._order = Order(chunks, digest=self.order_digest, window=window, batch_size=batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from `start` to the end of an epoch: the same on every call. Close it, or drop it, to stop early.

        Raises `MissingShard` or `DamagedShard` before a row of that shard is handed out, and `AlignmentError` before a row
        whose tokens are not those that the store counts.
        """
        if not 0 <= start <= self.steps_per_epoch:
            raise ConfigError(
                f"an epoch has batches 0 to {self.steps_per_epoch - 1}, there is no batch {start} to start at",
                remedy="check that the run that is resumed had the same data and batch size",
            )
        return self._batches(self._in_order if self._order is None else self._order.epoch(epoch), start)

    def _batches(self, epoch: Epoch, start: int) -> Iterator[Batch]:
        with closing(prefetch(_blocks(self._examples, epoch, start))) as blocks:
            for block in blocks:
                for first in range(0, len(block["row"]), self.batch_size):
                    yield self._batch({name: values[first : first + self.batch_size] for name, values in block.items()})

    def _batch(self, block: Block) -> Batch:
        examples, tensors = self._examples, {name: torch.from_numpy(block[name]) for name in block if name != "row"}
        soft = None if examples.soft is None else examples.soft.soft_labels(tensors)
        classes = None if examples.positions is None else examples.positions.classes
        return Batch(tensors["input"], tensors["label"], soft, block["row"], tensors.get("mask"), classes)


def _blocks(examples: Examples, epoch: Epoch, start: int) -> Iterator[Block]:
    """The examples from batch `start` on, a window or a part of one at a time; all but the last hold whole batches."""
    position, rest = start * epoch.batch_size, None
    part = max(1, INPUT_BYTES // (max(1, examples.mapped_bytes) * epoch.batch_size)) * epoch.batch_size
    with ThreadPoolExecutor(READERS, thread_name_prefix="softlabels-read") as pool:
        for number in range(epoch.window_at(position), epoch.windows):
            numbers = epoch.window(number)[max(0, position - int(epoch.bounds[number])) :]
            block = examples.take(numbers, lead=rest, pool=pool)
            count = len(block["row"])
            whole = count if number == epoch.windows - 1 else count - count % epoch.batch_size
            rest = {name: values[whole:] for name, values in block.items()}
            for first in range(0, whole, part):
                last = min(first + part, whole)
                yield examples.with_inputs({name: values[first:last] for name, values in block.items()})
