"""What a foreign file of top-k log-probabilities says of a row of tokens, and what is asked of it before it is believed. The
formats (`distillkit`, `axolotl`, `served`) give `ForeignRow`s, of which `jobs` makes a store; `written` of a format takes what
a store says of a row.

L tokens of a row, P = L - 1 positions, W entries of a position, K of them that are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import AlignmentError, ClassIdOverflow, LogitsError, NanLogits, UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NOTHING = -1  # the id of an entry that is none, whose log-probability is -inf


class Unfit(Exception):
    """A row that breaks a rule: which (`reason`, a few words that are counted by), what it has, and what to do about it."""

    def __init__(self, kind: type[UserError], reason: str, what: str, remedy: str) -> None:
        super().__init__(what)
        self.kind, self.reason, self.what, self.remedy = kind, reason, what, remedy


@dataclass(frozen=True)
class ForeignRow:
    """A row of tokens and what is said of its positions, of which position p is the distribution of token p + 1.

    Attributes:
        tokens: (L,). ids, log_p: (P, W), see `NOTHING`. counts: (P,) bool, the positions of which anything is said.
        own: (P,) log-probability of the next token, NaN where the file does not say it.
        hidden: (P, d) float32 states of which logits are made, where a server was asked for them.
    """

    tokens: Ints
    ids: Ints
    log_p: Floats
    counts: NDArray[np.bool_]
    own: Floats
    hidden: NDArray[np.float32] | None = None

    @staticmethod
    def of(tokens: Ints, at: Ints, ids: Ints, log_p: Floats, own: Floats | None = None) -> ForeignRow:
        """Of entries (n, W) of the positions `at` (n,), with `own` (n,)."""
        positions = max(len(tokens) - 1, 0)
        spread = ForeignRow(
            tokens, np.full((positions, ids.shape[1]), NOTHING), np.full((positions, ids.shape[1]), -np.inf),
            np.zeros(positions, bool), np.full(positions, np.nan),
        )  # fmt: skip
        spread.ids[at], spread.log_p[at], spread.counts[at] = ids, log_p, True
        said = np.where(ids == tokens[at + 1, None], log_p, np.nan)
        spread.own[at] = np.fmax.reduce(said, axis=1, initial=np.nan) if own is None else own
        return spread

    @property
    def entries(self) -> Ints:
        """(P,) how many each position has."""
        return np.asarray(np.isfinite(self.log_p).sum(axis=1))

    def require_fit(self, classes: int, slack: float) -> None:
        """Raise `Unfit` for ids that are none of `classes`, numbers that are none, and probabilities that sum to more than 1 +
        `slack`, which rounding explains.
        """
        wrong = (self.tokens < 0) | (self.tokens >= classes)
        if wrong.any():
            token = int(self.tokens[wrong.argmax()])
            raise _out_of_range(f"token {int(wrong.argmax())} is {token}", classes)
        if np.isnan(self.log_p).any():
            place = int(np.isnan(self.log_p).any(axis=1).argmax())
            what = f"a log-probability of position {place} is NaN, or null"
            raise Unfit(
                NanLogits, "NaN among the log-probabilities", what, "leave the row out, or ask the teacher again"
            )
        wrong = (self.ids >= classes) | (self.ids < NOTHING) | ((self.ids == NOTHING) & (self.log_p > -np.inf))
        if wrong.any():
            place, entry = (int(number) for number in np.argwhere(wrong)[0])
            raise _out_of_range(f"an id of position {place} is {int(self.ids[place, entry])}", classes)
        ordered = np.sort(self.ids, axis=1)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NOTHING)).any(axis=1)
        if twice.any():
            what = f"position {int(twice.argmax())} names a token twice"
            raise Unfit(LogitsError, "ids twice in a position", what, "write each token of a position once")
        self._require_probabilities(slack)

    def _require_probabilities(self, slack: float) -> None:
        with np.errstate(over="ignore"):
            mass = np.exp(self.log_p).sum(axis=1)
        if (mass > 1 + slack).any():
            place = int(mass.argmax())
            raise Unfit(
                LogitsError, "probabilities that sum to more than 1",
                f"the probabilities of position {place} sum to {mass[place]:.6g}: these are no log-probabilities",
                "logits (logprobs_mode=raw_logits) leave out what the other tokens have: ask for log-probabilities",
            )  # fmt: skip

    def require_entries(self, k: int) -> None:
        """Raise `Unfit` where a position that counts has fewer than `k`."""
        few = self.counts & (self.entries < k)
        if few.any():
            place = int(few.argmax())
            what = f"position {place} has {int(self.entries[place])} entries, and k is {k}"
            raise Unfit(LogitsError, "positions of fewer entries", what, "give a smaller --k, or --broken=skip")

    def largest(self, k: int) -> tuple[Ints, Floats]:
        """Ids and log-probabilities (n, K) of the `k` largest of each of the n positions that count."""
        ids, log_p = self.ids[self.counts], self.log_p[self.counts]
        order = np.lexsort((ids, -log_p), axis=-1)[:, :k]
        return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(log_p, order, axis=-1)

    @property
    def inputs(self) -> NDArray[np.int32]:
        """(2, L) as rows of tokens are prepared: ids, and document numbers: a position counts where both its tokens are of one
        document, so that each position of which nothing is said ends one.
        """
        documents = 1 + np.concatenate([[0], np.cumsum(~self.counts)])
        return np.stack([self.tokens, documents]).astype(np.int32)


class ForeignFile(Protocol):
    """A foreign file, or a folder of them.

    Attributes:
        path: for messages. slack: by how much probabilities of a position may sum to more than 1.
    """

    path: Path
    slack: float

    @property
    def known_at(self) -> float | None:
        """The temperature of its log-probabilities, None where the format leaves it open."""
        ...

    def rows(self) -> Iterator[ForeignRow | Unfit]:
        """The rows in order, each time anew, with little of the file in memory; in the place of one that breaks a rule what is
        wrong with it.
        """
        ...


def whole_numbers(numbers: Iterable[int]) -> Ints:
    """(n,) int64. Raises `Unfit` where one is too large to be an id."""
    try:
        return np.array([*numbers], np.int64)
    except OverflowError:
        raise Unfit(ClassIdOverflow, "ids out of range", "an id has more than 64 bits", "give ids of tokens") from None


def entries_of(lists: Sequence[Sequence[tuple[int, float]]]) -> tuple[Ints, Floats]:
    """Lists of (id, log-probability) as arrays (n, W), filled up with `NOTHING`. Raises `Unfit`."""
    width = max(map(len, lists), default=0)
    filled = [pair for each in lists for pair in (*each, *[(NOTHING, -np.inf)] * (width - len(each)))]
    ids = whole_numbers(number for number, _ in filled).reshape(len(lists), width)
    return ids, np.array([value for _, value in filled], np.float64).reshape(len(lists), width)


def _out_of_range(what: str, classes: int) -> Unfit:
    remedy = "name the tokenizer of the teacher with --teacher_tokenizer; rows with outputs that no token has can be left out"
    return Unfit(ClassIdOverflow, "ids out of range", f"{what}, and the tokenizer has {classes} tokens", remedy)


def misaligned(what: str) -> Unfit:
    """For lists whose lengths do not fit."""
    return Unfit(AlignmentError, "lists of unequal length", what, "write one list a token, and as many ids as numbers")
