"""The shard loop: prepared rows through the teacher into a store, writing one shard while the next is computed.

A shard is the unit of work. Its batches are cut from its first row on and never cross into the next, so its bytes depend
on the plan alone and a resumed run gives the digest of an unbroken one. They are encoded batch by batch, on the device: of
classifiers by the thread that writes. R rows of a shard, P positions of a row of tokens, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.store.basis import read_basis
from softlabels.store.spec import Manifest, Spec
from softlabels.store.writer import StoreWriter
from softlabels.system.patience import background, result_of
from softlabels.teacher.encode import Encoded, Encoder, joined
from softlabels.teacher.ensemble import Ensemble
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows

Part = Callable[[], Encoded]
_WAITS = "the disk has not taken a shard"


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
        Interrupted: `should_stop` said so. LogitsError: NaN and the like, naming row and member. DiskFull, StorageError: of
            the disk. Stalled: the thread that writes hangs.
        In each case committed shards are kept, and calling again goes on after them.
    """
    work = _Work(rows, ensemble, encoder_of(writer, ensemble), should_stop, progress)
    with background("softlabels-write") as pool:
        writing: Future[None] | None = None
        for shard in writer.pending:
            found = work.shard(writer.spec, shard)
            if writing is not None:
                result_of(writing, _WAITS)
            if found is None:
                raise writer.stopped()
            writing = pool.submit(_write, rows, writer, shard, found)
        if writing is not None:
            result_of(writing, _WAITS)
    return writer.seal()


def encoder_of(writer: StoreWriter, ensemble: Ensemble) -> Encoder:
    """What encodes a batch."""
    basis = read_basis(writer.folder, writer.spec)
    shared = None if basis is None else torch.from_numpy(np.array(basis, np.float16)).to(ensemble.device)
    return Encoder(writer.spec.encoding, ensemble.weights, shared)


def shard_batches(spec: Spec, shard: int) -> list[tuple[int, int]]:
    """First row and one past the last of each teacher batch of a shard."""
    span, size = spec.shard_rows(shard), spec.cut.teacher_batch
    return [(start, min(start + size, span.stop)) for start in range(span.start, span.stop, size)]


@dataclass(frozen=True, eq=False)
class _Work:
    """Rows to what is written of them."""

    rows: TransferRows
    ensemble: Ensemble
    encoder: Encoder
    should_stop: Callable[[], bool]
    progress: Callable[[int], object]

    def shard(self, spec: Spec, shard: int) -> list[Part] | None:
        """The columns (R * P, M, ...) of a shard, batch by batch; None when told to stop."""
        parts = []
        for start, stop in shard_batches(spec, shard):
            if self.should_stop():
                return None
            parts.append(self._part(start, stop))
            self.progress(stop - start)
        return parts

    def _part(self, start: int, stop: int) -> Part:
        """What gives the columns of rows [start, stop): of tokens they are encoded here, as their logits are many."""
        inputs = np.array(self.rows.inputs[start:stop])
        outputs = self.ensemble.outputs(inputs)
        if self.ensemble.sequence is None:
            labels = np.asarray(self.rows.labels[start:stop])
            return partial(self.encoder.encode, outputs, labels=labels, place=lambda n: f"row {start + n}")
        found, positions = alignment(inputs), self.ensemble.sequence.positions
        encoded = self.encoder.encode(
            outputs,
            labels=found.next_token.reshape(-1),
            mask=found.mask.reshape(-1).astype(np.bool_),
            place=lambda n: f"row {start + n // positions}, position {n % positions}",
        )
        return lambda: encoded


def _write(rows: TransferRows, writer: StoreWriter, shard: int, parts: list[Part]) -> None:
    found = joined([part() for part in parts])
    start, stop = writer.rows_of(shard)
    keys, labels = rows.keys[start:stop], rows.labels[start:stop]
    embeds = writer.spec.encoding.inputs == "embed"
    inputs = np.array(rows.inputs[start:stop]) if embeds or rows.sequence is not None else None
    places = None if rows.sequence is None or inputs is None else alignment(inputs)
    suspects = found.suspects
    if places is not None:
        suspects = rows_of_positions(suspects.reshape(stop - start, -1, suspects.shape[1]), places.mask)
    require_logits(suspects, total=writer.spec.rows, first_row=start)
    writer.write_columns(
        shard,
        keys=keys,
        labels=labels,
        columns=found.columns,
        mask=None if places is None else places.mask,
        document=None if places is None else places.document,
        inputs=inputs if embeds else None,
        fidelity=found.fidelity,
    )
