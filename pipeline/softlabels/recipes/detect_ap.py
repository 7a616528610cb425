"""Average precision of a detector, as COCO defines it, with one overlap: AP50 where that is 0.5.

Of each class all detections of all images are taken in the order of their scores. One is right where an object of its class in
its image, which no better detection has taken, overlaps it by at least 0.5 (intersection over union); it takes the one that
overlaps most. Precision over recall is made to fall (at each recall the best precision at that recall or beyond), read at the
101 recalls 0, 0.01, ..., 1, and averaged.

N detections of an image, K objects in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softlabels.recipes.detect_grid import Objects, overlaps

_RECALLS = np.linspace(0, 1, 101)


def average_precisions(
    found: Sequence[Objects], there: Sequence[Objects], *, classes: int, overlap: float = 0.5
) -> NDArray[np.float64]:
    """(classes,) AP of each class, NaN of one without objects; image by image what was found and what is there."""
    return np.array([_of_class(found, there, number, overlap) for number in range(classes)])


def _of_class(found: Sequence[Objects], there: Sequence[Objects], number: int, overlap: float) -> float:
    objects = sum(int((each.classes == number).sum()) for each in there)
    if not objects:
        return float("nan")
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    for ours, theirs in zip(found, there, strict=True):
        own = ours.classes == number
        order = np.argsort(-ours.scores[own], kind="stable")
        scores.append(ours.scores[own][order])
        right.append(_right(overlaps(ours.boxes[own][order], theirs.boxes[theirs.classes == number]), overlap))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.concatenate(right)[order].cumsum()  # (N,)
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS)
    return float(np.append(falling, 0.0)[place].mean())


def _right(shared: NDArray[np.float64], overlap: float) -> NDArray[np.bool_]:
    """(N,) of an image's detections, best first, by their overlap (N, K) with its objects."""
    free, right = np.ones(shared.shape[1], bool), np.zeros(len(shared), bool)
    for number, row in enumerate(shared):
        open_to_it = np.flatnonzero(free & (row >= overlap))
        if open_to_it.size:
            free[open_to_it[row[open_to_it].argmax()]] = False
            right[number] = True
    return right
