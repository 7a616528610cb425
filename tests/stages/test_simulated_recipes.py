"""The recipes clone and diffuse as they ship, from teacher to table, with few rows and one epoch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import clone, diffuse
from softlabels_stages import teacher_logits, train_student, train_teacher
from tests.stages.conftest import ROOT


@pytest.fixture(autouse=True)
def _digits(work: Path) -> None:
    (work / "data").symlink_to(ROOT / "data")


def rows(train: int, test: int) -> str:
    return f"--transfer_set.factory.init_args.rows={{train: {train}, test: {test}}}"


def test_clone(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["--config=clone", "--store=s", "--transfer_set.factory.init_args.episodes=2"]
    assert teacher_logits.main(few) == 0
    assert train_student.main([*few, "--epochs=2", "--seeds=0", "--out=run", "--device=cpu"]) == 0
    results = json.loads((work / "run" / "results.json").read_text())
    assert {each["label"] for each in results["students"]} == {"hard", "distilled"}
    capsys.readouterr()
    monkeypatch.setattr(clone, "STARTS", clone.STARTS[:5])
    monkeypatch.setattr(sys, "argv", ["clone", "run"])
    clone.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["controller", "hard", "distilled"]


def test_diffuse(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    denoise = ["--config=denoise", rows(300, 20), "--teacher_training.epochs=1", "--teacher_training.device=cpu"]
    assert train_teacher.main(denoise) == 0
    few = ["--config=diffuse", "--store=s", rows(130, 40)]
    assert teacher_logits.main([*few, "--teacher.device=cpu"]) == 0
    assert train_student.main([*few, "--epochs=1", "--seeds=0", "--out=run", "--device=cpu"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["diffuse", "--run=run"])
    diffuse.main()
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[0] for line in table] == ["teacher", "one step, plain torch", "one step, from the store"]
    plain, stored = float(table[1][2]), float(table[2][2])
    assert 0.8 < stored / plain < 1.25  # two steps from the same weights, in other orders


def test_diffuse_in_the_plane(work: Path) -> None:
    few = ["--config=diffuse_2d", "--store=s", rows(130, 40)]
    assert teacher_logits.main([*few, "--teacher.device=cpu"]) == 0
    assert train_student.main([*few, "--epochs=1", "--seeds=0", "--out=run", "--device=cpu"]) == 0
    world = diffuse.World(diffuse.load("run/config.yaml"))
    assert world.distance(world.samples) < world.distance(world.noise["test"])
