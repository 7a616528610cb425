"""Which rows of a store a page shows: in turn the next of each list of what is worth a look, as many as fit.

n candidates, S students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from softlabels.pages.answers import Answers
from softlabels.pages.distributions import flag_entropy
from softlabels.pages.row_scan import Scan, columns_of, summary_at, teacher_of
from softlabels.pages.sample import by_key, sample
from softlabels.store import Store

MOST_ROWS = 400
_LIST = 1000  # rows of a list
_ASKED = 2000  # rows whose distance to a student is looked at
_NUMBERS = 1 << 26  # of their distributions
EVEN = "evenly by content key"
LABEL_ERRORS = "likely label errors"
WORDS = {
    "entropy": "highest entropy", "disagreement": "largest disagreement of members",
    "error": "largest error against hard values",
}  # fmt: skip

Ints = NDArray[np.int64]


def ranked(store: Store, found: Scan, answers: Sequence[Answers]) -> dict[str, Ints]:
    """Lists of rows, what is worth the first look first, by what they are."""
    asked = np.unique(np.concatenate([each.rows for each in answers])) if answers else None
    inside = np.ones(len(found.rows), np.bool_) if asked is None else np.isin(found.rows, asked)
    lists = {}
    if found.errors is not None and len(found.errors.places):
        rows = found.errors.places // (store.positions or 1)
        lists[LABEL_ERRORS] = rows[np.sort(np.unique(rows, return_index=True)[1])][:_LIST]
    for name, scores in found.scores.items():
        if name != "disagreement" or store.members > 1:
            own = np.where(inside & np.isfinite(scores), scores, -np.inf)
            lists[WORDS[name]] = found.rows[np.argsort(-own, kind="stable")[: min(_LIST, int(inside.sum()))]]
    for each in answers:
        lists[f"farthest from the teacher: {each.label}"] = _furthest(store, each, found.usual)[:_LIST]
    every = sample(store, MOST_ROWS).rows if asked is None else asked
    lists[EVEN] = every[by_key(store.gather("content_key", every))][:_LIST]
    return lists


def _furthest(store: Store, answers: Answers, usual: NDArray[np.float64] | None) -> Ints:
    """Rows by the mean KL of the ensemble to a student (of values the mean squared error in parts of their usual sizes) over
    positions, largest first.
    """
    numbers = max(1, (store.positions or 1) * store.members * store.classes)
    most = max(1, min(_ASKED, _NUMBERS // numbers))
    rows = answers.rows[:: max(1, -(-len(answers.rows) // most))]
    if not len(rows):
        return rows
    columns, counts = columns_of(store, rows)
    _, outputs = answers.of(rows)
    student = outputs.reshape(counts.size, -1)[counts.reshape(-1)].astype(np.float64)
    whole = np.zeros(counts.shape)
    whole[counts] = _distance(store, columns, student, usual)
    order = np.argsort(-whole.sum(axis=1) / counts.sum(axis=1).clip(min=1), kind="stable")
    return rows[order]


def _distance(
    store: Store,
    columns: Mapping[str, NDArray[np.generic]],
    student: NDArray[np.float64],
    usual: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    teacher, at = teacher_of(store), store.encoding.near_1
    if usual is not None:
        off = (teacher.encoding.values(columns, teacher.weights) - student) / usual
        return np.asarray((off**2).mean(axis=-1))
    if store.encoding.target == "sigmoid":
        p = teacher.mean_flags(columns, at)
        with np.errstate(over="ignore"):
            cross = p * np.logaddexp(0, -student / at) + (1 - p) * np.logaddexp(0, student / at)
        return np.asarray(cross.sum(axis=-1) - flag_entropy(p))
    found = summary_at(teacher, columns, at, [student])
    return np.asarray(found.cross[0, 0] - found.entropy[0])


def interleaved(lists: Mapping[str, Ints]) -> list[int]:
    """The rows of the lists in turn, each once."""
    most = max((len(each) for each in lists.values()), default=0)
    turns = (int(each[place]) for place in range(most) for each in lists.values() if place < len(each))
    return [*dict.fromkeys(turns)]
