"""What a served teacher answers for a row of tokens: asked of it before it is believed, and as the store's columns.

L tokens of a row, P positions, n of them that count, K stored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import AlignmentError, LogitsError
from softlabels.foreign.rows import ForeignRow, Unfit
from softlabels.foreign.served import SLACK
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk_known import known_columns
from softlabels.store.arrays import Arrays
from softlabels.teacher.hidden import States
from softlabels.transfer.sequences import SequenceInfo

SAMPLED = 32  # tokens of a sentinel row that are kept
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answered:
    """Labels of a row: the columns (n, 1, ...) of its positions `at` (n,) that count, and the log-probabilities of the tokens
    behind up to `SAMPLED` of them, spread evenly. Where the server was asked for `states`, these, and no columns.
    """

    at: Ints
    columns: Columns
    sample: NDArray[np.float64]
    states: States | None = None


NOTHING_SAID = Answered(np.empty(0, np.int64), {}, np.empty(0))  # of a row without a position that counts


def read_answer(
    row: ForeignRow, tokens: Ints, documents: Ints, encoding: TopkEncoding | int, classes: int, echoed: int
) -> Answered:
    """The labels that an answer has of the row that was asked: its `tokens` (L,), among those of the padded row, whose
    `documents` say which positions count; in the place of an encoding the number of entries that the states of an answer are
    held against. The answer may have `echoed` tokens more. Raises `Unfit`.
    """
    extra = len(row.tokens) - len(tokens)
    if not 0 <= extra <= echoed or not np.array_equal(row.tokens[: len(tokens)], tokens):
        what = f"the answer is of {len(row.tokens)} tokens that are not the {len(tokens)} that were asked for"
        raise Unfit(
            AlignmentError, "other tokens", what,
            "check the server and any proxy before it: it changes prompts (a template, a bos, a limit), or mixes up answers",
        )  # fmt: skip
    positions = len(tokens) - 1
    needed = (documents[:-1] > 0) & (documents[:-1] == documents[1:])
    at = np.flatnonzero(needed[:positions])
    said = np.zeros(len(row.counts), bool)
    said[at] = True
    if not row.counts[at].all():
        place = int(at[~row.counts[at]][0])
        what = f"position {place} has no distribution"
        raise Unfit(AlignmentError, "positions without distribution", what, "check the server")
    row = replace(row, counts=said)
    row.require_fit(classes, SLACK)
    k = encoding if isinstance(encoding, int) else encoding.k
    row.require_entries(k)
    ids, log_p = row.largest(k)
    own = row.own[at]
    _require_own(own, tokens[at + 1], ids, log_p, at)
    chosen = np.unique(np.linspace(0, max(0, len(at) - 1), min(SAMPLED, len(at))).round().astype(np.int64))
    if isinstance(encoding, int):
        assert row.hidden is not None  # it was asked for
        ids, log_p = np.c_[tokens[at + 1], ids], np.c_[own, log_p]
        return Answered(at, {}, own[chosen], States(row.hidden[at], ids, log_p))
    return Answered(at, known_columns(encoding, classes, ids, log_p, own), own[chosen])


def _require_own(own: NDArray[np.float64], tokens: Ints, ids: Ints, log_p: NDArray[np.float64], at: Ints) -> None:
    """Raise `Unfit` unless the next tokens' log-probabilities are those of their entries, or below all of them."""
    if not np.isfinite(own).all():
        what = f"the answer does not say the log-probability of the token behind position {at[~np.isfinite(own)][0]}"
        raise Unfit(LogitsError, "tokens without log-probability", what, "check the server")
    among = np.where(ids == tokens[:, None], log_p, np.nan)
    entry = np.fmax.reduce(among, axis=1, initial=np.nan)
    wrong = np.where(np.isnan(entry), own > log_p.min(axis=1, initial=np.inf) + SLACK, np.abs(own - entry) > SLACK)
    if wrong.any():
        what = (
            f"the token behind position {at[wrong.argmax()]} has the log-probability {own[wrong.argmax()]:.6g}, which does not "
            "go with the largest of that position"
        )
        raise Unfit(LogitsError, "log-probabilities that contradict each other", what, "check the server")


def blank_columns(encoding: TopkEncoding, sequence: SequenceInfo, rows: int) -> Arrays:
    """The columns (rows, P, 1, ...) of positions that do not count."""
    return {
        name: np.broadcast_to(encoding.blank(name, shape[1:], np.dtype(dtype)), (rows, *shape)).copy()
        for name, dtype, shape, _ in encoding.columns(sequence.classes, 1, sequence.positions)
    }


def likeness(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """By how much log-probabilities of the same tokens differ, on average and at most; infinite where they are not as many."""
    if one.shape != other.shape:
        return float("inf"), float("inf")
    apart = np.abs(one - other)
    return float(apart.mean()) if apart.size else 0.0, float(apart.max(initial=0.0))
