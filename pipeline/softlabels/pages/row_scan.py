"""What every row of a store is asked before some are shown: entropy, the members' disagreement, and whether its hard label is
likely wrong. One pass block by block, of very large stores over an even sample by content key; likely label errors over all.

n rows, P positions, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.label_errors import Block, LabelErrors, find_label_errors
from softlabels.labels.asked import Summary
from softlabels.labels.base import Columns
from softlabels.labels.bernoulli import sigmoid
from softlabels.pages.distributions import Teacher, flag_entropy, mean_log_probs, softmax_entropy
from softlabels.pages.sample import sample
from softlabels.store import Store
from softlabels.store.columns import LABEL

MOST = 1 << 26  # numbers of all distributions that are looked at
_BLOCK = 1 << 20  # of a block
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
    """

    rows: Ints
    scores: dict[str, Floats]
    errors: LabelErrors | None
    usual: Floats | None = None


def teacher_of(store: Store) -> Teacher:
    """How a store's distributions are read."""
    basis = store.basis
    return Teacher(store.encoding, store.classes, None if basis is None else np.asarray(basis), store.member_weights)


def scan(store: Store) -> Scan:
    """Look at the rows of a store's one target."""
    most = MOST if store.encoding.keeps_all else MOST // 8  # tails take longer
    rows = sample(store, max(_LEAST, most // _numbers(store))).rows
    found: dict[str, list[Floats]] = {}
    usual = _usual_sizes(store, rows) if store.encoding.target == "values" else None
    for part in _cut(store, rows):
        for name, values in _scores(store, part, usual).items():
            found.setdefault(name, []).append(values)
    return Scan(rows, {name: np.concatenate(each) for name, each in found.items()}, label_errors(store), usual)


def label_errors(store: Store) -> LabelErrors | None:
    """Likely label errors among all rows, or positions, which are numbered row * P + position; None where hard labels are no
    classes of their own, or there are none.
    """
    if store.encoding.target != "softmax" or store.spec.of_tokens or LABEL not in store.columns:
        return None
    found = find_label_errors(lambda: _labelled_blocks(store), store.classes)
    return found if found.looked_at else None


def _labelled_blocks(store: Store) -> Iterator[Block]:
    teacher, positions = teacher_of(store), store.positions or 1
    for rows in _cut(store, np.arange(store.rows)):
        labels = store.gather(LABEL, rows).reshape(-1).astype(np.int64)
        places = (rows[:, None] * positions + np.arange(positions)).reshape(-1)
        has = labels >= 0
        columns = _flat({name: store.gather(name, rows) for name in store.soft_columns}, store, has)
        if has.any():
            yield Block(places[has], labels[has], np.exp(mean_log_probs(teacher, columns, store.encoding.near_1)))


def _numbers(store: Store) -> int:
    return max(1, (store.positions or 1) * store.members * store.classes)


def _cut(store: Store, rows: Ints) -> Iterator[Ints]:
    """Rows, in blocks that end where chunks do, so that each chunk is read once as long as one is no larger than a block."""
    size = max(1, _BLOCK // _numbers(store))
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
    """Of positions, some at a time: those of a row may have very many classes."""
    if (short := summary_of(teacher, columns, teacher.encoding.near_1)) is not None:
        return {"entropy": short.entropy[0], "disagreement": np.zeros_like(short.entropy[0])}
    step = max(1, 32 * _BLOCK // teacher.row_bytes)
    count = len(next(iter(columns.values())))
    parts = [
        _of_part(teacher, {name: values[start : start + step] for name, values in columns.items()})
        for start in range(0, max(1, count), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_part(teacher: Teacher, columns: Columns) -> dict[str, Floats]:
    at = teacher.encoding.near_1
    own = teacher.member_log_probs(columns, at)
    if teacher.encoding.target == "sigmoid":
        p = sigmoid(own)
        entropy = flag_entropy(np.tensordot(p, teacher.weights, axes=([1], [0])))
        return {"entropy": entropy, "disagreement": entropy - flag_entropy(p) @ teacher.weights}
    entropy = softmax_entropy(teacher.mean(own))
    return {"entropy": entropy, "disagreement": entropy - softmax_entropy(own) @ teacher.weights}


def summary_of(
    teacher: Teacher, columns: Columns, temperature: float, others: Sequence[NDArray[np.floating]] = ()
) -> Summary | None:
    """At one temperature, where the encoding gives it."""
    none = np.zeros((len(next(iter(columns.values()))), 0), np.int64)
    return teacher.encoding.summary(
        columns, teacher.classes, teacher.basis, temperatures=[temperature], ids=none, others=others
    )


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
