"""Hard labels that are likely wrong, by confident learning (Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 70), on a teacher's probabilities.

1. The threshold of a class is the mean probability that examples with its label get for it (equation 2).
2. The confident joint counts, for each given label, of which class examples are confidently: the most probable of the classes
   whose threshold they reach (equation 1). Scaled to the counts of the given labels, its off-diagonal entries estimate how many
   labels of each class are wrong, and in favour of which class (equation 3).
3. Of each pair (given k, guessed j) so many examples are taken, those with the largest p_j - p_k: "prune by noise rate".
   Examples whose most probable class is the given one are left out.

A teacher that saw these labels in training remembers some of them and finds fewer: its probabilities should be out of fold.
Memory holds a block, a number for each pair that occurs, and the candidates, which are no more than the examples.

n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
_CLOSE = 1e-6  # probabilities that are as good as equal
_LEAST = 2e-6  # of a threshold
_NEVER = 2.0  # the threshold of a class that nobody is labelled with
_SPARE = 1 << 18  # candidates held beyond those that are wanted


class Examples(Protocol):
    """Some examples, of which each is asked what the method needs.

    Attributes:
        places: (n,) their numbers, ascending over all blocks. labels: (n,) hard labels, -1 for none.
    """

    @property
    def places(self) -> Ints:
        """(n,)."""
        ...

    @property
    def labels(self) -> Ints:
        """(n,)."""
        ...

    def labelled(self) -> Self:
        """Those that have a label."""
        ...

    def own(self) -> Floats:
        """(n,), the probability of each one's label."""
        ...

    def of(self, rows: Ints, classes: Ints) -> Floats:
        """(m,), the probability of each class in the example of this number here."""
        ...

    def guesses(self, thresholds: NDArray[np.float64]) -> Ints:
        """(n,), the most probable of the classes that reach their threshold (C,), -1 where none does."""
        ...

    def others(self) -> tuple[Ints, Floats]:
        """(n,) the most probable class but the label, and its probability."""
        ...


class Block(NamedTuple):
    """Examples with the probabilities of all classes: `p` (n, C)."""

    places: Ints
    labels: Ints
    p: Floats

    def labelled(self) -> Block:
        """See `Examples`."""
        has = self.labels >= 0
        return self if has.all() else Block(self.places[has], self.labels[has], self.p[has])

    def own(self) -> Floats:
        """See `Examples`."""
        return np.take_along_axis(self.p, self.labels[:, None], axis=1)[:, 0]

    def of(self, rows: Ints, classes: Ints) -> Floats:
        """See `Examples`."""
        return np.asarray(self.p[rows, classes])

    def guesses(self, thresholds: NDArray[np.float64]) -> Ints:
        """See `Examples`."""
        reached = self.p >= (thresholds - _CLOSE).astype(self.p.dtype)
        number = reached.sum(axis=1)
        guess = np.where(number > 1, self.p.argmax(axis=1), reached.argmax(axis=1))
        return np.where(number > 0, guess, -1)

    def others(self) -> tuple[Ints, Floats]:
        """See `Examples`."""
        row, left = np.arange(len(self.labels)), self.p.copy()
        left[row, self.labels] = -1
        suggested = left.argmax(axis=1)
        return suggested, left[row, suggested]


class SparseBlock(NamedTuple):
    """Examples with the probabilities of a few classes: `ids` (n, K), each once and the label among them, -1 for no class;
    their `p` (n, K), 0 of no class; and that of each other class, `rest` (n,), which reaches no threshold and is not suggested.
    """

    places: Ints
    labels: Ints
    ids: Ints
    p: Floats
    rest: Floats

    def labelled(self) -> SparseBlock:
        """See `Examples`."""
        has = self.labels >= 0
        if has.all():
            return self
        return SparseBlock(self.places[has], self.labels[has], self.ids[has], self.p[has], self.rest[has])

    def own(self) -> Floats:
        """See `Examples`."""
        return np.asarray(np.where(self.ids == self.labels[:, None], self.p, 0).sum(axis=1))

    def of(self, rows: Ints, classes: Ints) -> Floats:
        """See `Examples`."""
        found = self.ids[rows] == classes[:, None]
        return np.asarray(np.where(found.any(axis=1), np.where(found, self.p[rows], 0).sum(axis=1), self.rest[rows]))

    def guesses(self, thresholds: NDArray[np.float64]) -> Ints:
        """See `Examples`."""
        reached = (self.p >= (thresholds - _CLOSE)[self.ids]) & (self.ids >= 0)
        best = np.where(reached.sum(axis=1) > 1, self.p.argmax(axis=1), reached.argmax(axis=1))
        return np.where(reached.any(axis=1), np.take_along_axis(self.ids, best[:, None], axis=1)[:, 0], -1)

    def others(self) -> tuple[Ints, Floats]:
        """See `Examples`."""
        left = np.where((self.ids == self.labels[:, None]) | (self.ids < 0), -1, self.p)
        best = left.argmax(axis=1)[:, None]
        return np.take_along_axis(self.ids, best, axis=1)[:, 0], np.take_along_axis(left, best, axis=1)[:, 0]


Blocks = Callable[[], Iterable[Examples]]


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What was found, the least likely label first.

    Attributes:
        places: (n,) int64, the numbers of the examples.
        given, suggested: (n,) int64, the hard label, and the most probable of the other classes.
        scores: (n,) float64, the normalised margin (p_given - p_suggested + 1) / 2: below .5, the less the likelier an error.
        looked_at: how many examples have a hard label.
    """

    places: Ints
    given: Ints
    suggested: Ints
    scores: NDArray[np.float64]
    looked_at: int


def find_label_errors(blocks: Blocks, classes: int) -> LabelErrors:
    """The examples whose hard label is likely wrong.

    Args:
        blocks: gives all examples block by block; called three times, each time the same.
        classes: C.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.integers(0, 3, 300)
        >>> p = np.full((300, 3), 0.05) + 0.85 * np.eye(3)[truth]
        >>> given = np.where(np.arange(300) < 10, (truth + 1) % 3, truth)
        >>> find_label_errors(lambda: [Block(np.arange(300), given, p)], 3).places.tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    thresholds, counts = _thresholds(blocks, classes)
    pairs, wanted = _wrong(*_confident_joint(blocks, thresholds), counts)
    found = _Largest(pairs, wanted, classes)
    for block in blocks():
        found.add(block.labelled())
    return found.errors(int(counts.sum()))


def _thresholds(blocks: Blocks, classes: int) -> tuple[NDArray[np.float64], Ints]:
    """Of each class the mean probability of examples with its label, and how many there are: (C,), (C,)."""
    total, counts = np.zeros(classes), np.zeros(classes, np.int64)
    for block in blocks():
        each = block.labelled()
        total += np.bincount(each.labels, weights=each.own(), minlength=classes)
        counts += np.bincount(each.labels, minlength=classes)
    mean = np.divide(total, counts, out=np.full(classes, _NEVER), where=counts > 0)
    return np.maximum(mean, _LEAST), counts


def _confident_joint(blocks: Blocks, thresholds: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Pairs given * C + guessed that occur, ascending, with those on the diagonal, and their counts: (q,), (q,)."""
    classes = len(thresholds)
    diagonal = np.arange(classes) * (classes + 1)
    pairs, counts = diagonal, np.zeros(classes, np.int64)
    for block in blocks():
        each = block.labelled()
        guess = each.guesses(thresholds)
        new = (each.labels * classes + guess)[guess >= 0]
        every = np.concatenate([pairs, new])
        pairs, at = np.unique(every, return_inverse=True)
        counts = np.bincount(at, weights=np.concatenate([counts, np.ones(len(new))])).astype(np.int64)
    on_diagonal = np.searchsorted(pairs, diagonal)
    counts[on_diagonal] = counts[on_diagonal].clip(min=1)
    return pairs, counts


def _wrong(pairs: Ints, joint: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Pairs off the diagonal, and how many examples of each are likely wrong; at least one of each class is right."""
    classes = len(counts)
    given, guess = np.divmod(pairs, classes)
    scaled = _rounded(joint / np.bincount(given, weights=joint)[given] * counts[given], given)
    on = given == guess
    right = scaled[on].clip(min=1)
    lacking = right - scaled[on]  # of each class, taken evenly from its pairs
    others = (np.bincount(given[scaled > 0], minlength=classes) - 1).clip(min=1)
    left = (scaled - (lacking / others)[given]).clip(min=0)
    left[on] = right
    wanted = _rounded(left, guess)
    keep = ~on & (wanted > 0) & (counts[given] > 1)
    return pairs[keep], wanted[keep]


def _rounded(values: NDArray[np.float64], groups: Ints) -> Ints:
    """Whole numbers near `values` whose sums over each group are the rounded sums."""
    found = np.round(values)
    size = groups.max(initial=0) + 1
    off = np.round(np.bincount(groups, weights=values, minlength=size)) - np.bincount(
        groups, weights=found, minlength=size
    )
    for group in np.flatnonzero(off).tolist():
        members = np.flatnonzero(groups == group)
        by_rest = members[np.argsort((values - found)[members], kind="stable")]
        changed = by_rest[::-1][: int(off[group])] if off[group] > 0 else by_rest[: -int(off[group])]
        found[changed] += np.sign(off[group])
    return found.astype(np.int64)


class _Largest:
    """Of each pair the `wanted` examples with the largest margins p_guessed - p_given."""

    def __init__(self, pairs: Ints, wanted: Ints, classes: int) -> None:
        self._given, self._guess = np.divmod(pairs, classes)
        self._wanted = wanted
        self._first = np.searchsorted(self._given, np.arange(classes))
        self._number = np.bincount(self._given, minlength=classes)
        self._floor = np.full(len(pairs), -np.inf)
        self._limit = int(wanted.sum()) + _SPARE
        self._held: list[tuple[NDArray[np.generic], ...]] = []
        self._count = 0

    def add(self, block: Examples) -> None:
        """The examples of a block, in each pair of their label."""
        places, labels = block.places, block.labels
        number = self._number[labels]
        row = np.repeat(np.arange(len(labels)), number)
        pair = np.arange(len(row)) + np.repeat(self._first[labels] - (np.cumsum(number) - number), number)
        own = block.own()
        margin = block.of(row, self._guess[pair]) - own[row]
        above = margin > self._floor[pair]
        row, pair, margin = row[above], pair[above], margin[above]
        suggested, best = block.others()
        score, is_wrong = (own.astype(np.float64) - best + 1) / 2, best > own + _CLOSE
        kept = places[row], pair, margin, labels[row], suggested[row], score[row], is_wrong[row]
        self._held.append(kept)
        self._count += len(row)
        if self._count > self._limit:
            self._prune()

    def _prune(self) -> None:
        """Keep those that are wanted, of equals the first."""
        held = [np.concatenate(each) for each in zip(*self._held, strict=True)]
        places, pair, margin = held[:3]
        order = np.lexsort((places, -margin, pair))
        ordered = pair[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        wanted = self._wanted[ordered]
        order, last = order[rank < wanted], order[rank == wanted - 1]
        self._floor[pair[last]] = margin[last]
        self._held, self._count = [tuple(each[order] for each in held)], len(order)

    def errors(self, looked_at: int) -> LabelErrors:
        """What was found."""
        if not self._held:
            nothing = np.zeros(0, np.int64)
            return LabelErrors(nothing, nothing, nothing, np.zeros(0), looked_at)
        self._prune()
        places, _, _, given, suggested, scores, is_wrong = self._held[0]
        _, first = np.unique(places[is_wrong], return_index=True)
        at = np.flatnonzero(is_wrong)[first]
        at = at[np.argsort(scores[at], kind="stable")]
        return LabelErrors(places[at], given[at], suggested[at], scores[at], looked_at)  # type: ignore[arg-type]
