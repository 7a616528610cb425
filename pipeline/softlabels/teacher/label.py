"""The shard loop: rows through a teacher into a store, writing one shard while the next is computed.

A shard is the unit of work. Its batches are cut from its first row on and never cross into the next, so its bytes depend
on the plan alone and a resumed run gives the digest of an unbroken one. Dense labels of classifiers are encoded as they are
written; all others batch by batch, on the device. R rows of a shard, P positions of a row of tokens, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.labels.encoding import TopkEncoding
from softlabels.store.basis import read_basis
from softlabels.store.spec import Manifest
from softlabels.store.writer import StoreWriter
from softlabels.system.patience import background, result_of
from softlabels.teacher.encode import Encoded, Encoder, joined
from softlabels.teacher.teacher import Batch, Teacher

_WAITS = "the disk has not taken a shard"
Rows = TypeVar("Rows")


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
        should_stop: asked before every batch; when true the shard being written is finished, the one being computed is
            given up.
        progress: called with the number of rows after every batch.

    Raises:
        Interrupted: `should_stop` said so. LogitsError: NaN and the like, naming row and member. DiskFull, StorageError: of
            the disk. Stalled: the thread that writes hangs.
        In each case committed shards are kept, and calling again goes on after them.
    """
    encoder = encoder_of(writer, teacher)
    with background("softlabels-write") as pool:
        writing: Future[None] | None = None
        for shard in writer.pending:
            parts: list[_Part] = []
            for start, stop in teacher.cut(rows, writer.spec, shard):
                if should_stop():
                    if writing is not None:
                        result_of(writing, _WAITS)
                    raise writer.stopped()
                parts.append(
                    _Part.of(teacher.batch(rows, start, stop, embed=writer.spec.encoding.inputs == "embed"), encoder)
                )
                progress(stop - start)
            if writing is not None:
                result_of(writing, _WAITS)
            writing = pool.submit(_write, writer, shard, parts)
        if writing is not None:
            result_of(writing, _WAITS)
    return writer.seal()


def encoder_of(writer: StoreWriter, teacher: Teacher[Any]) -> Encoder | None:
    """What encodes a batch; None where whole shards of logits are handed to the writer: dense labels, one a row."""
    encoding = writer.spec.encoding
    if not isinstance(encoding, TopkEncoding) and writer.spec.positions is None:
        return None
    basis = read_basis(writer.folder, writer.spec)
    shared = None if basis is None else torch.from_numpy(np.array(basis, np.float16)).to(teacher.device)
    return Encoder(encoding, teacher.weights, shared)


@dataclass(frozen=True, eq=False)
class _Part:
    """A batch without its logits where they are encoded: the rows' own columns, and either `found` or `logits` (B, M, C)."""

    columns: dict[str, NDArray[np.generic]]
    found: Encoded | None
    logits: NDArray[np.float32] | None

    @classmethod
    def of(cls, batch: Batch, encoder: Encoder | None) -> _Part:
        if encoder is not None:
            return cls(batch.columns, encoder.encode(batch), None)
        return cls(batch.columns, None, torch.cat([block.float().cpu() for _, block in batch.blocks]).numpy())


def _write(writer: StoreWriter, shard: int, parts: Sequence[_Part]) -> None:
    own = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    start, stop = writer.rows_of(shard)
    names = {"keys": "content_key", "labels": "label", "document": "document", "inputs": "input"}
    given: dict[str, Any] = {name: own.get(column) for name, column in names.items()}
    mask = given["mask"] = own.get("position_mask")
    if parts[0].found is None:
        writer.write_logits(
            shard, logits=np.concatenate([part.logits for part in parts if part.logits is not None]), **given
        )
        return
    found = joined([part.found for part in parts if part.found is not None])
    suspects = found.suspects
    if mask is not None:
        suspects = rows_of_positions(suspects.reshape(stop - start, -1, suspects.shape[1]), mask)
    require_logits(suspects, total=writer.spec.rows, first_row=start)
    writer.write_columns(shard, columns=found.columns, fidelity=found.fidelity, **given)
