"""The shard loop: prepared rows through the teacher into a store, writing one shard while the next is computed.

A shard is the unit of work. Its batches are cut from its first row on and never cross into the next, so its bytes depend
on the plan alone and a resumed run gives the digest of an unbroken one. R rows of a shard, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import Interrupted
from pipeline.store.spec import Manifest, Spec
from pipeline.store.writer import StoreWriter
from pipeline.teacher.ensemble import Ensemble
from pipeline.transfer.rows import TransferRows


def label_rows(
    rows: TransferRows,
    ensemble: Ensemble,
    writer: StoreWriter,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], object] = lambda rows: None,
) -> Manifest:
    """Compute every pending shard of the writer's store and seal it.

    Args:
        should_stop: asked after every batch; when true the shard being written is finished, the one being computed is
            given up.
        progress: called with the number of rows after every batch.

    Raises:
        Interrupted: `should_stop` said so. LogitsError: NaN and the like, naming row and member. DiskFull, StorageError.
        In each case committed shards are kept, and calling again goes on after them.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as pool:
        writing: Future[None] | None = None
        for shard in writer.pending:
            logits = _shard_logits(rows, ensemble, writer.spec, shard, should_stop, progress)
            if writing is not None:
                writing.result()
            if logits is None:
                raise Interrupted(
                    f"stopped with {len(writer.pending)} of {writer.spec.shards} shards left in {writer.path}",
                    remedy="run the same command again to go on",
                )
            writing = pool.submit(_write, rows, writer, shard, logits)
        if writing is not None:
            writing.result()
    return writer.seal()


def _shard_logits(
    rows: TransferRows,
    ensemble: Ensemble,
    spec: Spec,
    shard: int,
    should_stop: Callable[[], bool],
    progress: Callable[[int], object],
) -> NDArray[np.float32] | None:
    """The logits (R, M, C) of a shard; None when told to stop."""
    parts = []
    for start, stop in shard_batches(spec, shard):
        if should_stop():
            return None
        parts.append(ensemble.logits(rows.inputs[start:stop]))
        progress(stop - start)
    logits: NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


def shard_batches(spec: Spec, shard: int) -> list[tuple[int, int]]:
    """First row and one past the last of each teacher batch of a shard."""
    span, size = spec.shard_rows(shard), spec.cut.teacher_batch
    return [(start, min(start + size, span.stop)) for start in range(span.start, span.stop, size)]


def _write(rows: TransferRows, writer: StoreWriter, shard: int, logits: NDArray[np.float32]) -> None:
    start, stop = writer.rows_of(shard)
    embeds = writer.spec.encoding.inputs == "embed"
    writer.write_logits(
        shard,
        keys=rows.keys[start:stop],
        labels=rows.labels[start:stop],
        logits=logits,
        inputs=np.array(rows.inputs[start:stop]) if embeds else None,
    )
