"""What a recipe's function may say of boxes, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softlabels import write_store
from softlabels.errors import ConfigError
from softlabels.jobs.report import report
from softlabels.objects import ObjectSpec
from softlabels.pages.boxes import MOST, Boxes
from softlabels_stages.run import PRINTED
from tests.pages.looked_rows import looked_rows

P, C = 6, 3
GOOD = {"position": np.array([4, 1]), "class": np.array([2, 0]), "box": [[0, 0.25, 0.5, 0.125], [0.1, -0.1, 1, 1]]}


def found(said: Any, counts: np.ndarray | None = None) -> list[list[float]]:
    scores = np.arange(P * C, dtype=np.float32).reshape(P, C) / 100
    finder = Boxes(lambda outputs: said(outputs) if callable(said) else said, "mine.find")
    return finder.of(
        {"class": scores}, np.ones(P, np.bool_) if counts is None else counts, scores, "the ensemble, row 7"
    )


def test_boxes_come_by_their_scores() -> None:
    assert found(GOOD) == [[4, 2, 0, 0.25, 0.5, 0.125], [1, 0, 0.1, -0.1, 1, 1]]
    turned = {name: [*values][::-1] for name, values in GOOD.items()}
    assert found(turned) == found(GOOD)
    assert found({"position": [], "class": [], "box": []}) == []
    assert found(lambda outputs: GOOD if outputs["class"].fill(0) is None else {}) == found(GOOD)  # it gets a copy
    many = {"position": [3] * 150, "class": [0] * 150, "box": np.zeros((150, 4))}
    assert len(found(many)) == MOST


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "gives NoneType, expected a mapping of position, class, box"),
        ({"box": GOOD["box"]}, "gives a mapping of box, expected a mapping of position, class, box"),
        (GOOD | {"box": [[0, 0, 1], [1]]}, "gives box that is no array: ValueError: setting an array element"),
        (GOOD | {"class": torch.ones(2, requires_grad=True)}, "gives class that is no array: RuntimeError: Can't call"),
        (GOOD | {"class": [0]}, "gives 2 positions, 1 classes and 2 boxes"),
        (GOOD | {"class": [0, 3]}, "gives class 3, and there are 3"),
        (GOOD | {"class": [0.5, 1]}, r"gives class float64 \[2\], expected whole numbers \(B,\)"),
        (GOOD | {"position": [-1, 0]}, "gives position -1, and there are 6"),
        (GOOD | {"position": [5, 0]}, "gives a box for position 5, which does not count"),
        (GOOD | {"box": np.zeros((2, 3))}, r"gives box float64 \[2, 3\], expected numbers \(B, 4\)"),
        (GOOD | {"box": [["a"] * 4] * 2}, r"gives box <U1 \[2, 4\], expected numbers"),
        (GOOD | {"box": [[0, 0, 1, 1], [0, np.nan, 1, 1]]}, r"gives box 1, \[0.0, nan, 1.0, 1.0\], which is not finite"),
        (GOOD | {"box": [[0, 0, 1, 1], [0, 0, -0.1, 1]]}, r"gives box 1, .* which has a negative width or height"),
        (GOOD | {"box": [[31, 20, 8, 8], [0, 0, 1, 1]]}, "gives box 0, .* are parts of the picture, not pixels"),
        (lambda outputs: outputs["boxes"], "fails: KeyError: 'boxes'"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(said: Any, message: str) -> None:
    counts = np.arange(P) < 5
    with pytest.raises(
        ConfigError, match=f"^boxes: mine.find {message}.*row 7\\); correct the function that the recipe's"
    ):
        found(said, counts)


def test_positions_with_a_box_are_on_the_page(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of rows with more positions than a page shows; and boxes are those of the first target of distributions."""
    store = write_store(
        tmp_path / "test",
        rng.normal(size=(2, 1500, 3)),
        positions=1500,
        inputs=rng.integers(0, 256, (2, 3, 8, 8), np.uint8),
    )
    boxes = Boxes(lambda outputs: {"position": [1400], "class": [1], "box": [[0, 0, 1, 1]]}, "mine")
    (section,) = looked_rows({"test": store}, boxes=boxes)
    places = np.frombuffer(base64.b64decode(section.data["places"]["base64"]), "<i4")
    for row, start, stop in zip(section.data["rows"], section.data["starts"], section.data["starts"][1:], strict=False):
        assert stop - start == 1024
        assert 1400 in places[start:stop]
        assert row["boxes"] == [None, [[1400, 1, 0, 0, 1, 1]]]  # there are no hard labels
    assert "Boxes are what mine finds" in section.html
    (plain,) = looked_rows({"test": store})
    assert all("boxes" not in row for row in plain.data["rows"])


def test_where_none_can_be_drawn_a_line_says_so(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(
        tmp_path / "a/test", rng.normal(size=(2, 9, 3)), positions=9, keys=rng.integers(0, 256, (2, 16), np.uint8)
    )
    (section,) = looked_rows(
        {"test": store}, boxes=Boxes(lambda outputs: {"position": [], "class": [], "box": []}, "mine")
    )
    assert "No boxes are drawn: these rows have no picture." in section.html
    whole = write_store(tmp_path / "b/test", rng.normal(size=(4, 3)), keys=rng.integers(0, 256, (4, 16), np.uint8))
    report(
        tmp_path / "b",
        out=tmp_path / "b.html",
        boxes=ObjectSpec("softlabels.recipes.cell_boxes", {"size": [8, 8]}),
        watch=PRINTED,
    )
    assert whole.positions is None
    assert "no boxes are drawn: the store has no positions with classes" in capsys.readouterr().err
