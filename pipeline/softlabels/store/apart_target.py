"""How far the labels of one target of two stores are apart, added up block by block.

R rows of a store, P positions of a row, M members, C classes; n rows of a block, k positions of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.bernoulli import mean_logits
from softlabels.labels.divergence import Apart, Floats, sigmoid_apart, softmax_apart, values_apart
from softlabels.labels.hard import are_missing, joined, no_labels
from softlabels.labels.hard import reordered as labels_in_order
from softlabels.labels.lost import Errors
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.gather import Block, Ints
from softlabels.store.reader import Store

MASK = "position_mask"
_DECODED = 1 << 24  # bytes of decoded labels that are looked at together


class Line(NamedTuple):
    """Over all positions that both count, at a temperature: the share whose largest class is the same (of sigmoids: whose
    decisions all are), and mean and largest KL in nats, of A against B and of B against A; None where it is infinite.
    """

    temperature: float
    positions: int
    agreement: float
    forward: float | None
    forward_max: float | None
    backward: float | None
    backward_max: float | None


class ClassLine(NamedTuple):
    """The same at the first temperature, of the positions whose largest class in A this is; of sigmoids of the class itself. Of
    values, `forward` and `backward` are the RMSE of the number.
    """

    name: str
    positions: int
    agreement: float
    forward: float | None
    backward: float | None


class Moved(NamedTuple):
    """A row of both stores: its key, its number in each, the position that moved most (None where rows are one), how far at the
    first temperature (KL both ways; of values the RMSE of the vector), and its largest class in each, with the probability. Of
    sigmoids and values that is the class, or number, that moved most, with probability or value.
    """

    key: str
    rows: tuple[int, int]
    position: int | None
    forward: float | None
    backward: float | None
    classes: tuple[str, str]
    numbers: tuple[float, float]


@dataclass(frozen=True)
class TargetDiff:
    """Of a target that both have.

    Attributes:
        kind: of it. lines: a line a temperature, of distributions. errors: of values.
        classes: a line a class that has positions. moved: the rows that moved most.
        other_labels: of how many rows both know another hard label; `other_label_rows` the first of them in A and B.
        labels_of_one: of how many rows one of them alone knows it.
        counted_by_one: how many positions one of them alone counts.
    """

    kind: str
    lines: tuple[Line, ...]
    errors: Errors | None
    classes: tuple[ClassLine, ...]
    moved: tuple[Moved, ...]
    other_labels: int
    other_label_rows: tuple[tuple[int, int], ...]
    labels_of_one: int
    counted_by_one: int

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        if self.other_labels or self.labels_of_one or self.counted_by_one:
            return False
        same = all(line.agreement == 1 and line.forward_max == line.backward_max == 0 for line in self.lines)
        return same and (self.errors is None or self.errors.largest == 0)


@dataclass
class Side:
    """What is found of a target, block by block."""

    name: str
    one: Store
    other: Store
    order: Ints | None
    temperatures: tuple[float, ...]
    most: int
    sums: dict[float | None, NDArray[np.float64]] = field(default_factory=dict)
    by_class: NDArray[np.float64] | None = None
    moved: list[tuple[float, Moved]] = field(default_factory=list)
    other_labels: int = 0
    other_label_rows: list[tuple[int, int]] = field(default_factory=list)
    labels_of_one: int = 0
    counted_by_one: int = 0

    @property
    def columns(self) -> set[str]:
        """What is read of each store, as it calls it."""
        names = {stored_name(self.name, each) for store in (self.one, self.other) for each in store.soft_columns}
        return names | {stored_name(self.name, LABEL), MASK}

    def add(self, a: Block, b: Block, rows: Ints, keys: NDArray[np.uint8]) -> None:
        """Some rows (n, 2) of both, whose columns these are; `keys` of the first store."""
        self._add_labels(a, b, rows)
        at = self._counted(a, b, len(rows))
        step = max(1, _DECODED // (8 * self.one.classes * (self.one.members + self.other.members)))
        for start in range(0, len(at[0]), step):
            part = tuple(each[start : start + step] for each in at)
            for temperature in self.temperatures or (None,):
                found = self._apart(a, b, part, temperature)
                self._sum(temperature, found)
                if temperature == (self.temperatures or (None,))[0]:
                    self.by_class = found.by_class + (0 if self.by_class is None else self.by_class)
                    self._move(found, rows, part, keys)

    def _counted(self, a: Block, b: Block, rows: int) -> tuple[NDArray[np.intp], ...]:
        """Where the positions stand that both count: their rows, and their numbers where rows have several."""
        if self.one.positions is None:
            return (np.arange(rows),)
        width = max(a[MASK].shape[1], b[MASK].shape[1])
        one, other = (np.pad(each[MASK], ((0, 0), (0, width - each[MASK].shape[1]))) != 0 for each in (a, b))
        self.counted_by_one += int((one != other).sum())
        return np.nonzero(one & other)

    def _apart(self, a: Block, b: Block, at: tuple[NDArray[np.intp], ...], temperature: float | None) -> Apart:
        one = _decoded(self.one, {n: a[stored_name(self.name, n)][at] for n in self.one.soft_columns}, temperature)
        other = _decoded(
            self.other, {n: b[stored_name(self.name, n)][at] for n in self.other.soft_columns}, temperature
        )
        compare = {"softmax": softmax_apart, "sigmoid": sigmoid_apart, "values": values_apart}[self.one.encoding.target]
        return compare(one, other if self.order is None else other[:, self.order])

    def _sum(self, temperature: float | None, found: Apart) -> None:
        if temperature is None:
            squares = found.by_class[:, 2].sum(), np.abs(found.numbers[:, 0] - found.numbers[:, 1]).max()
            total = np.array([len(found.forward), 0, squares[0], squares[1], 0, 0])
        else:
            total = np.array([
                len(found.forward), found.agreed.sum(), found.forward.sum(), found.forward.max(), found.backward.sum(),
                found.backward.max(),
            ])  # fmt: skip
        before = self.sums.get(temperature, np.zeros(6))
        largest = [3, 5]
        self.sums[temperature] = before + total
        self.sums[temperature][largest] = np.maximum(before[largest], total[largest])

    def _move(self, found: Apart, rows: Ints, at: tuple[NDArray[np.intp], ...], keys: NDArray[np.uint8]) -> None:
        """Keep the rows that moved most, each by one of its positions."""
        distance = np.maximum(found.forward, found.backward)
        order = np.lexsort((-distance, at[0]))
        best = order[np.unique(at[0][order], return_index=True)[1]]  # of each row the position that moved most
        for place in best[np.argsort(-distance[best], kind="stable")][: self.most].tolist():
            if distance[place] > 0:
                ours, theirs = rows[at[0][place]].tolist()
                names = [_class_name(self.one, number) for number in found.classes[place].tolist()]
                moved = Moved(
                    keys[ours].tobytes().hex(), (ours, theirs), None if len(at) == 1 else int(at[1][place]),
                    _finite(found.forward[place]), _finite(found.backward[place]),
                    (names[0], names[1]), (float(found.numbers[place, 0]), float(found.numbers[place, 1])),
                )  # fmt: skip
                self.moved.append((float(distance[place]), moved))
        self.moved = _distinct(sorted(self.moved, key=lambda each: (-each[0], each[1].rows)))[: self.most]

    def _add_labels(self, a: Block, b: Block, rows: Ints) -> None:
        name, kind = stored_name(self.name, LABEL), self.one.encoding.target
        given = [block.get(name) for block in (a, b)]
        if all(each is None for each in given):
            return
        shape = next(each.shape for each in given if each is not None)
        one, other = (no_labels(kind, shape) if each is None else each for each in given)
        other = other if self.order is None else labels_in_order(other, kind, self.order)
        if self.one.positions is not None and not self.one.spec.of_tokens:
            width = min(one.shape[1], other.shape[1])
            one, other = one[:, :width], other[:, :width]
        _, differ = joined(one, other, kind)
        apart = are_missing(one, kind) != are_missing(other, kind)
        self.labels_of_one += int(apart.reshape(len(rows), -1).any(axis=1).sum())
        self.other_labels += int(differ.sum())
        room = self.most - len(self.other_label_rows)
        self.other_label_rows += [(p[0], p[1]) for p in rows[differ][:room].tolist()]

    def result(self) -> TargetDiff:
        """All of it."""
        lines, errors = [], None
        for temperature, (count, agreed, forward, most, backward, most_back) in self.sums.items():
            if temperature is None:
                errors = Errors(rmse=float(np.sqrt(forward / (count * self.one.classes))), largest=float(most))
                continue
            means = [_finite(each) for each in (forward / count, most, backward / count, most_back)]
            lines.append(Line(temperature, int(count), float(agreed / count), *means))
        return TargetDiff(
            kind=self.one.encoding.target, lines=tuple(lines), errors=errors, classes=tuple(self._classes()),
            moved=tuple(each for _, each in self.moved), other_labels=self.other_labels,
            other_label_rows=tuple(self.other_label_rows), labels_of_one=self.labels_of_one,
            counted_by_one=self.counted_by_one,
        )  # fmt: skip

    def _classes(self) -> list[ClassLine]:
        found = []
        for number, (count, agreed, *ends) in enumerate(() if self.by_class is None else self.by_class.tolist()):
            if count:
                means = [each / count for each in ends]
                if self.one.encoding.target == "values":
                    means = [each**0.5 for each in means]
                name = _class_name(self.one, number)
                found.append(ClassLine(name, int(count), agreed / count, _finite(means[0]), _finite(means[1])))
        return found


def _decoded(store: Store, columns: Mapping[str, NDArray[Any]], temperature: float | None) -> Floats:
    """What some positions (k, M, ...) say together: log-probabilities (k, C), of sigmoids logits, of values the numbers."""
    encoding, weights = store.encoding, store.spec.member_weights
    if temperature is None:
        return encoding.values(columns, weights)
    mean = "geometric" if encoding.is_reduced else "arithmetic"
    if encoding.target == "sigmoid":
        return mean_logits(columns["logits"], temperature, mean, weights)
    return encoding.log_probs(columns, store.classes, store.basis, temperature=temperature, mean=mean, weights=weights)


def _class_name(store: Store, number: int) -> str:
    return str(number) if store.class_names is None else store.class_names[number]


def _distinct(moved: list[tuple[float, Moved]]) -> list[tuple[float, Moved]]:
    """The first of each row."""
    found: dict[tuple[int, int], tuple[float, Moved]] = {}
    for each in moved:
        found.setdefault(each[1].rows, each)
    return list(found.values())


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
