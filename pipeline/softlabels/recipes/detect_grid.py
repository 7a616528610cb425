"""The grid of a single-shot detector: objects to a class and a box a cell, and what a network says of the cells to objects.

A cell is a square of `STRIDE` pixels of the resized image, one position of the labels. Where its centre (cx, cy) lies near that
of an object, (x, y), within a quarter of the object's width w and height h or half a cell, the cell has the object's class and
box, of several objects those of the nearest; elsewhere it is background, the last class, and has no box. A box is four numbers
around 0, and an error in one of them is relative to the object's size:

    (x - cx) / w, (y - cy) / h, log(w / SIZE), log(h / SIZE)

P cells, row by row; N objects or detections; C classes, background among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STRIDE = 8  # pixels of a cell
SIZE = 24.0  # pixels: about what a red cell measures
_NEAR = 0.25  # of width and height: how far from an object's centre a cell still has its class and box
_LOG_SIZE = 3.0  # a decoded box has at most 20 times SIZE

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Objects:
    """The objects of an image, or what a detector found in it.

    Attributes:
        classes: (N,) int64.
        boxes: (N, 4) float32, corners (left, top, right, bottom) in pixels of the resized image.
        scores: (N,) float32; of objects 1.
    """

    classes: Ints
    boxes: Floats
    scores: Floats


def centres(height: int, width: int) -> Floats:
    """(P, 2): x and y of the cells of an image of this size."""
    down, right = (np.arange(STRIDE / 2, size, STRIDE, dtype=np.float32) for size in (height, width))
    return np.stack([np.tile(right, len(down)), np.repeat(down, len(right))], axis=1)


def to_cells(objects: Objects, cells: Floats, *, background: int) -> tuple[Ints, Floats]:
    """Class (P,) and box (P, 4) of each cell, NaN where it is background."""
    classes, boxes = np.full(len(cells), background, np.int64), np.full((len(cells), 4), np.nan, np.float32)
    if not len(objects.boxes):
        return classes, boxes
    middle, size = _middle_and_size(objects.boxes)  # (N, 2) each
    away = np.abs(cells[:, None] - middle)  # (P, N, 2)
    nearest = (away / size).max(axis=2).argmin(axis=1)  # (P,)
    cell = np.arange(len(cells))
    away, middle, size = away[cell, nearest], middle[nearest], size[nearest]  # (P, 2) each
    is_near = (away <= np.maximum(_NEAR * size, STRIDE / 2)).all(axis=1)
    classes[is_near] = objects.classes[nearest][is_near]
    coded = np.concatenate([(middle - cells) / size, np.log(size / SIZE)], axis=1)
    boxes[is_near] = coded[is_near]
    return classes, boxes


def from_cells(
    probabilities: Floats, boxes: Floats, cells: Floats, *, least: float = 0.02, overlap: float = 0.5
) -> Objects:
    """The objects that a detector found in an image, best first. Arguments: `found_cells`."""
    return found_cells(probabilities, boxes, cells, least=least, overlap=overlap)[1]


def found_cells(
    probabilities: Floats, boxes: Floats, cells: Floats, *, least: float, overlap: float
) -> tuple[Ints, Objects]:
    """The cells (N,) in which a detector found objects, and these, best first.

    Args:
        probabilities: (P, C) of each cell's class, background last.
        boxes: (P, 4) as `to_cells` codes them.
        cells: (P, 2) as `centres` gives them.
        least: score below which nothing was found.
        overlap: of two boxes of a class that overlap more (intersection over union) the one with the lower score goes.
    """
    cell, found = np.nonzero(probabilities[:, :-1] >= least)  # (N,) each
    size = np.exp(np.minimum(boxes[:, 2:], _LOG_SIZE)) * SIZE
    middle = boxes[:, :2] * size + cells
    corners = np.concatenate([middle - size / 2, middle + size / 2], axis=1)[cell].astype(np.float32)
    scores = probabilities[cell, found].astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    kept = order[_survivors(corners[order], found[order], overlap)]
    return cell[kept], Objects(found[kept], corners[kept], scores[kept])


def overlaps(left: Floats, right: Floats) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (K, 4): (N, K); 0 of boxes without an area."""
    a, b = left.astype(np.float64)[:, None], right.astype(np.float64)[None]
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=2)
    union = (a[..., 2:] - a[..., :2]).prod(axis=2) + (b[..., 2:] - b[..., :2]).prod(axis=2) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return ratio


def _survivors(boxes: Floats, classes: Ints, overlap: float) -> Ints:
    """Numbers of the boxes, best first, that no better one of their class covers."""
    rivals = (overlaps(boxes, boxes) > overlap) & (classes[:, None] == classes)  # (N, N)
    alive = np.ones(len(boxes), bool)
    for number in range(len(boxes)):
        if alive[number]:
            alive[number + 1 :] &= ~rivals[number, number + 1 :]
    return np.flatnonzero(alive)


def _middle_and_size(boxes: Floats) -> tuple[Floats, Floats]:
    left_top, right_bottom = boxes[:, :2], boxes[:, 2:]
    return (left_top + right_bottom) / np.float32(2), right_bottom - left_top
