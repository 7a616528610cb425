"""Whether what a plan says holds on real data: bytes and time of the pass itself on recipes as they ship, with teachers of
little training; and the gain beside that of other rows and seeds, on a table, sound, texts and MNIST.

`SOFTLABELS_DATA` names the folder that holds ag_news/, wikitext-2/, bccd/, letter/, free_spoken_digit/ and mnist/ (Parquet
files as on the hub).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from softlabels.jobs import plan_students
from softlabels.jobs.plan import plan
from softlabels.jobs.splits import load_rows
from softlabels.models import ModelConfig
from softlabels.report.plan import Gain
from softlabels.student.split import shuffled_rows
from softlabels.student.sweep import StudentTraining
from softlabels.teacher.config import LabelsConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.transfer import TransferSetConfig
from softlabels_stages import train_teacher
from softlabels_stages.recipe import load
from softlabels_stages.schema import typed
from tests.stages.test_plan_holds import SILENT, require_true

DATA = Path(os.environ.get("SOFTLABELS_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def folder(name: str) -> str:
    """Of a data set; without it the test skips."""
    if not (DATA / name).is_dir():
        pytest.skip(f"this takes real data: give SOFTLABELS_DATA, the folder that holds {name}/")
    return str(DATA / name)


def trained(made: dict[str, Any], **training: Any) -> dict[str, Any]:
    """The recipe, with its teachers where they are to lie."""
    made["teacher_training"] |= training
    Path("recipe.yaml").write_text(yaml.safe_dump(made))
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    return made


def texts() -> dict[str, Any]:
    made = load("ag_news")
    made["transfer_set"]["source"] = folder("ag_news")
    return trained(made, epochs=1)


def language_model() -> dict[str, Any]:
    """With a smaller teacher, over half of the texts."""
    made = load("lm")
    made["transfer_set"] |= {"source": folder("wikitext-2"), "subset": None}
    made["transfer_set"]["splits"] = {"train": "validation[:50%]", "test": "test[:25%]"}
    net = made["teacher"]["members"][0]["init_args"]["config"]
    net |= {"n_embd": 64, "n_layer": 1, "n_head": 2}
    return trained(made, epochs=1)


def detector() -> dict[str, Any]:
    made = load("detect")
    made["transfer_set"]["factory"]["init_args"]["source"] = folder("bccd")
    return trained(made, epochs=2)


def letters() -> dict[str, Any]:
    made = load("letter")
    made["transfer_set"]["factory"]["init_args"]["source"] = folder("letter")
    return trained(made, epochs=20)


def speech() -> dict[str, Any]:
    made = load("speech")
    made["transfer_set"]["source"] = folder("free_spoken_digit")
    return trained(made, epochs=5)


@pytest.mark.parametrize("recipe", [texts, language_model, detector, letters, speech], ids=lambda one: one.__name__)
def test_bytes_and_time_of_the_pass(recipe: Callable[[], dict[str, Any]], work: Path) -> None:
    require_true(recipe(), work)


def gains(made: dict[str, Any], pilots: int, train: int, held_out: int) -> list[Gain]:
    """Of pilots of so many rows each, of which no two share any; students at the recipe's own temperature."""
    student = typed(ModelConfig, made["student"], where="")
    training = typed(StudentTraining, made["training"], where="")
    rows = [
        load_rows(typed(TransferSetConfig, made["transfer_set"], where=""), split, SILENT)
        for split in ("train", "test")
    ]
    orders = [shuffled_rows(each.keys, 1) for each in rows]
    assert all(len(order) >= pilots * count for order, count in zip(orders, (train, held_out), strict=True))
    teacher = load_ensemble(typed(TeacherConfig, made["teacher"], where=""))
    labels = typed(LabelsConfig, made.get("labels", {}), where="")
    found = list[Gain]()
    for number in range(pilots):
        taken = [
            each.take(order[number * count : (number + 1) * count])
            for each, order, count in zip(rows, orders, (train, held_out), strict=True)
        ]
        one = plan(
            taken,
            teacher,
            labels,
            "stores/plan",
            student=student,
            training=training,
            rows=max(train, held_out),
            seconds=3600,
            seed=8 * number,
            watch=SILENT,
        )
        assert isinstance(one.gain, Gain), one.gain
        found.append(one.gain)
    return found


def inside(found: list[Gain]) -> float:
    """How often an interval holds the mean of the other pilots."""
    means = np.array([each.interval.estimate for each in found])
    held = [each.interval.low < np.delete(means, n).mean() < each.interval.high for n, each in enumerate(found)]
    errors = np.mean([each.interval.high - each.interval.low for each in found]) / 4
    print(
        f"gain {means.mean():.4f}, of pilots {means.std(ddof=1):.4f}, said {errors:.4f}; inside {np.mean(held):.2f}; of "
        f"{found[0].groups} groups of {found[0].rows}"
    )
    return float(np.mean(held))


@pytest.mark.parametrize(
    ("recipe", "groups", "pilots", "train", "held_out"),
    [(letters, 8, 7, 2000, 2000), (speech, 8, 5, 360, 200), (texts, 4, 5, 400, 400)],
    ids=["letters", "speech", "texts"],
)
def test_the_gain_of_recipes_as_they_ship(
    recipe: Callable[[], dict[str, Any]],
    groups: int,
    pilots: int,
    train: int,
    held_out: int,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_students, "TRIED", ())
    monkeypatch.setattr(plan_students, "GROUPS", groups)
    found = gains(recipe(), pilots, train, held_out)
    assert {each.measure for each in found} == {"error rate"}
    assert inside(found) * pilots >= pilots - 2  # where 91% hold, 3 of 7 miss in 2 cases of 100


def test_the_gain_of_other_rows_and_seeds(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 pilots of 400 training and 400 held-out rows that share none, each beside the mean of the others: inside as often as
    is said.
    """
    made = load("mnist")
    made["transfer_set"]["source"] = folder("mnist")
    net: dict[str, Any] = {
        "class_path": "softlabels.models.MLP",
        "init_args": {"inputs": 784, "hidden": [128], "classes": 10},
    }
    made["teacher"]["members"] = [{**net, "weights": "0.safetensors"}]
    quick: dict[str, Any] = {"epochs": 2, "scheduler": None, "batch_size": 128}
    made = trained(made, **quick, augment=None, max_norm=None)
    made["student"] = {**net, "init_args": net["init_args"] | {"hidden": [16]}}
    made["training"] |= quick | {"temperature": 4, "seeds": [0]}
    monkeypatch.setattr(plan_students, "TRIED", ())
    found = gains(made, 20, 400, 400)
    assert found[0].holds == 0.91
    assert inside(found) >= 0.75  # of 20: below once in 100 times
