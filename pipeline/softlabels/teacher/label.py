"""The shard loop: rows through a teacher into a store, a thread encoding and writing one batch while the next is computed.

A shard is the unit of work. Its batches are cut from its first row on and never cross into the next, so its bytes depend
on the plan alone and a resumed run gives the digest of an unbroken one. No more than a few batches and a chunk are in memory.
R rows of a shard, P positions of a row, M members, C classes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.labels.lost import Lost
from softlabels.labels.tail_basis import TailBasis
from softlabels.store.arrays import row_arrays
from softlabels.store.basis import read_basis
from softlabels.store.records import Manifest
from softlabels.store.spec import Spec
from softlabels.store.writer import StoreWriter
from softlabels.system.patience import background, result_of, slices, stalled
from softlabels.teacher.encode import Encoded, Encoder, encode
from softlabels.teacher.teacher import Batch, Teacher

_WAITS = "the disk has not taken a shard"
_MOST = 2  # batches that wait for the thread that writes
_GLANCE = 0.1  # seconds after which that thread looks whether more will come
Rows = TypeVar("Rows")
_Item = tuple[Batch, Encoded | None]  # encoded already, or by the thread that writes
_Waiting = queue.Queue[_Item | None]  # batches of a shard, and None where it is whole


def label_rows(
    rows: Rows,
    teacher: Teacher[Rows],
    writer: StoreWriter,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda rows: None,
) -> Manifest:
    """Compute every pending shard of the writer's store and seal it. Arguments and errors as of `label_each`."""
    label_each(rows, teacher, writer, writer.pending, should_stop=should_stop, progress=progress)
    return writer.seal()


def label_each(
    rows: Rows,
    teacher: Teacher[Rows],
    writer: StoreWriter,
    shards: Iterable[int],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Compute these shards, which are pending, and commit them.

    Args:
        shards: each is asked for when the teacher is done with the one before it.
        should_stop: asked before every batch; when true the shard being computed is given up, those before it are finished.
        progress: called with the number of rows after every batch.

    Raises:
        Interrupted: `should_stop` said so. LogitsError: NaN and the like, naming row and member. DiskFull, StorageError: of
            the disk. Stalled: the thread that writes hangs.
        In each case committed shards are kept, and calling again goes on after them.
    """
    encoders, embeds = encoders_of(writer, teacher), writer.spec.inputs == "embed"
    waiting, stops = _Waiting(_MOST), False
    last: Future[None] | None = None
    with background("softlabels-write") as pool:
        for shard in shards:
            over, whole = threading.Event(), False
            try:
                last = pool.submit(_write, writer, shard, encoders, waiting, over, last)
                for start, stop in teacher.cut(rows, writer.spec, shard):
                    if stops := should_stop():
                        break
                    batch = teacher.batch(rows, start, stop, embed=embeds)
                    # Of positions here, as their logits are many.
                    _put(waiting, (batch, None if batch.mask is None else encode(encoders, batch)), last)
                    progress(stop - start)
                else:
                    _put(waiting, None, last)
                    whole = True
            except BaseException:
                if last is not None and last.done():
                    last.result()  # what the thread raised came first
                raise
            finally:
                if not whole:
                    over.set()
            if stops:
                break
        if last is not None:
            with suppress(_GivenUp):
                result_of(last, _WAITS)
    if stops:
        raise writer.stopped()


def encoders_of(writer: StoreWriter, teacher: Teacher[Any]) -> dict[str, Encoder]:
    """What encodes a batch, by target."""
    spec, basis = writer.spec, read_basis(writer.folder, writer.spec)
    shared = None if basis is None else TailBasis(torch.from_numpy(np.array(basis, np.float16)).to(teacher.device))
    return {
        target.name: Encoder(target.encoding, teacher.weights, shared if target == spec.with_basis else None)
        for target in spec.targets
    }


def _put(waiting: _Waiting, item: _Item | None, writing: Future[None]) -> None:
    """Wait until there is room; whoever writes no more takes nothing. Raises `Stalled`."""
    for seconds in slices():
        if writing.done():
            return writing.result()
        with suppress(queue.Full):
            return waiting.put(item, timeout=seconds)
    raise stalled(_WAITS)


def _taken(waiting: _Waiting, over: threading.Event) -> Iterator[_Item]:
    """The batches of a shard, until it is whole. Raises `_GivenUp` where it will never be and is `over`, which no word in
    the queue tells: it may be full, or whoever would say it be interrupted, and a thread that waits for ever ends no process.
    """
    while not over.is_set():
        with suppress(queue.Empty):
            item = waiting.get(timeout=_GLANCE)
            if item is None:
                return
            yield item
    raise _GivenUp


class _GivenUp(Exception):
    """Nothing of the shard is to be written."""


def _write(
    writer: StoreWriter,
    shard: int,
    encoders: Mapping[str, Encoder],
    waiting: _Waiting,
    over: threading.Event,
    before: Future[None] | None,
) -> None:
    if before is not None:
        before.result()  # where one failed, none is written after it
    spec, lost, looks = writer.spec, list[Mapping[str, Lost]](), _Looks(writer.spec, shard)
    unknown: set[str] = set()
    with writer.shard(shard) as out:
        for batch, encoded in _taken(waiting, over):
            found = encode(encoders, batch) if encoded is None else encoded
            arrays = row_arrays(spec, batch.columns, found.columns) if len(batch) else {}
            lost.append(found.lost)
            if batch.kept is not None:
                arrays = batch.kept.among(arrays)
                lost.append(batch.kept.lost)
                unknown.update(batch.kept.unknown)
            out.add(arrays, len(arrays["content_key"]))
            looks.add(found.looks, batch)
        looks.require_logits()
        total = {each.name: Lost.total(part[each.name] for part in lost if each.name in part) for each in spec.targets}
        out.commit(total | dict.fromkeys(unknown, Lost()))


class _Looks:
    """What shows of the outputs of a shard's rows, by target: see `softlabels.checks.probabilities`."""

    def __init__(self, spec: Spec, shard: int) -> None:
        self._spec, self._first = spec, spec.shard_rows(shard).start
        self._found: dict[str, list[NDArray[np.uint8]]] = {}
        self._rows, self._numbers = 0, list[NDArray[np.int64]]()

    def add(self, found: Mapping[str, NDArray[np.uint8]], batch: Batch) -> None:
        """What shows of the distributions (N, M) of the next batch."""
        every = len(batch) if batch.kept is None else len(batch.kept.at)
        places = np.arange(every) if batch.kept is None else np.flatnonzero(~batch.kept.at)
        self._numbers.append(self._first + self._rows + places)
        self._rows += every
        for each in self._spec.targets:
            if each.name in found:
                looks = found[each.name]
                if batch.mask is not None:
                    mask = batch.columns["position_mask"]
                    looks = rows_of_positions(looks.reshape(*mask.shape, -1), mask, each.encoding.target)
                self._found.setdefault(each.name, []).append(looks)

    def require_logits(self) -> None:
        """Raise `LogitsError` where what shows is that of probabilities."""
        for each in self._spec.targets:
            if each.name in self._found:
                who = f"target {each.name}" if each.name else ""
                require_logits(
                    np.concatenate(self._found[each.name]),
                    target=each.encoding.target,
                    total=self._spec.rows,
                    numbers=np.concatenate(self._numbers),
                    who=who,
                )
