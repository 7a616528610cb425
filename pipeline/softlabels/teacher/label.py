"""The shard loop: rows through a teacher into a store, a thread encoding and writing one batch while the next is computed.

A shard is the unit of work. Its batches are cut from its first row on and never cross into the next, so its bytes depend
on the plan alone and a resumed run gives the digest of an unbroken one. No more than a few batches and a chunk are in memory.
R rows of a shard, P positions of a row of tokens, M members, C classes.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np
import torch

from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.labels.fidelity import add_up
from softlabels.store.arrays import row_arrays
from softlabels.store.basis import read_basis
from softlabels.store.spec import Manifest
from softlabels.store.writer import StoreWriter
from softlabels.system.patience import background, result_of, slices, stalled
from softlabels.teacher.encode import Encoded, Encoder
from softlabels.teacher.teacher import Batch, Teacher

_WAITS = "the disk has not taken a shard"
_WAITING = 2  # batches, for the thread that writes
Rows = TypeVar("Rows")
_Item = tuple[Batch, Encoded | None]  # encoded already, or by the thread that writes


def label_rows(
    rows: Rows,
    teacher: Teacher[Rows],
    writer: StoreWriter,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda rows: None,
) -> Manifest:
    """Compute every pending shard of the writer's store and seal it.

    Args:
        should_stop: asked before every batch; when true the shard being computed is given up, those before it are finished.
        progress: called with the number of rows after every batch.

    Raises:
        Interrupted: `should_stop` said so. LogitsError: NaN and the like, naming row and member. DiskFull, StorageError: of
            the disk. Stalled: the thread that writes hangs.
        In each case committed shards are kept, and calling again goes on after them.
    """
    encoder, embeds = encoder_of(writer, teacher), writer.spec.encoding.inputs == "embed"
    with background("softlabels-write") as pool:
        written: list[Future[None]] = []
        for shard in writer.pending:
            with _Feed(written) as feed:
                written.append(pool.submit(_write, writer, shard, encoder, iter(feed)))
                for start, stop in teacher.cut(rows, writer.spec, shard):
                    if should_stop():
                        raise writer.stopped()
                    batch = teacher.batch(rows, start, stop, embed=embeds)
                    # Of tokens here, as their logits are many.
                    feed.put((batch, None if batch.mask is None else encoder.encode(batch)))
                    progress(stop - start)
        for each in written:
            result_of(each, _WAITS)
    return writer.seal()


def encoder_of(writer: StoreWriter, teacher: Teacher[Any]) -> Encoder:
    """What encodes a batch."""
    basis = read_basis(writer.folder, writer.spec)
    shared = None if basis is None else torch.from_numpy(np.array(basis, np.float16)).to(teacher.device)
    return Encoder(writer.spec.encoding, teacher.weights, shared)


class _Feed:
    """A shard's batches, on their way to the thread that writes them; leaving the block by an error gives the shard up."""

    def __init__(self, written: list[Future[None]]) -> None:
        self._written, self._given_up = written, False
        self._queue: queue.Queue[_Item | None] = queue.Queue(_WAITING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.put(None)
            return
        self._given_up = True
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(None)

    def __iter__(self) -> Iterator[_Item]:
        while (item := self._queue.get()) is not None:
            yield item
        if self._given_up:
            raise _GivenUp

    def put(self, item: _Item | None) -> None:
        """Wait until there is room; what the thread raised is raised here. Raises `Stalled`."""
        for seconds in slices():
            for each in self._written:
                if each.done():
                    each.result()
            with suppress(queue.Full):
                return self._queue.put(item, timeout=seconds)
        raise stalled(_WAITS)


class _GivenUp(Exception):
    """Nothing of the shard is to be written."""


def _write(writer: StoreWriter, shard: int, encoder: Encoder, batches: Iterator[_Item]) -> None:
    spec, parts, suspects = writer.spec, [], []
    with writer.shard(shard) as out:
        for batch, encoded in batches:
            found = encoder.encode(batch) if encoded is None else encoded
            rows, looks = len(batch.columns["label"]), found.suspects
            if batch.mask is not None:
                looks = rows_of_positions(looks.reshape(rows, -1, looks.shape[1]), batch.columns["position_mask"])
            out.add(row_arrays(spec, batch.columns, found.columns), rows)
            parts.append(found.fidelity)
            suspects.append(looks)
        require_logits(np.concatenate(suspects), total=spec.rows, first_row=spec.shard_rows(shard).start)
        out.commit(add_up(parts))
