"""Members of a stored ensemble, their weights, class weights and leaks, from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.labels.ensemble import log_probs
from softlabels.store import open_store
from softlabels_stages import evaluate, info, train_student
from tests.stages import toy


def run(*words: str, **recipe: Any) -> int:
    toy.write_recipe(Path("recipe.yaml"), **recipe)
    settings = ["--config=recipe.yaml", "--store=store", "--epochs=1", "--seeds=0"]
    return train_student.main([*settings, *words])


def results(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(out) / "results.json").read_text())
    return found


@pytest.mark.parametrize(
    ("words", "members", "weights"),
    [
        (["--members=1"], [1], [1.0]),
        (["--weights=1,3"], [0, 1], [1.0, 3.0]),
        (["--members=1,0", "--weights=3,1"], [0, 1], [1.0, 3.0]),
    ],
)
def test_the_teacher_is_the_members_that_are_chosen(
    store: Path, words: list[str], members: list[int], weights: list[float]
) -> None:
    """Its scores, and the KL of students to it, are those of that ensemble in float64."""
    assert run("--out=out", *words, "--temperature=3") == 0
    found, held_out = results("out"), open_store(store, split="test")
    stored = held_out.column("logits").astype(np.float64) + held_out.column("shift").astype(np.float64)[..., None]
    log_p = log_probs(stored[:, members], 1.0, weights=weights)
    labels = np.asarray(held_out.column("label"))
    ensemble = found["teacher"]["ensemble"][0]
    assert ensemble["nll"] == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), abs=1e-5)
    assert ensemble["errors"] == int((log_p.argmax(1) != labels).sum())
    assert sorted(found["teacher"]["members"]) == [f"{number}: Member{number}" for number in members]
    assert found["members"] == (
        None if words == ["--weights=1,3"] else [int(m) for m in words[0][-3:].strip("s=").split(",")]
    )


def test_they_are_part_of_what_a_run_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out=out", "--members=0") == 0
    assert run("--out=out", "--members=0") == 0
    assert run("--out=out", "--members=1") == 2
    assert "RunExists: out holds another run: training.members" in capsys.readouterr().err
    assert evaluate.main(["out/distilled-seed0", "--json"]) == 0  # by the run's own recipe
    said = json.loads(capsys.readouterr().out)
    assert said["kl"]["1"] == pytest.approx(results("out")["students"][1]["scores"][0]["kl"]["1"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--members=2"], "ConfigError: members are [2], and store/test has 2; give distinct numbers from 0 to 1"),
        (["--members=0,0"], "ConfigError: members are [0, 0]"),
        (["--members=[]"], "ConfigError: members are []"),
        (["--weights=1"], "ConfigError: 2 members need 2 finite weights >= 0 that are not all 0, not [1.0]"),
        (["--members=1", "--weights=0"], "ConfigError: 1 members need 1 finite weights"),
        (["--class_weights=1,2"], "ClassMismatch: class_weights has 2 numbers, and there are 5 classes; give one for each"),
        (["--class_weights=balancd"], "class_weights is '[balancd]', expected 'balanced' or list of numbers or null"),
        (["--class_weights=balanced", "--loss=dist"], "ConfigError: the loss dist correlates over the whole batch"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    store: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_reduced_store_has_no_members_to_choose(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.write_store(work / "store", reduce="geometric")
    for word in ("--members=0", "--weights=1"):
        assert run(word, "--mean=geometric") == 2
        assert (
            "MeanUnavailable: store/test keeps only the members' mean logits (reduce: geometric)"
            in capsys.readouterr().err
        )
    assert run("--mean=geometric") == 0


def test_class_weights_are_trained_with_and_kept(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out=out", "--class_weights=balanced") == 0
    assert run("--out=listed", "--class_weights=1,1,1,1,5") == 0
    assert "class_weights: balanced" in Path("out/config.yaml").read_text()
    assert "weights of the classes balanced" in Path("out/README.md").read_text()
    assert run("--out=out") == 2
    assert "RunExists: out holds another run: training.class_weights" in capsys.readouterr().err


def test_rows_that_splits_share_are_counted_and_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every test row is a training row. Seen to fail: nothing said so."""
    splits = toy.recipe()["transfer_set"] | {"splits": {"train": "train", "test": "train"}}
    toy.write_store(work / "store", transfer_set=splits)
    line = "160 of 160 test rows are train rows too (equal content keys)"
    for _ in ("before training", "where the finished run is shown"):
        assert run("--out=out", transfer_set=splits) == 0
        assert capsys.readouterr().out.splitlines().count(line) == 1
    assert results("out")["shared_rows"] == {"test in train": 160}
    assert line in (Path("out/README.md").read_text().replace("\\", ""))
    assert info.main(["store"]) == 0
    assert capsys.readouterr().out.splitlines().count(line) == 1
    assert info.main(["store", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["test"]["shared_rows"], said["train"]["shared_rows"], said["test"]["repeated_rows"]) == (
        {"train": 160},
        {},
        0,
    )
