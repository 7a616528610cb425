"""Trackers: told each epoch once, also over a death; one that fails is left out, and the run ends as without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer
from tests.student.runs import MemoryBatches, examples, net


class Told:
    """A tracker that keeps what it is told, in the list that the class has."""

    every: ClassVar[list[tuple[Any, ...]]] = []

    def begin(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        json.dumps(settings)
        self.every.append(("begin", folder, settings["training"]["temperature"], step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.every.append(("scalars", step, dict(values)))

    def end(self) -> None:
        self.every.append(("end",))


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "every", [])


def failing(method: str) -> type[Told]:
    def fail(*args: object) -> None:
        Told.every.append((method,))
        raise RuntimeError("no\nnetwork")

    return type("Failing", (Told,), {method: fail})


class Dying(MemoryBatches):
    """Dies in the third epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Any:
        if epoch == 2:
            raise KeyboardInterrupt
        return super().epoch(epoch, start)


def run(folder: Path, tracker: type[Told] | None, batches: type[MemoryBatches] = MemoryBatches) -> bytes:
    names = {"a": 1.0, "b": 4.0}
    students = [
        Student.begin(name, TrainingConfig(temperature=t, epochs=4, threads=1, device="cpu"), net)
        for name, t in names.items()
    ]
    trainer = Trainer(
        students, batches(examples(), 64), MemoryBatches(examples(1), 50, seed=None), folder, {}, tracker=tracker
    )
    return b"".join(result.weights.read_bytes() for result in trainer.run())


def test_a_tracker_is_told_each_epoch_of_each_student(tmp_path: Path) -> None:
    run(tmp_path, Told)
    begun = [each[1:] for each in Told.every if each[0] == "begin"]
    assert begun == [(tmp_path / "a", 1.0, 0), (tmp_path / "b", 4.0, 0)]
    told = [each[1:] for each in Told.every if each[0] == "scalars"]
    lines = [[json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()[:4]] for n in "ab"]
    every = [line for pair in zip(*lines, strict=True) for line in pair]
    assert [step for step, _ in told] == [line["step"] for line in every]
    for name in ("train_loss", "validation_loss", "lr"):
        assert [values[name] for _, values in told] == [line[name] for line in every]
    assert [values["kl/1"] for _, values in told] == [line["kl"]["1"] for line in every]
    assert Told.every[-2:] == [("end",)] * 2
    Told.every.clear()
    run(tmp_path, Told)
    assert Told.every == []  # the run has ended


def test_a_run_that_goes_on_says_where(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Told, Dying)
    assert Told.every[-2:] == [("end",)] * 2
    before = [each[1] for each in Told.every if each[0] == "scalars"]
    Told.every.clear()
    run(tmp_path, Told)
    assert {each[-1] for each in Told.every if each[0] == "begin"} == {before[-1]}
    after = [each[1] for each in Told.every if each[0] == "scalars"]
    assert [step // before[0] for step in before + after] == [1, 1, 2, 2, 3, 3, 4, 4]


class Changing(Told):
    """Takes what it is given as its own."""

    def begin(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        for each in settings.values():
            each.clear()
        assert isinstance(settings, dict)
        settings.clear()


def test_a_tracker_that_changes_the_settings_that_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "with", Changing, Dying)
    assert run(tmp_path / "with", Changing) == run(tmp_path / "without", None)


def test_a_tracker_that_would_end_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def leave(*args: object) -> None:
        sys.exit(1)

    assert run(tmp_path / "with", type("Leaving", (Told,), {"scalars": leave})) == run(tmp_path / "without", None)
    assert "training continues (SystemExit: 1)" in caplog.text


@pytest.mark.parametrize("method", ["__init__", "begin", "scalars", "end"])
def test_a_tracker_that_fails_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str) -> None:
    without = run(tmp_path / "without", None)
    assert run(tmp_path / "with", failing(method)) == without
    who = "a tracker" if method == "__init__" else "Failing"
    said = f"{who} failed and gets no more numbers; training continues (RuntimeError: no network)"
    assert [record.getMessage() for record in caplog.records] == [said] * 2  # of two students
    assert [each[0] for each in Told.every].count(method) == 2
    logs = [(tmp_path / folder / "a" / "metrics.jsonl").read_text().count("\n") for folder in ("with", "without")]
    assert logs == [5, 5]
    assert list((tmp_path / "with" / "a" / "tensorboard").iterdir())
