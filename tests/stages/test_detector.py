"""A detector through all commands: its teachers trained from hard labels of positions, classes and boxes stored, students of
both outputs trained, judged and exported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from datasets import Dataset
from torch import Tensor, nn

from softlabels.jobs.run_files import RESULTS
from softlabels_stages import evaluate, export, teacher_logits, train_student, train_teacher

ROWS, P, F = {"train": 80, "test": 40}, 6, 4
NAMES = ["red", "white", "platelet"]


class Detector(nn.Module):
    """Classes and boxes of anchors (B, P, F)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(F, width), nn.Tanh())
        self.of_class, self.of_box = nn.Linear(width, len(NAMES)), nn.Linear(width, 2)

    def forward(self, anchors: Tensor) -> dict[str, Tensor]:
        hidden = self.body(anchors.float())
        return {"class": self.of_class(hidden), "box": self.of_box(hidden)}


def scenes(split: str) -> Dataset:
    """The factory: 3 to P anchors a scene, whose class and box follow from what is seen; a fifth is background, of neither."""
    rng = np.random.default_rng(len(split))
    ways = np.random.default_rng(5).normal(size=(F, len(NAMES) + 2))
    rows: dict[str, list[Any]] = {"anchors": [], "count": [], "kinds": [], "boxes": []}
    for _ in range(ROWS[split]):
        count = int(rng.integers(3, P + 1))
        seen = rng.normal(size=(P, F)).astype(np.float32)
        said, background = np.tanh(seen[:count] @ ways), rng.random(count) < 0.2
        rows["anchors"].append(seen)
        rows["count"].append(count)
        rows["kinds"].append([None if b else int(z[:3].argmax()) for z, b in zip(said, background, strict=True)])
        rows["boxes"].append([None if b else z[3:].tolist() for z, b in zip(said, background, strict=True)])
    return Dataset.from_dict(rows)


def recipe() -> dict[str, Any]:
    training = {
        "epochs": 8, "batch_size": 16, "checkpoint_every": 8, "threads": 1, "device": "cpu",
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}},
    }  # fmt: skip
    member = {"class_path": f"{__name__}.Detector"}
    return {
        "name": "cells",
        "transfer_set": {
            "name": "scenes", "factory": {"class_path": f"{__name__}.scenes"}, "inputs": ["anchors"],
            "positions": {"most": P, "length": "count"}, "splits": {split: split for split in ROWS},
            "label": {"class": {"column": "kinds", "classes": NAMES}, "box": {"column": "boxes", "as": "values"}},
        },
        "teacher": {"members": [{**member, "weights": f"{name}.safetensors"} for name in "ab"], "device": "cpu"},
        "teacher_training": {**training, "targets": {"box": {"weight": 2}}},
        "labels": {
            "targets": {"class": {}, "box": {"kind": "values"}}, "layout": "arrow", "inputs": "embed",
            "rows_per_shard": 32, "rows_per_chunk": 16,
        },
        "student": {**member, "init_args": {"width": 6}},
        "training": {
            **training, "epochs": 3, "temperature": 2, "seeds": [0, 1],
            "targets": {"box": {"loss": "huber", "weight": 2}, "class": {"class_weights": "balanced"}},
        },
    }  # fmt: skip


@pytest.mark.slow
def test_a_detector_from_hard_labels_to_an_exported_student(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(), sort_keys=False))
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    said = capsys.readouterr().out
    assert "\n  class, " in said
    assert " of the validation positions right\n  box, MSE " in said
    assert teacher_logits.main(["--config=recipe.yaml", "--store=store"]) == 0
    capsys.readouterr()

    assert train_student.main(["--config=recipe.yaml", "--store=store", "--out=run"]) == 0
    out = capsys.readouterr().out
    assert out.index("class: the largest output") < out.index("\nclass\n") < out.index("\nbox\n")
    results = json.loads(Path("run", RESULTS).read_text())
    ensemble = results["teacher"]["ensemble"][0]["targets"]
    assert ensemble["class"]["accuracy"] > 0.75
    assert ensemble["box"]["r2"] > 0.5
    hard, distilled = (student["scores"][0]["targets"] for student in results["students"])
    assert {*hard} == {*distilled} == {"class", "box"}
    card = Path("run/README.md").read_text()
    assert "Gives of `class` the logits of 3 classes (red, white, platelet)" in card
    assert "`box`: hard weight 0.1, soft weight 0.9, loss `huber`, times 2" in card
    assert "### class" in card

    assert evaluate.main(["--store=store"]) == 0
    said = capsys.readouterr().out
    assert said.index("class\n") < said.index("errors") < said.index("box\n") < said.index("RMSE")
    assert evaluate.main(["run/distilled-seed1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["targets"]
    mine = results["students"][1]["scores"][1]["targets"]
    assert again["box"] == mine["box"]
    assert again["class"]["errors"] == mine["class"]["errors"]
    assert again["class"]["kl"]["2"] == mine["class"]["kl"]["2"]

    assert export.main(["run/distilled-seed1", "--rows=20"]) == 0
    assert "same class on 100.00%" in capsys.readouterr().out
    session = onnxruntime.InferenceSession("run/distilled-seed1/student.onnx")
    assert [output.name for output in session.get_outputs()] == ["class", "box"]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["softlabels.outputs"]) == {"class": "class", "box": "box"}
    assert json.loads(facts["softlabels.class_names"]) == {"class": NAMES, "box": None}
    inputs = np.zeros((3, P, F), np.float32)
    program = torch.export.load("run/distilled-seed1/student.pt2").module()(torch.from_numpy(inputs))
    for name, found in zip(("class", "box"), session.run(None, {"inputs": inputs}), strict=True):
        np.testing.assert_allclose(found, program[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("teacher_training", "loss", "mse"), "target class: the loss"),
        (
            ("teacher_training", "targets", {"boxes": {}}),
            "training.targets names boxes, and the targets are class, box",
        ),
        (("transfer_set", "positions", {"most": 4, "length": "count"}), "transfer_set.positions allows 1 to 4"),
        (("transfer_set", "positions", P), "labels in column 'kinds' and 6 positions"),
    ],
)
def test_what_is_refused(change: tuple[str, str, Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    section, name, value = change
    changed = recipe()
    changed[section][name] = value
    if value == "mse":
        changed[section]["targets"] = {"class": {"loss": "mse"}}
    Path("recipe.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    assert train_teacher.main(["--config=recipe.yaml"]) == 2
    assert message in capsys.readouterr().err
