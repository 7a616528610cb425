"""What a begun store holds, held against this run before the teacher goes on with it: the plan cannot show everything.

A model's code or a package may have changed while its weights did not; hard labels are in no digest of the plan; and of rows
that differ the plan knows only that they do. Neighbour: `recheck` compares a sealed store with the live teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.errors import MissingShard, OtherLabels, OtherLogits, OtherOrder, OtherRows
from softlabels.labels.targets import titled
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.commit import recorded_shards
from softlabels.store.gather import RecordedChunks, gather, read_rows
from softlabels.store.json_files import read_json
from softlabels.store.key_index import KeyIndex
from softlabels.store.paths import PLAN, record_name
from softlabels.store.records import Commit
from softlabels.store.seal import check_record
from softlabels.store.spec import Plan
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Files
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import hard_of, mask_of
from softlabels.teacher.recheck import compare_batch, compared, deviations
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
    records = [] if writer.sealed else [writer.record(shard) for shard in writer.placed]
    if not records:
        return
    payloads = {record.payload.shard: record.payload for record in records}
    with closing(RecordedChunks(writer.folder, writer.spec, payloads)) as source:
        kinds = {target.name: target.encoding.target for target in writer.spec.targets}
        hard = {} if writer.spec.of_tokens else hard_of(rows, kinds)
        for shard in payloads:
            _check_labels(writer, source, shard, hard)
            if rows.positions is not None:
                _check_mask(writer, source, shard, mask_of(rows))
        _check_sentinels(writer, source, records, rows, ensemble)


def explained(error: OtherRows, store: Files, keys: NDArray[np.uint8]) -> OtherRows | OtherOrder:
    """The error, with what the keys (R, 16) of this run's rows and those of the committed shards say more: which row is gone,
    or that the rows only stand in another order. Nothing more where files are missing, which another writer may be about to
    place.
    """
    try:
        return _explained(error, store, keys)
    except MissingShard:
        return error


def _explained(error: OtherRows, store: Files, keys: NDArray[np.uint8]) -> OtherRows | OtherOrder:
    spec = read_json(store, PLAN, Plan).spec
    index = KeyIndex(keys)
    payloads = {}
    for shard in sorted(recorded_shards(store)):
        name = record_name(shard)
        record = read_json(store, name, Commit)
        check_record(spec, shard, record, str(store.at(name)))
        payloads[shard] = record.payload
    source = RecordedChunks(store, spec, payloads)
    for shard in payloads:
        first, last = spec.shard_rows(shard).start, spec.shard_rows(shard).stop
        stored = np.asarray(read_rows(source, "content_key", first, last), np.uint8)
        found = index.find(stored)
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


def _check_labels(
    writer: StoreWriter, source: RecordedChunks, shard: int, hard: Mapping[str, NDArray[np.generic]]
) -> None:
    """Of each target the hard labels (R, ...) that this run gives its rows."""
    span = writer.spec.shard_rows(shard)
    for name, labels in hard.items():
        stored, own = read_rows(source, stored_name(name, LABEL), span.start, span.stop), labels[span.start : span.stop]
        same = (stored == own) | ((stored != stored) & (own != own))  # NaN is none, on both sides
        wrong = np.flatnonzero(~same.reshape(len(own), -1).all(axis=1))
        if wrong.size:
            row = int(wrong[0])
            at = (row, *(() if own.ndim == 1 else np.argwhere(~same[row])[0].tolist()))
            place = "" if own.ndim == 1 else f" at {', '.join(map(str, at[1:]))}"
            raise OtherLabels(
                f"{titled(name)}{wrong.size} of the {len(span)} rows of shard {shard} of {writer.folder} have another hard "
                f"label than this run gives them: row {span.start + row} has {stored[at]}{place} there, {own[at]} here",
                remedy="give the labels that began it (transfer_set.label, classes), or give another store path",
            )


def _check_mask(writer: StoreWriter, source: RecordedChunks, shard: int, mask: NDArray[np.uint8]) -> None:
    """Of rows of positions the mask (R, P) that this run has."""
    span = writer.spec.shard_rows(shard)
    stored = read_rows(source, "position_mask", span.start, span.stop)
    wrong = np.flatnonzero((stored != mask[span.start : span.stop]).any(axis=1))
    if wrong.size:
        raise OtherLabels(
            f"{wrong.size} of the {len(span)} rows of shard {shard} of {writer.folder} have other positions that count than "
            f"this run gives them, row {span.start + wrong[0]} first",
            remedy="give the positions that began it (transfer_set.positions), or give another store path",
        )


def _check_sentinels(
    writer: StoreWriter, source: RecordedChunks, records: Sequence[Commit], rows: TransferRows, ensemble: Ensemble
) -> None:
    spec = writer.spec
    numbers = np.concatenate([np.asarray(spec.shard_rows(record.payload.shard), np.int64) for record in records])
    at = numbers[spread(len(numbers), sentinel_count(ensemble.expected))]
    columns = gather(source, compared(spec), at)
    names = [target.name for target in spec.targets]
    lines = {name: [sums for record in records for sums in record.lost[name].fidelity] for name in names}
    found, inputs = deviations(spec, lines), np.array(rows.inputs[at])
    counted, fold = ensemble.expected.count(rows, at, inputs), ensemble.fold_of(rows, at)
    compare_batch(ensemble, inputs, counted, columns, found, fold)
    for name, deviation in found.items():
        if not deviation.sound:
            what = "values" if deviation.target == "values" else "logits"
            raise OtherLogits(
                f"{titled(name)}the teacher gives {len(at)} rows of {writer.folder} {what} that differ from those that it "
                f"holds, though its weights are the same: {deviation.line}",
                remedy="go on with the code and the versions of packages that began it, or give another store path",
            )
