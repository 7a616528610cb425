"""Images with objects in them as rows of cells: the factory of the recipe `detect`.

A source has the columns of detection sets on the hub: `image`, and `objects` with `bbox` (left, top, width, height in pixels)
and `category`. Rows that come out have `image` (3, H, W) uint8, resized, and `class` and `box` of each cell (`detect_grid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from softlabels.errors import TransferSetError, some
from softlabels.recipes.detect_grid import STRIDE, Objects, centres, to_cells
from softlabels.transfer.columns import class_names_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import file_bytes
from softlabels.transfer.images import decode_image
from softlabels.transfer.source import open_split

CLASSES = ("RBC", "WBC", "Platelets")  # background follows them


def cell_rows(split: str, *, source: str, size: Sequence[int], classes: Sequence[str] = CLASSES) -> Dataset:
    """The rows of a split: `image` (3, H, W) uint8; `class` (P,) int64; `box` (P, 4) float32, null where there is none.

    Args:
        split: its name in the source.
        source: hub id, or local folder or file.
        size: H and W of the resized images, multiples of 8 pixels.
        classes: names of the classes, in the order of the labels; objects of others are left out.

    Raises:
        TransferSetError: a source that cannot be opened, lacks a column, or does not name these classes.
    """
    height, width = size
    pictures, objects = images_and_objects(split, source=source, size=size, classes=classes)
    cells = centres(height, width)
    labels = [to_cells(each, cells, background=len(classes)) for each in objects]
    own, boxes = np.concatenate([each for each, _ in labels]), np.concatenate([box for _, box in labels])  # (R P, ...)
    columns = {
        "image": _lists(pa.array(pictures.reshape(-1)), *pictures.shape[:0:-1]),
        "class": _lists(pa.array(own), len(cells)),
        "box": _lists(_lists(pa.array(boxes.reshape(-1)), 4, none=own == len(classes)), len(cells)),
    }
    return Dataset(pa.table(columns), fingerprint="factory")


def images_and_objects(
    split: str, *, source: str, size: Sequence[int], classes: Sequence[str] = CLASSES
) -> tuple[NDArray[np.uint8], list[Objects]]:
    """The resized images (R, 3, H, W) of a split, and the objects in each, in its pixels. Arguments and errors: `cell_rows`."""
    if len(size) != 2 or any(side < STRIDE or side % STRIDE for side in size):
        raise TransferSetError(f"size is {list(size)}", remedy=f"give height and width, multiples of {STRIDE} pixels")
    columns = ("image", "objects.bbox", "objects.category")
    opened = open_split(TransferSetConfig(source=source, inputs=columns, label=None, splits={split: split}), split)
    numbers = _numbers(opened.data, classes, source)
    pictures, objects = [], []
    for row in opened.data.with_format("arrow").to_list():
        picture = PIL.Image.fromarray(np.asarray(decode_image(file_bytes(row["image"]))[0])).convert("RGB")
        pictures.append(np.asarray(picture.resize((size[1], size[0]), PIL.Image.Resampling.BOX)).transpose(2, 0, 1))
        objects.append(_scaled(row["objects"], numbers, (size[1] / picture.width, size[0] / picture.height)))
    return np.stack(pictures), objects


def _numbers(data: Dataset, classes: Sequence[str], source: str) -> dict[int, int]:
    """Number of a class in the source -> here."""
    names = class_names_at(data.features, "objects.category") or ()
    if unknown := [name for name in classes if name not in names]:
        raise TransferSetError(
            f"{source} has no class {some(unknown)} in objects.category",
            remedy=f"its classes are {some(names)}; name those in classes",
        )
    return {names.index(name): number for number, name in enumerate(classes)}


def _scaled(objects: dict[str, Any], numbers: dict[int, int], scale: tuple[float, float]) -> Objects:
    """The objects of known classes and of some size, in pixels of the resized image."""
    boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4)
    category = np.asarray(objects["category"], np.int64)
    kept = np.isin(category, list(numbers)) & (boxes[:, 2:] > 0).all(axis=1)
    boxes = boxes[kept] * np.array([*scale, *scale], np.float32)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    classes = np.array([numbers[int(each)] for each in category[kept]], np.int64)
    return Objects(classes, corners, np.ones(len(classes), np.float32))


def _lists(values: pa.Array, *lengths: int, none: NDArray[np.bool_] | None = None) -> pa.Array:
    """Lists of these lengths, from the innermost outwards; null where there is `none`."""
    for length in lengths:
        mask = None if none is None else pa.array(none)
        values = pa.FixedSizeListArray.from_arrays(values, length, mask=mask)
    return values
