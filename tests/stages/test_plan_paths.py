"""plan of the teachers, rows and labels that its other tests lack: what it says of bytes, beside the pass itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from softlabels.models import save_weights
from softlabels_stages import plan, teacher_logits, train_teacher
from tests.stages import lm, test_folds, test_served_recipe, test_topk_recipe, toy
from tests.stages.test_plan import files
from tests.teacher.stand_in import StandIn

recipe, server = test_served_recipe.recipe, test_served_recipe.server  # fixtures


class Two(nn.Module):
    """A teacher of two targets, one of more classes than its topk labels keep."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.word = nn.Linear(toy.FEATURES, toy.CLASSES), nn.Linear(toy.FEATURES, 40)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(inputs), "word": self.word(inputs)}


def planned(capsys: pytest.CaptureFixture[str], *words: str, store: str = "beside") -> dict[str, Any]:
    """What `plan` says, whose bytes of the recipe's own way are those of the pass."""
    capsys.readouterr()
    assert plan.main(["--config=recipe.yaml", "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert teacher_logits.main(["--config=recipe.yaml", f"--store={store}"]) == 0
    [own] = [each for each in found["sizes"] if each["is_own"]]
    assert own["bytes"] == pytest.approx(files(Path(store)), rel=0.1)
    return found


def test_a_served_teacher(recipe: dict[str, Any], server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_teacher.main(["--config=recipe.yaml"]) == 0  # its tokenizer
    server.model = test_served_recipe.table(len(AutoTokenizer.from_pretrained("own/tokenizer")))
    test_topk_recipe.write(recipe | {"student": None})
    found = planned(capsys, "--rows=20")
    assert found["pilot"]["train"] == 20 < found["data"]["rows"]["train"]
    assert [each["name"] for each in found["sizes"]] == ["topk, k=6"] * 2  # it gives no others
    assert found["flatness"] is None
    assert "the rate of the server under another load" in found["unknown"]


@pytest.mark.slow
def test_folds_and_a_store_that_holds_its_inputs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows are in the pilot, but for those that are there twice: they are fewer than it would take."""
    teacher = {"members": [toy.NET], "folds": test_folds.FOLDS, "batch_size": 32}
    sizes = {}
    for inputs in ("reference", "embed"):
        test_folds.write(labels={"inputs": inputs}, teacher=teacher, student=None)
        if inputs == "reference":
            assert train_teacher.main(["--config=recipe.yaml"]) == 0
        found = planned(capsys, store=inputs)
        sizes[inputs] = found["sizes"][0]["bytes"]
        assert found["teacher"]["folds"]
        assert "out of fold" not in " ".join(found["unknown"])
    rows = sum(found["data"]["rows"].values())
    assert found["pilot"] == {"test": 72, "train": 144}
    assert sizes["embed"] - sizes["reference"] >= 4 * toy.FEATURES * rows


@pytest.mark.slow
def test_rows_of_tokens_that_are_ragged(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm.write_texts(work / "texts")
    made = test_topk_recipe.ready(labels={"encoding": "topk", "k": 4, "rank": 4, "layout": "arrow"}, student=None)
    made["transfer_set"]["sequences"]["pack"] = False
    test_topk_recipe.write(made)
    found = planned(capsys, "--rows=100")
    assert found["pilot"]["train"] < found["data"]["rows"]["train"]


def test_several_targets_of_which_one_is_topk(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    save_weights(Two(), work / "two.safetensors")
    member = {"class_path": f"{__name__}.Two", "weights": "two.safetensors"}
    targets = {"kind": {}, "word": {"encoding": "topk", "k": 4, "rank": 4}}
    toy.write_recipe(
        work / "recipe.yaml",
        teacher={"members": [member], "device": "cpu"},
        labels={"targets": targets},
        transfer_set=toy.recipe()["transfer_set"]
        | {"label": {"kind": {"column": "label", "classes": toy.NAMES}}, "classes": None},
        student=None,
    )
    found = planned(capsys, "--rows=64")
    assert {each["name"] for each in found["sizes"]} == {"as the recipe says"}
