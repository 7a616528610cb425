"""Several targets of rows of positions through the commands: a detector's classes and boxes from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from torch import Tensor, nn

from softlabels.models import build_model, save_weights
from softlabels.store import open_store
from softlabels.store.verify import verify as problems
from softlabels.teacher.config import MemberConfig
from softlabels_stages import teacher_logits, verify

ROWS, P, F, C = {"train": 70, "test": 30}, 6, 5, 3
NAMES = ["rbc", "wbc", "platelets"]
_scale = [1.0]  # of boxes: what a change of code does


class Detector(nn.Module):
    """Classes and boxes of anchors (B, P, F), and features that nobody asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.of_class, self.of_box = nn.Linear(F, C), nn.Linear(F, 4)

    def forward(self, anchors: Tensor) -> dict[str, Tensor]:
        anchors = anchors.float()
        return {"class": 4 * self.of_class(anchors), "box": _scale[0] * self.of_box(anchors), "features": anchors}


def cells(split: str) -> dict[str, np.ndarray]:
    """Anchors, their classes (-1: background) and boxes, NaN of background."""
    rng = np.random.default_rng(len(split))
    labels = rng.integers(-1, C, (ROWS[split], P))
    boxes = np.where(labels[..., None] < 0, np.nan, rng.normal(size=(ROWS[split], P, 4))).astype(np.float32)
    return {"anchors": rng.normal(size=(ROWS[split], P, F)).astype(np.float32), "kinds": labels, "boxes": boxes}


def scenes(split: str) -> Dataset:
    """The factory of the transfer set."""
    found = {name: values.tolist() for name, values in cells(split).items()}
    boxes = [[None if np.isnan(box[0]) else box for box in row] for row in found["boxes"]]
    return Dataset.from_dict(found | {"boxes": boxes})


def write_recipe(**changes: Any) -> None:
    members = []
    for number in range(3):
        member = {"class_path": f"{__name__}.Detector", "weights": f"member-{number}.safetensors"}
        torch.manual_seed(number)
        if not Path(member["weights"]).exists():
            save_weights(build_model(MemberConfig(member["class_path"]).model), Path(member["weights"]))
        members.append(member)
    box = {"kind": "values", "dtype": "float16", "classes": ["x", "y", "w", "h"]}
    recipe: dict[str, Any] = {
        "name": "cells",
        "transfer_set": {
            "name": "scenes", "factory": {"class_path": f"{__name__}.scenes"}, "inputs": ["anchors"], "positions": P,
            "label": {"class": {"column": "kinds", "classes": NAMES}, "box": {"column": "boxes", "as": "values"}},
            "splits": {split: split for split in ROWS},
        },
        "teacher": {"name": "detector", "members": members, "batch_size": 8, "device": "cpu"},
        "labels": {"targets": {"class": {}, "box": box}, "rows_per_shard": 32, "rows_per_chunk": 16},
    }  # fmt: skip
    for name, value in changes.items():
        recipe["labels"]["targets"]["box"][name] = value
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def run(capsys: pytest.CaptureFixture[str], *words: str, command: Any = teacher_logits) -> tuple[int, str, str]:
    code = command.main([*words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_detector_from_its_recipe(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe()
    code, out, err = run(capsys, "--config=recipe.yaml", "--store=store")
    assert (code, err) == (0, "")
    assert "detector: 3 members in float32, class: 3 classes, box: 4 values; scenes: train 70, test 30 rows" in out
    assert "the teacher also gives features, which no target of labels.targets stores" in out
    for split in ROWS:
        store, rows = open_store("store", split=split), cells(split)
        assert (store.targets, store.positions, problems(store.folder)) == (("class", "box"), P, [])
        np.testing.assert_array_equal(store.column("class.label"), rows["kinds"])
        np.testing.assert_array_equal(store.column("box.label"), rows["boxes"])
        assert store.only("class").class_names == tuple(NAMES)
        with torch.inference_mode():
            members = [
                build_model(MemberConfig(f"{__name__}.Detector", {}, f"member-{n}.safetensors").model)
                for n in (0, 1, 2)
            ]
            boxes = np.mean([model(torch.tensor(rows["anchors"]))["box"].double().numpy() for model in members], axis=0)
        np.testing.assert_allclose(store.only("box").values(range(store.rows)), boxes, atol=2e-3)
    code, out, err = run(capsys, "store", "--against_teacher=recipe.yaml", "--teacher_rows=20", command=verify)
    assert (code, err) == (0, "")
    for split in ROWS:
        for name, words in (("class", "same top class 100.00%"), ("box", "of its output's root mean square")):
            assert any(
                line.startswith(f"{split}: {name}: ") or (f"target {name}: " in line and words in line)
                for line in out.splitlines()
            )
    _scale[0] = 1.02
    try:
        code, out, err = run(capsys, "store", "--against_teacher=recipe.yaml", "--teacher_rows=20", command=verify)
    finally:
        _scale[0] = 1.0
    assert code == 3
    assert "train: target box: the teacher does not give the stored values; check preprocessing and versions" in err
    assert "target class" not in err

    write_recipe(dtype="float32")
    code, _, err = run(capsys, "--config=recipe.yaml", "--store=store")
    assert code == 2
    assert '(labels.targets.box.dtype: "float16" here, "float32" in this run)' in err
