"""train-teacher trains what is missing and leaves alone what is there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.transfer.prepare import Row, vector
from softlabels_stages import train_teacher
from tests.stages import toy

FILES = ["teachers/a.safetensors", "teachers/b.safetensors"]
TRAINING = {"epochs": 2, "batch_size": 32, "threads": 1, "device": "cpu"}


def run(*words: str, **changes: Any) -> int:
    shape = {"inputs": toy.FEATURES, "hidden": [8], "classes": toy.CLASSES}
    members = [{"class_path": "softlabels.models.MLP", "init_args": shape, "weights": file} for file in FILES]
    sections = {"teacher": {"members": members}, "teacher_training": TRAINING} | changes
    toy.write_recipe(Path("recipe.yaml"), **sections)
    return train_teacher.main(["--config=recipe.yaml", *words])


def test_missing_members_are_trained_each_with_its_own_seed() -> None:
    assert run() == 0
    first, second = (Path(file).read_bytes() for file in FILES)
    assert first != second


def test_members_that_exist_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    before = [Path(file).read_bytes() for file in FILES]
    Path(FILES[0]).write_bytes(b"someone's own")
    Path(FILES[1]).unlink()
    capsys.readouterr()
    assert run() == 0
    out = capsys.readouterr().out
    assert f"teacher 0: {FILES[0]} exists and is kept" in out
    assert Path(FILES[0]).read_bytes() == b"someone's own"
    assert Path(FILES[1]).read_bytes() == before[1]  # the same seed gives the same weights


def test_missing_weights_without_training_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(teacher_training=None) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"ConfigError: weights of the teacher are missing ({', '.join(FILES)}), and the recipe has no"
    )
    assert not Path("teachers").exists()


def test_a_member_without_a_place_for_its_weights_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"inputs": toy.FEATURES, "hidden": [], "classes": toy.CLASSES}
    assert run(teacher={"members": [{"class_path": "softlabels.models.MLP", "init_args": shape}]}) == 2
    assert "teacher.members[0] names no weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("torch.nn.Linear", "ConfigError: {} cannot take inputs of torch.float32 and shape [2, 6]: mat1 and"),
        ("torch.nn.Identity", "ClassMismatch: {} gives outputs of shape [2, 1, 6] for inputs of shape [2, 1, 6]; a"),
    ],
)
def test_a_member_that_cannot_take_the_inputs_is_told_before_training(
    model: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"in_features": 3, "out_features": toy.CLASSES} if model.endswith("Linear") else {}
    member = {"class_path": model, "init_args": arguments, "weights": FILES[0]}
    changes = {}
    if not arguments:
        changes = {"transfer_set": toy.recipe()["transfer_set"] | {"prepare": {"class_path": f"{__name__}.deeper"}}}
    assert run(teacher={"members": [member]}, **changes) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[0].startswith(error.format(model))
    assert len(said) == 1
    assert not Path("teachers").exists()


def test_other_settings_begin_anew_where_no_step_was_taken_and_are_refused_after(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_teacher, "should_stop", lambda: True)
    assert run() == 75
    steps = iter([False, False, True])
    monkeypatch.setattr(train_teacher, "should_stop", lambda: next(steps))
    prepare = {"class_path": f"{__name__}.doubled"}
    assert run(transfer_set=toy.recipe()["transfer_set"] | {"prepare": prepare}) == 75
    capsys.readouterr()
    assert run() == 2
    said = capsys.readouterr().err
    assert "the prepared inputs, by transfer_set.prepare or its code: " in said
    assert "to begin anew, delete teachers/a.run or" in said


def test_rows_without_a_hard_label_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for factory in ("few", "few_labelled"):
        rows = toy.recipe()["transfer_set"] | {"factory": {"class_path": f"{__name__}.{factory}"}}
        assert run(transfer_set=rows) == 0
        found[factory] = [Path(file).read_bytes() for file in FILES]
        for path in (*map(Path, FILES), Path("teachers/a.run"), Path("teachers/b.run")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert found["few"] == found["few_labelled"]
    assert "60 of 160 training rows have no hard label and are left out" in capsys.readouterr().out


def test_rows_without_any_hard_label_teach_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(transfer_set=toy.recipe()["transfer_set"] | {"label": None}) == 2
    assert "ConfigError: no training row of points has a hard label" in capsys.readouterr().err
    assert not Path("teachers").exists()


def few(split: str) -> dict[str, np.ndarray]:
    """The first 100 rows."""
    return {name: values[:100] for name, values in toy.points(split).items()}


def few_labelled(split: str) -> dict[str, np.ndarray]:
    """All rows, of which the first 100 have a label."""
    rows = toy.points(split)
    return rows | {"label": np.where(np.arange(len(rows["x"])) < 100, rows["label"], -1)}


def deeper(rows: Sequence[Row]) -> np.ndarray:
    """The rows' values with an axis too many."""
    return vector(rows)[:, None]


def doubled(rows: Sequence[Row]) -> np.ndarray:
    """Twice the rows' values."""
    return 2 * vector(rows)
