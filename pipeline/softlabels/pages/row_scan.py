"""What every row of a store is asked before some are shown: entropy, the members' disagreement, and whether its hard label is
likely wrong. One pass block by block, of very large stores over an even sample by content key; likely label errors over all.

n rows, P positions, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.label_errors import Block, Examples, LabelErrors, SparseBlock, find_label_errors
from softlabels.labels.asked import Summary
from softlabels.labels.bernoulli import sigmoid
from softlabels.labels.decoder import Columns
from softlabels.pages.distributions import Teacher, flag_entropy
from softlabels.pages.sample import sample
from softlabels.store import Store
from softlabels.store.columns import LABEL

MOST = 1 << 26  # numbers of all distributions that are looked at
_BLOCK = 1 << 20  # of a block
_LABELS = 1 << 30  # numbers of all distributions among which label errors are looked for
_LEAST = 16  # rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found of `rows` (n,), ascending, out of all.

    Attributes:
        scores: by name (n,), means over a row's positions: "entropy" and "disagreement" in nats; of values "disagreement" and
            "error", in parts of each number's usual size.
        errors: likely label errors; None where labels are no classes, or nobody gave any.
        usual: (D,) of values each number's usual size, its standard deviation over rows; None of others.
        labels_of: among how many rows label errors were looked for.
    """

    rows: Ints
    scores: dict[str, Floats]
    errors: LabelErrors | None
    usual: Floats | None = None
    labels_of: int = 0


def teacher_of(store: Store) -> Teacher:
    """How a store's distributions are read."""
    basis = store.basis
    return Teacher(store.encoding, store.classes, None if basis is None else np.asarray(basis), store.member_weights)


def scan(store: Store, *, every_label: bool = False) -> Scan:
    """Look at the rows of a store's one target: for label errors at every one, or at so many as a page takes time for."""
    most = MOST if store.encoding.keeps_all else MOST // 8  # tails take longer
    rows = sample(store, max(_LEAST, most // _numbers(store))).rows
    found: dict[str, list[Floats]] = {}
    usual = _usual_sizes(store, rows) if store.encoding.target == "values" else None
    for part in _cut(store, rows):
        for name, values in _scores(store, part, usual).items():
            found.setdefault(name, []).append(values)
    scores = {name: np.concatenate(each) for name, each in found.items()}
    labelled = sample(store, store.rows if every_label else max(_LEAST, _LABELS // _label_numbers(store))).rows
    return Scan(rows, scores, _label_errors(store, labelled), usual, len(labelled))


def _label_errors(store: Store, rows: Ints) -> LabelErrors | None:
    """Likely label errors among some rows, or positions, which are numbered row * P + position; None where hard labels are
    no classes of their own, or there are none.
    """
    if store.encoding.target != "softmax" or store.spec.of_tokens or LABEL not in store.columns:
        return None
    found = find_label_errors(lambda: _labelled_blocks(store, rows), store.classes)
    return found if found.looked_at else None


def _labelled_blocks(store: Store, every: Ints) -> Iterator[Examples]:
    teacher, positions = teacher_of(store), store.positions or 1
    for rows in _cut(store, every, _label_numbers(store)):
        labels = store.gather(LABEL, rows).reshape(-1).astype(np.int64)
        places = (rows[:, None] * positions + np.arange(positions)).reshape(-1)
        has = labels >= 0
        if has.any():
            columns = _flat({name: store.gather(name, rows) for name in store.soft_columns}, store, has)
            yield _examples(teacher, columns, places[has], labels[has])


def _examples(teacher: Teacher, columns: Columns, places: Ints, labels: Ints) -> Examples:
    at = teacher.encoding.near_1
    kept = teacher.encoding.kept_probabilities(columns, teacher.classes, teacher.weights, temperature=at, labels=labels)
    return (
        Block(places, labels, teacher.probabilities(columns, at))
        if kept is None
        else SparseBlock(places, labels, *kept)
    )


def _label_numbers(store: Store) -> int:
    """What looking for label errors takes of a row."""
    each = store.classes if store.encoding.keeps_all else 16 * store.encoding.kept(store.classes)  # which are sorted
    return max(1, (store.positions or 1) * store.members * each)


def _numbers(store: Store) -> int:
    return max(1, (store.positions or 1) * store.members * store.classes)


def _cut(store: Store, rows: Ints, numbers: int | None = None) -> Iterator[Ints]:
    """Rows, in blocks that end where chunks do, so that each chunk is read once as long as one is no larger than a block."""
    size = max(1, _BLOCK // (numbers or _numbers(store)))
    size = max(1, size // store.rows_per_chunk) * store.rows_per_chunk if size >= store.rows_per_chunk else size
    edges = np.searchsorted(rows, np.arange(0, store.rows + size, size))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if stop > start:
            yield rows[start:stop]


def _flat(columns: Columns, store: Store, counts: NDArray[np.bool_]) -> Columns:
    """Positions that count, of columns (n, [P,] M, ...)."""
    if store.positions is None:
        return {name: values[counts] for name, values in columns.items()}
    return {name: values.reshape(-1, *values.shape[2:])[counts] for name, values in columns.items()}


def counted(store: Store, rows: Ints) -> NDArray[np.bool_]:
    """(n, P): which positions of rows count; P = 1 where rows have none."""
    if store.positions is None:
        return np.ones((len(rows), 1), np.bool_)
    return np.asarray(store.gather("position_mask", rows) != 0)


def columns_of(store: Store, rows: Ints) -> tuple[Columns, NDArray[np.bool_]]:
    """Columns of the positions of rows that count, one behind the other, and which do (n, P)."""
    counts = counted(store, rows)
    return _flat({name: store.gather(name, rows) for name in store.soft_columns}, store, counts.reshape(-1)), counts


def _scores(store: Store, rows: Ints, usual: Floats | None) -> dict[str, Floats]:
    columns, counts = columns_of(store, rows)
    if usual is None:
        found = _soft_scores(teacher_of(store), columns)
    else:
        hard = _hard_values(store, rows, counts)
        found = _value_scores(columns, store, usual, hard)
    return {name: _by_row(values, counts) for name, values in found.items()}


def _by_row(values: Floats, counts: NDArray[np.bool_]) -> Floats:
    """The mean over each row's positions that count; 0 where none does."""
    whole = np.zeros(counts.shape)
    whole[counts] = np.nan_to_num(values)
    return np.asarray(whole.sum(axis=1) / counts.sum(axis=1).clip(min=1))


def _soft_scores(teacher: Teacher, columns: Columns) -> dict[str, Floats]:
    if teacher.encoding.target == "sigmoid":
        return _flag_scores(teacher, columns)
    found = summary_at(teacher, columns, teacher.encoding.near_1)
    return {"entropy": found.entropy[0], "disagreement": found.entropy[0] - found.own_entropy[0] @ teacher.weights}


def _flag_scores(teacher: Teacher, columns: Columns) -> dict[str, Floats]:
    """Some positions at a time: those of a row may have very many classes."""
    step = max(1, 32 * _BLOCK // teacher.row_bytes)
    count = len(next(iter(columns.values())))
    parts: dict[str, list[Floats]] = {"entropy": [], "disagreement": []}
    for start in range(0, max(1, count), step):
        own = {name: values[start : start + step] for name, values in columns.items()}
        p = sigmoid(teacher.member_log_probs(own, teacher.encoding.near_1))
        entropy = flag_entropy(np.tensordot(p, teacher.weights, axes=([1], [0])))
        parts["entropy"].append(entropy)
        parts["disagreement"].append(entropy - flag_entropy(p) @ teacher.weights)
    return {name: np.concatenate(each) for name, each in parts.items()}


def summary_at(
    teacher: Teacher, columns: Columns, temperature: float, others: Sequence[NDArray[np.floating]] = ()
) -> Summary:
    """Of a softmax at one temperature, with nothing asked of single classes."""
    none = np.zeros((len(next(iter(columns.values()))), 0), np.int64)
    return teacher.encoding.summary(
        columns, teacher.classes, teacher.basis, weights=teacher.weights, temperatures=[temperature], ids=none, others=others
    )  # fmt: skip


def _usual_sizes(store: Store, rows: Ints) -> Floats:
    """(D,) of values: their spread over some rows; 1 of one that is the same in all."""
    columns, _ = columns_of(store, rows[:: max(1, len(rows) // 1000)])
    values = store.encoding.values(columns, store.member_weights)
    spread, rounding = values.std(axis=0), np.finfo(np.float32).eps * np.abs(values).max(axis=0)
    return np.asarray(np.where(spread > rounding, spread, 1.0))


def _hard_values(store: Store, rows: Ints, counts: NDArray[np.bool_]) -> Floats | None:
    """(N, D) of the positions that count, NaN for none; None of a store without hard values."""
    if LABEL not in store.columns:
        return None
    return store.gather(LABEL, rows).astype(np.float64).reshape(counts.size, -1)[counts.reshape(-1)]


def _value_scores(columns: Columns, store: Store, usual: Floats, hard: Floats | None) -> dict[str, Floats]:
    mean = store.encoding.values(columns, store.member_weights)
    apart = (((columns["values"] - mean[:, None]) / usual) ** 2).mean(axis=-1) @ store.member_weights
    found = {"disagreement": np.sqrt(apart)}
    if hard is not None:
        found["error"] = np.sqrt((((mean - hard) / usual) ** 2).mean(axis=-1))
    return found
