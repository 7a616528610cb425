"""What a begun store holds, held against this run before the teacher goes on with it: the plan cannot show everything.

A model's code or a package may have changed while its weights did not; hard labels are in no digest of the plan; and of rows
that differ the plan knows only that they do. Neighbour: `recheck` compares a sealed store with the live teacher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.errors import MissingShard, OtherLabels, OtherLogits, OtherOrder, OtherPreprocessing, OtherRows
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.labels.targets import titled
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.commit import recorded_shards
from softlabels.store.gather import Ints, RecordedChunks, Stored, gather, read_rows
from softlabels.store.json_files import read_json
from softlabels.store.key_index import KeyIndex
from softlabels.store.paths import PLAN, record_name
from softlabels.store.reader import Store
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
    spec, payloads = writer.spec, {record.payload.shard: record.payload for record in records}
    with closing(RecordedChunks(writer.folder, spec, payloads)) as source:
        for shard in payloads:
            span = np.asarray(spec.shard_rows(shard), np.int64)
            _check_rows(source, span, rows, span, f"rows of shard {shard} of {writer.folder}")
        lines = {each.name: [s for record in records for s in record.lost[each.name].fidelity] for each in spec.targets}
        numbers = np.concatenate([np.asarray(spec.shard_rows(shard), np.int64) for shard in payloads])
        _check_sentinels(source, numbers, rows, numbers, lines, ensemble)


def check_labelled(store: Store, rows: TransferRows, at: NDArray[np.int64], ensemble: Ensemble) -> None:
    """The same of a sealed store whose rows `at` (R,) are those of this run, -1 where it has none.

    Raises:
        OtherPreprocessing: inputs that the store holds are not those of this run. The others: as `check_committed` says.
    """
    own = np.flatnonzero(at >= 0)
    for start in range(0, len(own), store.rows_per_chunk):
        part = own[start : start + store.rows_per_chunk]
        _check_rows(store, at[part], rows, part, f"rows of {store.folder}")
    lines = {name: table.fidelity.values() for name, table in store.manifest.lost.items()}
    chosen = own[spread(len(own), sentinel_count(ensemble.expected))]
    if "input" in store.columns and store.gather("input", at[chosen]).tobytes() != rows.inputs[chosen].tobytes():
        raise OtherPreprocessing(
            f"{store.folder} holds other inputs for the same rows than {rows.prepare.class_path} makes now",
            remedy="prepare the inputs as they were, or give another store",
        )
    _check_sentinels(store, at[chosen], rows, chosen, lines, ensemble)


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
            return OtherRows(f"{error.what}: row {row} of the store is not in this run", remedy=error.remedy)
        there = np.arange(first, first + len(stored))
        moved = (keys[np.minimum(there, len(keys) - 1)] != stored).any(axis=1)
        if moved.any() and len(keys) == spec.rows:
            row = int(np.argmax(moved))
            return OtherOrder(
                f"{error.what}: the rows are in another order: row {first + row} of the store is row {found[row]} here",
                remedy="give the transfer set in the order in which it was labelled, or give another store path",
            )
    return error


def _check_rows(source: Stored, at: Ints, rows: TransferRows, own: Ints, what: str) -> None:
    """Compare the hard labels and positions of the rows `at` of a store with those of this run's rows `own`."""
    if not source.spec.of_tokens:
        kinds = {target.name: target.encoding.target for target in source.spec.targets}
        for name, labels in hard_of(rows, kinds).items():
            _check_labels(
                name, gather(source, [column := stored_name(name, LABEL)], at)[column], at, labels[own], own, what
            )
    if rows.positions is not None:
        stored = gather(source, ["position_mask"], at)["position_mask"]
        wrong = np.flatnonzero((stored != mask_of(rows)[own]).any(axis=1))
        if wrong.size:
            raise OtherLabels(
                f"{wrong.size} of the {len(at)} {what} have another mask of positions than in this run, row "
                f"{at[wrong[0]]} first",
                remedy="give the positions that began it (transfer_set.positions), or give another store path",
            )


def _check_labels(
    name: str, stored: NDArray[np.generic], at: Ints, labels: NDArray[np.generic], own: Ints, what: str
) -> None:
    """Of a target the hard labels (n, ...) that this run gives its rows."""
    same = (stored == labels) | ((stored != stored) & (labels != labels))  # NaN is none, on both sides
    wrong = np.flatnonzero(~same.reshape(len(at), -1).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        place = (row, *(() if labels.ndim == 1 else np.argwhere(~same[row])[0].tolist()))
        where = "" if labels.ndim == 1 else f" at {', '.join(map(str, place[1:]))}"
        here = "here" if at[row] == own[row] else f"here, in row {own[row]}"
        raise OtherLabels(
            f"{titled(name)}{wrong.size} of the {len(at)} {what} have another hard label than this run gives them: row "
            f"{at[row]} has {stored[place]}{where} there, {labels[place]} {here}",
            remedy="give the labels that began it (transfer_set.label, classes), or give another store path",
        )


def _check_sentinels(
    source: Stored,
    at: Ints,
    rows: TransferRows,
    own: Ints,
    lines: Mapping[str, Iterable[Fidelity | FidelitySums]],
    ensemble: Ensemble,
) -> None:
    """Ask the teacher again about some of the rows `at` of a store, this run's rows `own`; `lines` are what the store states of
    its fidelity.
    """
    chosen = spread(len(at), sentinel_count(ensemble.expected))
    at, own = at[chosen], own[chosen]
    columns, found = gather(source, compared(source.spec), at), deviations(source.spec, lines)
    inputs = np.array(rows.inputs[own])
    counted, fold = ensemble.expected.count(rows, own, inputs), ensemble.fold_of(rows, own)
    compare_batch(ensemble, inputs, counted, columns, found, fold)
    for name, deviation in found.items():
        if not deviation.sound:
            what = "values" if deviation.target == "values" else "logits"
            raise OtherLogits(
                f"{titled(name)}the teacher gives {len(at)} rows of {source.folder} {what} that differ from those that it "
                f"holds, though its weights are the same: {deviation.line}",
                remedy="go on with the code and the versions of packages that began it, or give another store path",
            )
