"""`Survey`: what a foreign file holds, asked row by row before anything is written: which rows can be stored, and the report on
them. R rows that are stored, P positions of a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from softlabels.errors import AlignmentError, Interrupted, LogitsError, TransferSetError
from softlabels.foreign.rows import ForeignFile, ForeignRow, Unfit
from softlabels.jobs.watch import counted
from softlabels.transfer.decode import Decoded
from softlabels.transfer.keys import content_keys

Broken = Literal["error", "skip"]
_SHIFTS = (0, -1, 1)
_CLEARLY = 3.0  # by how many roots of the positions another alignment must fit better: chance reaches about one
_WHOLE = 1e-4  # what probabilities leave of 1 that were scaled to sum to 1, at most
_FIRST = 64  # rows whose inputs are kept


class Values:
    """Adds up the digest of rows."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def add(self, row: ForeignRow) -> None:
        """Add a row."""
        for values in (row.tokens, row.ids, row.log_p, row.own):
            self._hasher.update(np.ascontiguousarray(values).tobytes())

    @property
    def digest(self) -> str:
        """Sixteen digits."""
        return self._hasher.hexdigest()[:16]


@dataclass
class Survey:
    """Adds up a file, row by row.

    Attributes:
        classes: C. kept: whether the n-th row of the file is stored. keys: of those that are.
        longest, shortest: tokens of a row. fewest, many: entries of a position. positions: that are labelled, of `of`.
        gaps: rows of which nothing is said. repeats: rows whose tokens an earlier row has. broken: rows by the rule they break.
        hits: how often the tokens at position + 1 + shift are among the entries. mass, most, least: left of 1 by the entries,
            the sum and the extremes.
        values: the digest of what is stored. first: inputs of the first rows.
    """

    classes: int
    kept: list[bool] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    longest: int = 0
    shortest: int = 1 << 62
    fewest: int = 1 << 62
    many: int = 0
    positions: int = 0
    of: int = 0
    gaps: int = 0
    repeats: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    hits: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_SHIFTS, 0))
    asked: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_SHIFTS, 0))
    mass: float = 0.0
    most: float = -np.inf
    least: float = np.inf
    first: list[NDArray[np.int32]] = field(default_factory=list)
    values: Values = field(default_factory=Values)

    def __post_init__(self) -> None:
        self._seen: set[bytes] = set()

    def add(self, row: ForeignRow) -> None:
        """Add a row that breaks no rule; rows of which nothing is said, and repeated ones, are counted and not kept."""
        key = b"" if not row.counts.any() else content_keys([Decoded(row.tokens.astype(np.uint32)[None])]).tobytes()
        self.gaps += not key
        self.repeats += key in self._seen
        self.kept.append(bool(key) and key not in self._seen)
        if not self.kept[-1]:
            return
        self._seen.add(key)
        self.keys.append(key)
        tokens = len(row.tokens)
        self.longest, self.shortest = max(self.longest, tokens), min(self.shortest, tokens)
        entries = row.entries[row.counts]
        self.fewest, self.many = min(self.fewest, int(entries.min())), max(self.many, int(entries.max()))
        self.positions += int(row.counts.sum())
        self.of += len(row.counts)
        self._add_mass(row)
        self._add_hits(row)
        self.values.add(row)
        if len(self.first) < _FIRST:
            self.first.append(row.inputs)

    def skip(self, unfit: Unfit) -> None:
        """Count a row that breaks a rule."""
        self.kept.append(False)
        self.broken[unfit.reason] += 1

    def _add_mass(self, row: ForeignRow) -> None:
        left = 1 - np.exp(row.log_p[row.counts]).sum(axis=1)
        self.mass += float(left.clip(0).sum())
        self.most, self.least = max(self.most, float(left.max())), min(self.least, float(left.min()))

    def _add_hits(self, row: ForeignRow) -> None:
        at = np.flatnonzero(row.counts)
        for shift in _SHIFTS:
            inside = at[(at + 1 + shift >= 0) & (at + 1 + shift < len(row.tokens))]
            self.asked[shift] += len(inside)
            self.hits[shift] += int((row.ids[inside] == row.tokens[inside + 1 + shift, None]).any(axis=1).sum())

    def rate(self, shift: int) -> float:
        """The share of the positions whose token at position + 1 + shift is among the entries."""
        return self.hits[shift] / max(1, self.asked[shift])

    def require_rows(self, source: ForeignFile) -> None:
        """Raise where nothing is left, or where the tokens say that the lists are those of their neighbours."""
        if not self.keys:
            what = "; ".join(self._left_out()) or "it is empty"
            raise TransferSetError(
                f"{source.path} has no row that can be stored: {what}", remedy="give a file with labels"
            )
        better = max(_SHIFTS, key=lambda shift: self.hits[shift])
        if self.hits[better] - self.hits[0] > _CLEARLY * math.sqrt(self.asked[0]):
            raise AlignmentError(
                f"{source.path}: the token behind a position is among its entries in {self.rate(0):.1%} of the positions, the "
                f"token {'before that' if better < 0 else 'after that'} in {self.rate(better):.1%}: the lists are off by one",
                remedy="give the lists with the tokens that they belong to (of axolotl: --aligned=own or next)",
            )

    def require_tail(self, source: ForeignFile, k: int, tail: str) -> None:
        """Raise `LogitsError` where what is left of 1 cannot be a tail that is asked for."""
        if tail == "uniform" and k < self.classes and self.most < _WHOLE:
            raise LogitsError(
                f"{source.path}: the {k} probabilities of every position sum to 1: they were scaled, and what all other tokens "
                "have is not in the file",
                remedy="give --tail=renormalised: the stored tokens alone then have probabilities",
            )

    def _left_out(self) -> Iterator[str]:
        yield from (f"{counted(count, 'row')} left out: {reason}" for reason, count in sorted(self.broken.items()))
        if self.gaps:
            yield f"{counted(self.gaps, 'row')} left out: no position has labels"
        if self.repeats:
            yield f"{counted(self.repeats, 'row')} left out: an earlier row has the same tokens"

    def lines(self, *, k: int, known_at: float, told: bool, tail: str) -> Iterator[str]:
        """The report."""
        yield f"{len(self.keys):,} of {counted(len(self.kept), 'row')}, {self.positions:,} positions with labels"
        yield from self._left_out()
        if self.positions < self.of:
            yield f"{self.of - self.positions:,} positions inside these rows have no labels"
        yield (
            "0 ids out of range"
            if not self.broken["ids out of range"]
            else "ids out of range: in rows that are left out"
        )
        if k < self.many:
            yield (
                f"positions have {self.fewest:,} to {self.many:,} entries: the {k:,} largest are stored; a larger --k with "
                "--broken=skip leaves out rows with fewer"
            )
        off = f"(the tokens before and after: {self.rate(-1):.1%}, {self.rate(1):.1%})"
        yield f"alignment: the next token is among the entries of {self.rate(0):.1%} of the positions {off}"
        yield (
            f"mass that the file leaves out at T={known_at:g}: {self.mass / self.positions:.4g} on average, at most "
            f"{self.most:.4g}" + (f"; probabilities sum to up to {1 - self.least:.6g}" if self.least < -1e-6 else "")
        )
        who = "as given" if told else "as for every such capture"
        yield f"temperature applied already: {known_at:g}, {who}; the file does not say it"
        more = "" if tail == "renormalised" else "; above that, tail_bound=true gives an upper bound of the tail's mass"
        yield f"labels are known only at T={known_at:g}, from the {k} largest of {self.classes:,} tokens{more}"
        yield "what storing and sampling lost is unknown: the teacher's own logits are not in the file"


def survey(source: ForeignFile, classes: int, k: int, broken: Broken, should_stop: Callable[[], bool]) -> Survey:
    """Read the whole file once; each position that counts must have `k` entries. Raises the error of the first row that breaks
    a rule, unless such are to be skipped; `Interrupted` where `should_stop` says so.
    """
    found = Survey(classes)
    for row in source.rows():
        if should_stop():
            raise Interrupted(f"stopped while {source.path} was read", remedy="run the same command again")
        unfit = row if isinstance(row, Unfit) else None
        if not isinstance(row, Unfit):
            try:
                row.require_fit(classes, source.slack)
                row.require_entries(k)
                found.add(row)
            except Unfit as wrong:
                unfit = wrong
        if unfit is not None:
            if broken == "error":
                raise unfit.kind(f"{source.path}, row {len(found.kept)}: {unfit.what}", remedy=unfit.remedy)
            found.skip(unfit)
    return found
