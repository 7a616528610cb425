"""plan where the pilot's students learn no more than the most frequent class: it says that nothing is known of their gain, why,
and what would tell.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softlabels.jobs import plan_students
from softlabels.jobs.plan_found import Pilot
from softlabels.jobs.plan_gain import Group
from softlabels_stages import plan
from tests.stages import toy
from tests.stages.test_plan import ROWS, rows, write

more_rows = rows  # a fixture
QUICK = {"batch_size": 32, "seeds": [0], "hard_label_fraction": 1, "threads": 1, "device": "cpu", "alpha": 0.5}


def unrelated(split: str) -> dict[str, np.ndarray]:
    """The toy's points, whose labels are drawn without a look at them: a sixth of class 1 to 4 each, the rest of class 0."""
    found = toy.points(split)
    drawn = np.random.default_rng(len(split)).integers(-1, toy.CLASSES, len(found["label"]))
    return found | {"label": np.maximum(drawn, 0)}


def flagged(split: str) -> dict[str, np.ndarray]:
    """The toy's points with five flags, of which one row in ten has one that is 1."""
    found = toy.points(split)
    every = np.arange(len(found["label"]))
    return found | {
        "label": (every[:, None] % 10 == 0) & (every[:, None] // 10 % toy.CLASSES == np.arange(toy.CLASSES))
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_students, "GROUPS", 4)
    monkeypatch.setattr(plan_students, "TRIED", ())


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert plan.main(["recipe.yaml", "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_students_that_learn_their_own_rows_and_nothing_of_others_lack_rows(
    rows: None, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_students, "STEPS", (60, 80))
    source = toy.recipe()["transfer_set"] | {"factory": {"class_path": f"{__name__}.unrelated"}}
    fast = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}
    write(work / "recipe.yaml", transfer_set=source, training=QUICK | {"epochs": 4, "optimizer": fast})
    found = said(capsys, "--rows=64")
    gain = found["gain"]
    held_out = unrelated("test")["label"]
    assert abs(gain["chance"] - (1 - np.mean(held_out == 0))) < 0.15  # of 64 of them
    assert (gain["learnt"], gain["idle"], gain["advice"]) == (False, False, f"--rows={ROWS['train']}")
    assert (
        "students of the pilot were not better than the most frequent class by two standard errors (error rate "
        in found["verdict"]
    )
    assert "they learnt their own 16 training rows and little or nothing of others: give --rows=240" in found["verdict"]


@pytest.mark.parametrize(("drawn", "more"), [(10, 40), (40, 60), (60, 0)])
def test_a_larger_pilot_is_named_where_rows_are_left(drawn: int, more: int) -> None:
    """Of 90 rows, of which 30 repeat others, and which no pilot draws; whatever of its rows students are judged on."""
    keys = np.random.default_rng(0).integers(0, 256, (60, 16), np.uint8)
    every, taken = ({"train": SimpleNamespace(keys=each)} for each in (np.concatenate([keys, keys[:30]]), keys[:drawn]))
    pilot = Pilot(SimpleNamespace(rows=every), taken, None, 0, Path())  # type: ignore[arg-type]
    assert pilot.more_rows == more


def write_idle(work: Path, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """A recipe whose students learn nothing, and a pilot that begins with 8 steps."""
    monkeypatch.setattr(plan_students, "STEPS", (4, 8))
    slow = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-6}}
    write(work / "recipe.yaml", training=QUICK | {"epochs": epochs, "optimizer": slow})


def test_students_that_learn_nothing_of_their_own_rows_are_given_the_recipes_steps(
    rows: None, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idle(work, monkeypatch, epochs=5)
    found = said(capsys, "--rows=64")
    gain = found["gain"]
    assert gain["steps"] == 40  # 5 epochs of 8 batches, as the recipe's own
    assert (gain["learnt"], gain["idle"], gain["advice"]) == (False, True, "")
    assert found["verdict"].startswith("go: ")
    assert found["verdict"].endswith(", but what students gain is not known.")
    [line] = [line for line in found["unknown"] if line.startswith("what students gain: ")]
    assert "they did not learn their own training rows either, in 40 steps" in line
    assert line.endswith(", and no pilot of these rows and this training can tell")


def test_where_time_is_short_the_seconds_for_more_steps_are_named(
    rows: None, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idle(work, monkeypatch, epochs=100_000)
    monkeypatch.setattr(plan_students, "MORE", 100_000)
    assert plan.main(["recipe.yaml", "--rows=64", "--seconds=60"]) == 0
    out = capsys.readouterr().out
    assert "not known: students of the pilot were not better than the most frequent class by two standard errors" in out
    [seconds] = re.findall(r"Verdict: settle first: .* in 8 steps: give --seconds=(\d+)\.", out)
    assert int(seconds) > 60


def test_blocks_of_rare_flags_each_have_one(
    rows: None, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block of 8 rows or so often has no flag of 1, and then no mAP is known of it."""
    monkeypatch.setattr(plan_students, "STEPS", (4, 8))
    monkeypatch.setattr(plan_students, "LEAST", 4)
    source = toy.recipe()["transfer_set"] | {"factory": {"class_path": f"{__name__}.flagged"}, "label_as": "flags"}
    write(work / "recipe.yaml", transfer_set=source, labels={"kind": "sigmoid"}, training=QUICK)
    gain = said(capsys)["gain"]
    assert (gain["measure"], gain["held_out"], gain["chance"]) == ("mAP", ROWS["test"], None)
    assert 0 < gain["interval"]["low"] + 1 < gain["interval"]["high"] + 1 < 2


def test_where_four_groups_do_not_fit_the_second_is_not_begun(
    rows: None, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_students, "STEPS", (4, 8))
    trained, real = list[int](), plan_students._Students.group

    def slow(self: Any, number: int, least: int) -> Group:
        trained.append(number)
        return dataclasses.replace(real(self, number, least), seconds=87.0)

    monkeypatch.setattr(plan_students._Students, "group", slow)
    write(work / "recipe.yaml", training=QUICK)
    assert said(capsys, "--rows=64")["gain"] == "a group of students takes 87 s, and 4 are needed: give --seconds=435"
    assert trained == [0]
