"""Classes in another order than the hard labels beside them: how often the largest output is the hard label, and whether
another numbering explains the labels far better.

A weak teacher is no fault: outputs are refused only where the given numbering is no better than chance, and another one,
chosen on half of the rows, agrees with the labels of the other half. n rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import OtherClassOrder

Ints = NDArray[np.int64]
NO_BETTER = 0.1  # Cohen's kappa: 0 is chance, 1 is always
FAR_BETTER = 0.5
DEVIATIONS = 6.0  # of the number of rows that agree by chance
MOST_CLASSES = 1024  # among which a permutation is looked for
SHIFTS = (-2, -1, 1, 2)
_SHOWN = 12


@dataclass(frozen=True)
class Agreement:
    """How many of `rows` rows (or what they are `of`) with a hard label have it as their largest output, and the share that
    would by chance: if outputs and labels were as frequent as they are, and independent.
    """

    rows: int
    agreed: int
    chance: float
    of: str = "rows"

    @property
    def share(self) -> float:
        """Of the rows."""
        return self.agreed / self.rows

    @property
    def kappa(self) -> float:
        """Cohen's: how far the share lies above chance, 1 where all agree."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0

    @property
    def line(self) -> str:
        """For people."""
        return f"the largest output is the hard label in {self.share:.1%} of {self.of}; by chance {self.chance:.0%}"

    @property
    def is_far_better(self) -> bool:
        """Than chance: by much, and not by luck."""
        expected = self.rows * self.chance
        luck = DEVIATIONS * math.sqrt(expected * (1 - self.chance))
        return self.kappa >= FAR_BETTER and self.agreed >= expected + luck


def agreement(outputs: Ints, labels: Ints, classes: int) -> Agreement | None:
    """Of the largest outputs (n,) with hard labels (n,), -1 for none; None where no row has one."""
    outputs, labels = outputs[labels >= 0], labels[labels >= 0]
    if not len(labels):
        return None
    given, named = np.bincount(outputs, minlength=classes), np.bincount(labels, minlength=classes)
    chance = float((given / len(labels)) @ (named / len(labels)))
    return Agreement(len(labels), int((outputs == labels).sum()), chance)


def require_order(
    outputs: Ints, labels: Ints, classes: int, *, names: Sequence[str] | None = None, where: str = "the outputs"
) -> Agreement | None:
    """The agreement of outputs (n,), in the order of the rows, with hard labels (n,). Raises `OtherClassOrder`, which shows the
    numbering that agrees, where the given one is no better than chance and that one is far better.
    """
    given = agreement(outputs, labels, classes)
    if given is None or given.kappa > NO_BETTER:
        return given
    best, what, remedy = max(_others(outputs, labels, classes, names), key=lambda found: found[0].kappa)
    if not best.is_far_better:
        return given
    raise OtherClassOrder(
        f"{where}: the largest output is the hard label in {given.share:.1%} of rows (by chance {given.chance:.1%}), and in "
        f"{best.share:.1%} with {what}",
        remedy=remedy,
    )


def _others(
    outputs: Ints, labels: Ints, classes: int, names: Sequence[str] | None
) -> Iterator[tuple[Agreement, str, str]]:
    """The agreement of each other numbering on one half of the rows, what it is, and what to do."""
    remedy = "put the outputs' columns in the order of the labels, or number the labels as the columns"
    known = labels >= 0
    own, named = outputs[known], labels[known]
    chosen_by = np.random.default_rng(0).random(len(own)) < 0.5  # every other row may be every other class
    for how, means in _numberings(own[chosen_by], named[chosen_by], classes, names):
        found = agreement(means[own[~chosen_by]], named[~chosen_by], classes)
        if found is not None:
            yield found, f"the classes {how}: {_shown(means, names)}", remedy
    for shift in SHIFTS:
        here, there = (outputs[:-shift], labels[shift:]) if shift > 0 else (outputs[-shift:], labels[:shift])
        found = agreement(here, there, classes)
        if found is not None:
            what = f"the label of row n {'+' if shift > 0 else '-'} {abs(shift)} for row n"
            yield found, what, "give outputs and labels of the same rows, in the same order"
    yield Agreement(1, 0, 1.0), "", remedy  # of too few rows


def _numberings(outputs: Ints, labels: Ints, classes: int, names: Sequence[str] | None) -> Iterator[tuple[str, Ints]]:
    """How else columns may be numbered: entry j is the label that column j means."""
    yield "reversed", np.arange(classes)[::-1].copy()
    texts = {"sorted as text": [str(number) for number in range(classes)]}
    if names is not None:
        texts["sorted by name"] = list(names)
    for how, words in texts.items():
        means = np.array(sorted(range(classes), key=words.__getitem__), np.int64)
        yield how, means
        yield f"that were {how}", np.argsort(means)
    if classes <= MOST_CLASSES:
        yield "in another order", _permutation(outputs, labels, classes)


def _permutation(outputs: Ints, labels: Ints, classes: int) -> Ints:
    """The label that each column means, no label twice: pairs that stand together most often first."""
    together = np.bincount(outputs * classes + labels, minlength=classes * classes)
    means = np.full(classes, -1, np.int64)
    free = np.ones(classes, np.bool_)
    for pair in np.argsort(-together, kind="stable")[: int((together > 0).sum())].tolist():
        column, label = divmod(pair, classes)
        if means[column] < 0 and free[label]:
            means[column], free[label] = label, False
    rest = means < 0
    means[rest] = np.flatnonzero(free)
    return means


def _shown(means: Ints, names: Sequence[str] | None) -> str:
    """The columns that mean another label than their own number."""
    moved = np.flatnonzero(means != np.arange(len(means))).tolist()
    words = [f"output {n} is class {means[n] if names is None else repr(names[means[n]])}" for n in moved]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
