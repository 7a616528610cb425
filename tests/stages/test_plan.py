"""plan from the outside: what it says, against the pass itself; what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softlabels.jobs import plan_students
from softlabels.models import save_weights
from softlabels_stages import plan, teacher_logits
from tests.stages import toy
from tests.stages.test_teacher_logits import write_recipe

ROWS = {"train": 240, "validation": 40, "test": 120}
CENTRES = np.random.default_rng(5).normal(0, 1.5, (toy.CLASSES, toy.FEATURES))


class Knows(nn.Module):
    """A teacher that knows the centres of the toy's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor(CENTRES, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        return -torch.cdist(inputs, self.centres).square() / 2


def write(path: Path, **changes: Any) -> Path:
    """A recipe with that teacher, and students of 100 steps or so."""
    save_weights(Knows(), path.parent / "knows.safetensors")
    member = {"class_path": f"{__name__}.Knows", "weights": "knows.safetensors"}
    teacher = {"name": "knows", "members": [member], "batch_size": 32, "device": "cpu"}
    return toy.write_recipe(path, **{"teacher": teacher} | changes)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """More of them, and one of test that train has too."""
    for split, count in ROWS.items():
        monkeypatch.setitem(toy.ROWS, split, count)
    return


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pilot's stores are while it works."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_it_says_is_what_the_pass_takes(
    rows: None, work: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_students, "STEPS", (40, 100))
    monkeypatch.setattr(plan_students, "GROUPS", 4)
    write(work / "recipe.yaml")
    before = {path.name for path in work.iterdir()}
    assert plan.main(["recipe.yaml", "--json", "--rows=64"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {path.name for path in work.iterdir()} - before == {"cache"}
    assert list(scratch.glob("softlabels-*")) == []
    assert found["pilot"] == {"test": 64, "train": 64, "validation": 40}
    assert found["data"]["rows"] == {"test": 120, "train": 240, "validation": 40}
    assert found["teacher"]["split"] == "test"
    assert found["teacher"]["held_out"]["accuracy"] > 0.8

    gain = found["gain"]
    assert (gain["groups"], gain["rows"], gain["held_out"]) == (4, 16, 64)  # of which all groups are judged on all
    assert gain["interval"]["low"] < gain["hard"] - gain["distilled"] < gain["interval"]["high"]
    assert list(gain["temperatures"]) == ["4", "1", "2", "8"]
    assert found["verdict"].startswith(("go: ", "settle first: "))

    own, other = found["sizes"]
    assert (own["name"], own["layout"], own["is_own"], other["layout"]) == ("dense", "zarr", True, "arrow")
    for size in (own, other):
        assert (
            teacher_logits.main(
                ["--config=recipe.yaml", f"--store={size['layout']}", f"--labels.layout={size['layout']}"]
            )
            == 0
        )
        assert size["bytes"] == pytest.approx(files(work / size["layout"]), rel=0.1)


def test_in_words(rows: None, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work / "recipe.yaml", student=None)
    assert plan.main(["--config=recipe.yaml", "--store=elsewhere/store"]) == 0
    said = capsys.readouterr().out
    assert "pilot: test 120, train 240, validation 40 rows, chosen by content key (seed 0)" in said
    assert "held out (test): right " in said
    assert re.search(r"dense \(recipe\) \*  +[\d.]+ kB  +[\d.]+ kB ", said)
    assert re.search(r"free at elsewhere/store: [\d.,]+ [GT]B", said)
    assert "not known: the recipe names no student" in said
    assert said.splitlines()[-2].startswith("Verdict: go: ")
    assert "teacher-logits --config=recipe.yaml --store=elsewhere/store" in said.splitlines()[-1]


def test_what_teacher_logits_refuses_is_refused_alike(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change in ({"model": "BatchStatistics"}, {"labels": {"kind": "sigmoid", "encoding": "topk"}}):
        write_recipe(Path("recipe.yaml"), **change)
        refused = []
        for command in (teacher_logits, plan):
            assert command.main(["--config=recipe.yaml"]) == 2
            refused.append(capsys.readouterr().err.splitlines()[-1])
        assert refused[0] == refused[1]
    assert plan.main([]) == 2
    assert "no recipe is given" in capsys.readouterr().err
    write(Path("recipe.yaml"))
    assert plan.main(["recipe.yaml", "--rows=0"]) == 2
    assert "rows is 0; give a number of rows" in capsys.readouterr().err
    assert plan.main(["recipe.yaml", "--page=."]) == 2
    said = capsys.readouterr()
    assert "page cannot be written: . is a folder" in said.err
    assert "pilot" not in said.out


def test_stopped_it_keeps_nothing(
    work: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work / "recipe.yaml")
    asked = iter([False] * 3)
    monkeypatch.setattr(plan, "should_stop", lambda: next(asked, True))
    assert plan.main(["recipe.yaml"]) == 75
    assert "the pilot was stopped, and nothing of it is kept; run the same command again" in capsys.readouterr().err
    assert list(scratch.glob("softlabels-*")) == []


def test_a_teacher_that_knows_nothing_and_rows_that_leak_are_to_be_settled(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(Path("recipe.yaml"), student=None)
    split = ["--transfer_set.splits.train=train", "--transfer_set.splits.test=train"]
    assert plan.main(["recipe.yaml", *split, "--transfer_set.splits.validation=validation"]) == 0
    said = capsys.readouterr().out
    assert "160 of 160 test rows are train rows too (equal content keys)" in said
    verdict = said.splitlines()[-1]
    assert "160 of 160 test rows are training rows too" in verdict
    assert "the teacher is right on " in verdict


def test_a_student_of_other_inputs_is_refused_before_the_pilot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": 14, "hidden": [4], "classes": toy.CLASSES}}
    recipe = write(tmp_path / "toy.yaml", student=wrong)
    assert plan.main([str(recipe)]) == 2
    said = capsys.readouterr()
    assert f"write inputs: {toy.FEATURES} in its init_args" in said.err
    assert "pilot" not in said.out
