"""What a detector's hard labels, ensemble and students find in the pictures of rows, by the recipe's function (`boxes`).

n rows, P positions, C classes, D values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.bernoulli import sigmoid
from softlabels.pages.answers import Answers
from softlabels.pages.boxes import Boxes, Outputs, Row
from softlabels.pages.row_scan import counted, teacher_of
from softlabels.store import Store
from softlabels.store.columns import LABEL

Floats = NDArray[np.float32]


def target_of_boxes(store: Store) -> str | None:
    """The target whose classes boxes have: the first one of distributions; None where there is none, or no positions."""
    kinds = {name: store.only(name).encoding.target for name in store.targets}
    return next((name for name, kind in kinds.items() if kind != "values"), None) if store.positions else None


class RowBoxes:
    """Boxes in the rows of a store.

    Args:
        store: with all its targets.
        target: see `target_of_boxes`.
        answers: students, asked about `target`, with their outputs of the others.
        boxes: finds them.
    """

    def __init__(self, store: Store, target: str, answers: Sequence[Answers], boxes: Boxes) -> None:
        self._target, self._answers, self._boxes = target, answers, boxes
        self._own, self._only = store, {name: store.only(name) for name in store.targets}
        self._near_1 = self._only[target].encoding.near_1
        self._labelled = all(LABEL in each.columns for each in self._only.values())

    @property
    def said(self) -> str:
        """A sentence about them, for the page."""
        return f"Boxes are what {self._boxes.name} finds, of the ensemble and students at T = {self._near_1:g}."

    def of(self, rows: NDArray[np.int64]) -> list[list[Row | None]]:
        """Of each row the boxes of the hard labels, the ensemble, and each student; None of who says nothing of it."""
        counts = counted(self._own, rows)
        voices: list[tuple[str, dict[str, Floats], NDArray[np.bool_]]] = []
        everywhere = np.ones(len(rows), np.bool_)
        hard = {name: _hard(store, rows) for name, store in self._only.items()} if self._labelled else {}
        known = np.asarray(hard[self._target].any(axis=(1, 2)) if hard else ~everywhere)
        voices.append(("the hard labels", hard, known))
        voices.append(("the ensemble", {name: _teacher(store, rows) for name, store in self._only.items()}, everywhere))
        for each in self._answers:
            there, outputs = each.of_all(rows)
            said = {name: _student(self._only[name], values) for name, values in outputs.items()}
            voices.append((each.label, said, there & (said.keys() == self._only.keys())))
        return [
            [
                self._found({name: values[at] for name, values in outputs.items()}, counts[at], f"{who}, row {row}")
                if there[at]
                else None
                for who, outputs, there in voices
            ]
            for at, row in enumerate(rows.tolist())
        ]

    def _found(self, outputs: Outputs, counts: NDArray[np.bool_], who: str) -> Row:
        return self._boxes.of(outputs, counts, outputs[self._target], who)


def _teacher(store: Store, rows: NDArray[np.int64]) -> Floats:
    """(n, P, C) probabilities at T = 1, or the temperature next to it that the labels know; (n, P, D) values."""
    if store.encoding.target == "values":
        return np.asarray(store.values(rows), np.float32)
    at, mean = store.encoding.near_1, teacher_of(store).mean_name
    return store.probabilities(rows, temperature=at, mean=mean).astype(np.float32)


def _hard(store: Store, rows: NDArray[np.int64]) -> Floats:
    """The same of hard labels: 1 for the class of a position, 0 where nothing is known; values as they are, NaN for none."""
    labels = store.gather(LABEL, rows)
    if store.encoding.target == "softmax":
        return np.asarray(labels[..., None] == np.arange(store.classes), np.float32)
    return np.asarray(labels if store.encoding.target == "values" else labels == 1, np.float32)


def _student(store: Store, outputs: Floats) -> Floats:
    if store.encoding.target == "values":
        return outputs
    z = outputs.astype(np.float64) / store.encoding.near_1
    if store.encoding.target == "sigmoid":
        return np.asarray(sigmoid(z), np.float32)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True), np.float32)
