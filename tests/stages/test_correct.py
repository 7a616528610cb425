"""correct: students of a partial transfer set, for all classes again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from softlabels.store import open_store
from softlabels_stages import correct, evaluate, train_student
from tests.stages import toy


def run(*words: str) -> int:
    toy.write_recipe(Path("recipe.yaml"))
    return train_student.main(["--config=recipe.yaml", "--store=store", "--out=out", *words])


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
    return found


def test_a_class_that_was_left_out_is_found_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only_classes=0,1,2,3", "--seeds=0,1", "--epochs=20", "--validation=0") == 0
    assert correct.main(["out"]) == 0
    said = capsys.readouterr().out
    assert "share in transfer set" in said

    found = results("out/corrected")
    scores = {student["label"]: student["scores"] for student in found["students"]}
    assert list(scores) == ["hard", "hard, corrected", "distilled", "distilled, corrected"]
    assert {key: scores["distilled"][0][key] for key in ("errors", "nll")} == {
        key: results("out")["students"][1]["scores"][0][key] for key in ("errors", "nll")
    }
    before, after = scores["distilled"], scores["distilled, corrected"]
    assert sum(found["errors"] for found in after) < sum(found["errors"] for found in before)

    held = open_store("store", split="train")
    labels = np.asarray(held.column("label"))
    bias = load_file("out/corrected/distilled-seed0/weights.safetensors")["bias"].numpy()
    assert bias[4] == bias.max()
    chosen = np.flatnonzero(labels != 4)
    shares = np.exp(held.log_probs(chosen, temperature=1)).mean(0)
    np.testing.assert_allclose(
        bias, math.log(1 / 5) - np.log(shares), atol=0.05
    )  # validation rows are not among the rows


def test_matched_on_unlabelled_rows(store: Path) -> None:
    assert run("--only_classes=0,1,2,3", "--alpha=0.1", "--seeds=0", "--epochs=20", "--baseline=false") == 0
    found = Path("out") / "corrected"
    assert correct.main(["--rows", "train", "--class_prior=1,1,1,1,4", "out"]) == 0  # `train` is no run
    bias = load_file(found / "distilled-seed0" / "weights.safetensors")["bias"]
    assert torch.count_nonzero(bias[:4]) == 0
    assert bias[4] > 0


def test_the_corrected_students_are_evaluated_and_found_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only_classes=0,1,2,3", "--seeds=0", "--epochs=2", "--baseline=false") == 0
    assert correct.main(["out", "--class_prior=1,1,1,1,2"]) == 0
    first = (Path("out") / "corrected" / "results.json").read_bytes()
    assert correct.main(["out", "--class_prior=1,1,1,1,2"]) == 0
    assert (Path("out") / "corrected" / "results.json").read_bytes() == first
    capsys.readouterr()
    assert evaluate.main(["out/corrected/distilled-seed0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = results("out/corrected")["students"][1]["scores"][0]
    assert said["errors"] == expected["errors"]
    assert said["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    assert correct.main(["out", "--class_prior=1,1,1,1,3"]) == 2
    assert 'RunExists: out/corrected holds another run: class_prior: "1,1,1,1,2" here' in capsys.readouterr().err
    assert correct.main(["--class_prior=1,1,1,1,3", "--out", "other", "--from=out"]) == 0
    assert results("other") != results("out/corrected")


def test_no_student_is_corrected_twice(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only_classes=0,1,2,3", "--seeds=0", "--epochs=1", "--baseline=false") == 0
    assert correct.main(["out"]) == 0
    assert correct.main(["out/corrected"]) == 2
    assert "ConfigError: the students in out/corrected were corrected already" in capsys.readouterr().err


def test_help_needs_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        correct.main(["--help"])
    assert "usage: softlabels correct [FROM]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from=nowhere"], "ConfigError: nowhere is no run"),
        (["nowhere"], "ConfigError: nowhere is no run"),
        ([], "ConfigError: no run is named; name the folder"),
        (["out", "--class_prior=much"], "ConfigError: class_prior is 'much'; give uniform"),
        (["out", "--rows=elsewhere"], "ConfigError: the store has no split 'elsewhere'; its splits are test, train"),
        (["out", "--rows=test"], "0 of 5 classes have less than 0.1 of their share in the transfer set"),
        (["out", "--class_prior=0.5,0.5"], "ConfigError: class_prior has 2 numbers for 5 classes: 0.5, 0.5; give one"),
    ],
)
def test_what_it_refuses(store: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert run("--seeds=0", "--epochs=1") == 0
    capsys.readouterr()
    assert correct.main(words) == 2
    assert message in capsys.readouterr().err
    assert not (Path("out") / "corrected").exists()
