"""The recipe `detect`: objects to cells and back, average precision against a plain definition, rows of a detection set."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pytest
import torch

from softlabels.errors import TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.recipes.detect_ap import average_precisions
from softlabels.recipes.detect_grid import Objects, centres, from_cells, overlaps, to_cells
from softlabels.recipes.detect_model import Detector
from softlabels.recipes.detect_rows import cell_rows
from softlabels.transfer import TransferSetConfig, load_transfer_set

CLASSES = 3
Columns = dict[str, list[Any]]
NAMES = ["Platelets", "other", "RBC", "WBC"]  # in another order than ours, and one more


def some_objects(rng: np.random.Generator, count: int, *, side: int = 64) -> Objects:
    """Boxes of whole pixels, with scores of which some are alike."""
    corner = rng.integers(0, side - 24, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(6, 24, (count, 2))], axis=1).astype(np.float32)
    return Objects(rng.integers(0, CLASSES, count), boxes, rng.integers(1, 9, count).astype(np.float32) / 8)


def moved(objects: Objects, rng: np.random.Generator) -> Objects:
    """Most of them, a few pixels away, some of another class, with scores of their own."""
    kept = rng.random(len(objects.classes)) < 0.8
    boxes = objects.boxes[kept] + rng.integers(-2, 3, (kept.sum(), 4)).astype(np.float32)
    classes = np.where(rng.random(kept.sum()) < 0.2, rng.integers(0, CLASSES, kept.sum()), objects.classes[kept])
    return Objects(classes, boxes, rng.random(kept.sum()).astype(np.float32))


def plain_overlap(a: list[int], b: list[int]) -> Fraction:
    """By counting pixels, which boxes of whole pixels are made of."""
    ours, theirs = ({(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b))
    return Fraction(len(ours & theirs), len(ours | theirs)) if ours | theirs else Fraction(0)


def plain_ap(found: list[Objects], there: list[Objects], number: int) -> float:
    """The definition, detection by detection, recall by recall."""
    detections = [
        (-float(score), image, box.astype(int).tolist())
        for image, each in enumerate(found)
        for score, box, own in zip(each.scores, each.boxes, each.classes, strict=True)
        if own == number
    ]
    free = [[box.astype(int).tolist() for box in each.boxes[each.classes == number]] for each in there]
    objects = sum(map(len, free))
    right, points = 0, []
    for rank, (_, image, box) in enumerate(sorted(detections, key=lambda each: each[:2]), start=1):
        best = max(free[image], key=lambda other: plain_overlap(box, other), default=None)
        if best is not None and plain_overlap(box, best) >= Fraction(1, 2):
            free[image].remove(best)
            right += 1
        points.append((Fraction(right, objects), Fraction(right, rank)))
    wanted = [Fraction(step, 100) for step in range(101)]
    return float(sum(max((p for r, p in points if r >= recall), default=Fraction(0)) for recall in wanted) / 101)


def test_average_precision_is_that_of_the_definition(rng: np.random.Generator) -> None:
    there = [some_objects(rng, count) for count in (7, 0, 12, 4, 9)]
    found = [moved(each, rng) for each in there]
    ours = average_precisions(found, there, classes=CLASSES + 1)
    assert np.isnan(ours[CLASSES])  # nothing of that class is there
    np.testing.assert_allclose(ours[:CLASSES], [plain_ap(found, there, each) for each in range(CLASSES)], atol=1e-12)
    assert (ours[:CLASSES] > 0).all()
    assert (ours[:CLASSES] < 1).all()
    np.testing.assert_array_equal(average_precisions(there, there, classes=CLASSES), 1.0)


def test_a_second_find_of_one_object_is_wrong() -> None:
    box, score = np.array([[0, 0, 10, 10]], np.float32), np.ones(1, np.float32)
    there = [Objects(np.zeros(1, np.int64), box, score)]
    twice = [Objects(np.zeros(3, np.int64), np.repeat(box, 3, axis=0), np.float32([0.9, 0.8, 0.7]))]
    both = [Objects(np.zeros(2, np.int64), np.float32([[0, 0, 10, 10], [50, 50, 60, 60]]), np.ones(2, np.float32))]
    assert average_precisions(twice, there, classes=1).tolist() == [1.0]  # the first is right, and recall is 1 with it
    assert average_precisions(twice, both, classes=1).tolist() == [pytest.approx(51 / 101)]


def test_overlaps_count_pixels(rng: np.random.Generator) -> None:
    a, b = some_objects(rng, 9).boxes, some_objects(rng, 7).boxes
    plain = [[float(plain_overlap(x, y)) for y in b.astype(int).tolist()] for x in a.astype(int).tolist()]
    np.testing.assert_allclose(overlaps(a, b), plain, atol=1e-12)


def test_cells_say_what_is_there(rng: np.random.Generator) -> None:
    """Objects that are apart come back from the cells' labels, each once though several cells have it."""
    corner = np.stack(np.meshgrid([3, 46, 89], [5, 50]), axis=-1).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + rng.integers(9, 40, (6, 2))], axis=1).astype(np.float32)
    there = Objects(rng.integers(0, CLASSES, 6), boxes, np.ones(6, np.float32))
    cells = centres(96, 136)
    assert cells.shape == (12 * 17, 2)
    assert cells[18].tolist() == [12, 12]
    classes, coded = to_cells(there, cells, background=CLASSES)
    assert (np.isfinite(coded).all(axis=1) == (classes < CLASSES)).all()
    assert 6 <= (classes < CLASSES).sum() < 60
    found = from_cells(np.eye(CLASSES + 1, dtype=np.float32)[classes], np.nan_to_num(coded), cells)
    assert len(found.classes) == 6
    order = [int(np.abs(found.boxes - box).sum(axis=1).argmin()) for box in boxes]
    np.testing.assert_allclose(found.boxes[order], boxes, atol=1e-4)
    np.testing.assert_array_equal(found.classes[order], there.classes)


def test_an_image_without_objects_is_background() -> None:
    none = Objects(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    classes, coded = to_cells(none, centres(16, 24), background=2)
    assert classes.tolist() == [2] * 6
    assert np.isnan(coded).all()
    assert not len(from_cells(np.float32([[0, 0, 1]] * 6), np.nan_to_num(coded), centres(16, 24)).classes)


def test_a_detector_says_something_of_each_cell() -> None:
    model = Detector([4, 4, 6], classes=4, reach=[1, 2]).eval()
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    found = model(images)
    assert {name: tuple(each.shape) for name, each in found.items()} == {"class": (2, 35, 4), "box": (2, 35, 4)}
    torch.testing.assert_close(model(images.float())["box"], found["box"])


def write_cells(
    folder: Path, rng: np.random.Generator, rows: int, names: list[str] = NAMES, *, split: str = "train"
) -> tuple[list[Columns], list[bytes]]:
    """A detection set of the hub's columns in `folder`; the objects of its rows, and their files."""
    objects: list[Columns] = []
    pictures = []
    for _ in range(rows):
        pixels = np.full((48, 64, 3), 200, np.uint8)
        each: Columns = {"bbox": [], "category": []}
        for _ in range(int(rng.integers(1, 4))):
            x, y, side = int(rng.integers(0, 40)), int(rng.integers(0, 24)), int(rng.integers(8, 20))
            pixels[y : y + side, x : x + side, :2] = 40
            each["bbox"].append([x, y, side, side])
            each["category"].append(int(rng.integers(0, len(names))))
        data = io.BytesIO()
        PIL.Image.fromarray(pixels).save(data, "PNG")
        pictures.append({"bytes": data.getvalue(), "path": None})
        objects.append(each)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "objects": {
                "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
                "category": datasets.List(datasets.ClassLabel(names=names)),
            },
        }
    )
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict({"image": pictures, "objects": objects}, features=features)
    table.to_parquet(folder / f"{split}.parquet")
    return objects, [each["bytes"] for each in pictures]


def test_rows_of_a_detection_set(tmp_path: Path, rng: np.random.Generator) -> None:
    objects, pictures = write_cells(tmp_path / "cells", rng, 6)
    factory = ObjectSpec(
        "softlabels.recipes.detect_rows.cell_rows", {"source": str(tmp_path / "cells"), "size": [24, 32]}
    )
    label = {"class": "class", "box": {"column": "box", "as": "values"}}
    config = TransferSetConfig(factory=factory, label=label, positions=12)  # half of their size
    rows = load_transfer_set(config, "train")
    assert (rows.inputs.dtype, rows.inputs.shape) == (np.uint8, (6, 3, 24, 32))
    corner = PIL.Image.open(io.BytesIO(pictures[0])).resize((32, 24), PIL.Image.Resampling.BOX)
    np.testing.assert_array_equal(rows.inputs[0].transpose(1, 2, 0), np.asarray(corner))
    ours = {2: 0, 3: 1, 0: 2}  # RBC, WBC, Platelets
    for row, each in enumerate(objects):
        known = [(ours[c], box) for c, box in zip(each["category"], each["bbox"], strict=True) if c in ours]
        boxes = np.array([[x, y, x + w, y + h] for _, (x, y, w, h) in known], np.float32).reshape(-1, 4) / 2
        there = Objects(np.array([c for c, _ in known], np.int64), boxes, np.ones(len(known), np.float32))
        classes, coded = to_cells(there, centres(24, 32), background=3)
        np.testing.assert_array_equal(rows.hard["class"][row], classes)
        np.testing.assert_array_equal(rows.hard["box"][row], coded)


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (["RBC", "WBC"], [24, 32], r"has no class Platelets in objects\.category; its classes are"),
        (NAMES, [24, 30], r"size is \[24, 30\]; give height and width, multiples of 8 pixels"),
    ],
)
def test_what_is_refused(
    names: list[str], size: list[int], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_cells(tmp_path / "cells", rng, 2, names)
    with pytest.raises(TransferSetError, match=message):
        cell_rows("train", source=str(tmp_path / "cells"), size=size)
