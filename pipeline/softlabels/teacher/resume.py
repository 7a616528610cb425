"""What a begun store holds, held against this run before the teacher goes on with it: the plan cannot show everything.

A model's code or a package may have changed while its weights did not; hard labels are in no digest of the plan; and of rows
that differ the plan knows only that they do. Neighbour: `recheck` compares a sealed store with the live teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.errors import OtherLabels, OtherLogits, OtherOrder, OtherRows
from softlabels.store.chunks import ChunkReader, read_shard_column
from softlabels.store.commit import record_name, recorded_shards
from softlabels.store.key_index import KeyIndex
from softlabels.store.spec import PLAN, Commit, Payload, Plan, read_json
from softlabels.store.writer import StoreWriter
from softlabels.system.local import LocalFolder
from softlabels.teacher.encode import Columns
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.recheck import Deviation, compare_batch
from softlabels.teacher.sentinels import sentinel_count
from softlabels.transfer.rows import TransferRows


def check_committed(writer: StoreWriter, rows: TransferRows, ensemble: Ensemble) -> None:
    """Compare an unsealed store's committed shards with this run: every hard label, and sentinel rows spread over the shards
    with what the teacher says of them now.

    Raises:
        OtherLabels: rows whose hard label is not the one that is stored.
        OtherLogits: the teacher does not give the stored logits.
        MissingShard, DamagedShard: what is read of them is gone or damaged.
    """
    committed = set() if writer.sealed else set(range(writer.spec.shards)) - set(writer.pending)
    records = [writer.record(shard) for shard in sorted(committed)]
    if not records:
        return
    reader = ChunkReader(writer.folder, writer.spec)
    for record in records:
        _check_labels(reader, record.payload, rows)
    _check_sentinels(reader, records, rows, ensemble)


def explained(error: OtherRows, store: LocalFolder, keys: NDArray[np.uint8]) -> OtherRows | OtherOrder:
    """The error, with what the keys (R, 16) of this run's rows and those of the committed shards say more: which row is gone,
    or that the rows only stand in another order.
    """
    spec = read_json(store, PLAN, Plan).spec
    reader, index = ChunkReader(store, spec), KeyIndex(keys)
    for shard in sorted(recorded_shards(store)):
        payload = read_json(store, record_name(shard), Commit).payload
        stored = np.asarray(read_shard_column(reader, payload, spec.columns[0]), np.uint8)
        found, first = index.find(stored), spec.shard_rows(payload.shard).start
        if (found < 0).any():
            row = first + int(np.argmax(found < 0))
            return OtherRows(f"{error.what}: row {row} of the store is none of this run's", remedy=error.remedy)
        there = np.arange(first, first + len(stored))
        moved = (keys[np.minimum(there, len(keys) - 1)] != stored).any(axis=1)
        if moved.any() and len(keys) == spec.rows:
            row = int(np.argmax(moved))
            return OtherOrder(
                f"{error.what}: the rows stand in another order, row {first + row} of the store is row {found[row]} here",
                remedy="give the transfer set in the order in which it was labelled, or give another store path",
            )
    return error


def _check_labels(reader: ChunkReader, payload: Payload, rows: TransferRows) -> None:
    span = reader.spec.shard_rows(payload.shard)
    column = next(column for column in reader.spec.columns if column.name == "label")
    stored, own = read_shard_column(reader, payload, column), rows.labels[span.start : span.stop]
    wrong = np.flatnonzero(stored != own)
    if wrong.size:
        row = int(wrong[0])
        raise OtherLabels(
            f"{wrong.size} of the {len(span)} rows of shard {payload.shard} of {reader.folder} have another hard label than "
            f"this run gives them: row {span.start + row} has {stored[row]} there, {own[row]} here",
            remedy="give the labels that began it (transfer_set.label, classes), or give another store path",
        )


def _check_sentinels(reader: ChunkReader, records: Sequence[Commit], rows: TransferRows, ensemble: Ensemble) -> None:
    spec, payloads = reader.spec, {record.payload.shard: record.payload for record in records}
    numbers = np.concatenate([np.asarray(spec.shard_rows(shard), np.int64) for shard in payloads])
    at = numbers[spread(len(numbers), sentinel_count(rows.sequence))]
    columns = _gather(reader, payloads, at)
    stated = max((sums.tail_mass_error for record in records for sums in record.fidelity), default=0.0)
    found = Deviation(spec.teacher.precision, stated)
    compare_batch(spec, ensemble, np.array(rows.inputs[at]), columns, np.asarray(rows.labels[at]), found)
    if not found.sound:
        raise OtherLogits(
            f"the teacher gives {len(at)} rows of {reader.folder} logits that differ from those that it holds, "
            f"though its weights are the same: {found.line}",
            remedy="go on with the code and the versions of packages that began it, or give another store path",
        )


def _gather(reader: ChunkReader, payloads: dict[int, Payload], at: NDArray[np.int64]) -> Columns:
    """Ascending rows of the store's columns of soft labels, (len(at), ...), each chunk read once."""
    spec = reader.spec
    parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in spec.soft_columns}
    chunk_of = at // spec.cut.rows_per_chunk  # chunks never cross a shard
    for chunk in np.unique(chunk_of).tolist():
        shard, number = divmod(chunk, spec.cut.rows_per_shard // spec.cut.rows_per_chunk)
        inside = at[chunk_of == chunk] - chunk * spec.cut.rows_per_chunk
        for column in spec.columns:
            if column.name in parts:
                parts[column.name].append(reader.read(payloads[shard], column, number)[inside])
    return {name: np.concatenate(values) for name, values in parts.items()}
