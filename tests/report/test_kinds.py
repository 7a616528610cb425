"""Runs on flags (sigmoid) and vectors (values): each is compared by a measure of its own, and nothing is said of temperatures,
KL or agreement where there are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from softlabels.labels.encoding import SigmoidEncoding, ValuesEncoding
from softlabels.labels.lost import Errors, LostTable
from softlabels.objects import ObjectSpec
from softlabels.report.comparison import best_seed, best_student, comparison_markdown, comparison_table, comparison_text
from softlabels.report.curves import curves_png
from softlabels.report.model_card import model_card
from softlabels.report.plots import sweep_png
from softlabels.store.reader import open_store
from tests.report import made_up
from tests.report.test_plots import check_whole, drawn

__all__ = ["drawn"]
GOLDEN = Path(__file__).parent.parent / "store" / "golden" / "v1-zarr"
RECIPE: dict[str, Any] = {
    "name": "toy", "student": {"class_path": "softlabels.models.MLP", "init_args": {"classes": 3}},
    "training": {"epochs": 7, "loss": "mse", "temperature": 4.0},
}  # fmt: skip
NOTHING_THERE = re.compile(r"KL|\bT ?=|\bagree|temperature|(?<!standard )errors|NLL|ECE|Brier|logit|softmax")
SWEPT: dict[str, Any] = {"alpha": [0.5, 0.9]}
MAIN = {"values": (("mse",), "MSE", "hard - distilled"), "sigmoid": (("map",), "mAP", "distilled - hard")}


def of(found: dict[str, Any], label: str, path: tuple[str, ...], where: str = "scores") -> np.ndarray:
    student = next(student for student in found["students"] if student["label"] == label)
    return np.array([made_up_value(scores, path) for scores in student[where]])


def made_up_value(scores: Any, path: tuple[str, ...]) -> float:
    for name in path:
        scores = scores[name]
    return float(scores)


@pytest.mark.parametrize("target", ["values", "sigmoid"])
def test_one_setting_is_compared_by_the_main_measure(rng: np.random.Generator, target: str) -> None:
    found, (path, title, ahead) = made_up.results(rng, target=target, seeds=4), MAIN[target]
    text, form = comparison_text(found), ".4g" if target == "values" else ".3f"
    gap = of(found, "hard", path) - of(found, "distilled", path)
    gap = -gap if target == "sigmoid" else gap
    mean, error = gap.mean(), gap.std(ddof=1) / 2
    assert f"{ahead}: {mean:+{form}} {title}, standard error {error:{form}} (paired over 4 seeds)" in text
    behind = of(found, "distilled", path) - made_up_value(found["teacher"]["ensemble"][0], path)
    assert f"distilled - its teacher: {behind.mean():+{form}} {title}" in text
    near = {"values": ("teacher", "rmse"), "sigmoid": ("agreement",)}[target]
    mean = of(found, "distilled", near).mean()
    said = {
        "values": f"gives its teacher's values to an RMSE of {mean:.4g} on the rows",
        "sigmoid": f"gives its teacher's answer for {mean:.1%} of the classes of the rows",
    }
    assert said[target] in text


def test_a_student_that_is_worse_than_a_mean_is_named(rng: np.random.Generator) -> None:
    found = made_up.results(rng, target="values")
    assert "farther" not in comparison_text(found)
    for scores in found["students"][1]["scores"]:
        scores["teacher"]["r2"] = -3.0
    assert (
        "the student distilled is farther from the teacher's values than a constant, their mean (R2 -3): train"
        in comparison_text(found)
    )


def test_the_columns_of_each_kind(rng: np.random.Generator) -> None:
    titles = {target: comparison_table(made_up.results(rng, target=target)).titles for target in ("values", "sigmoid")}
    assert titles["values"] == (
        "", "MSE", "RMSE", "R2", "cosine", "MSE to teacher", "R2 to teacher", "cosine to teacher",
    )  # fmt: skip
    assert titles["sigmoid"] == (
        "", "mAP", "micro F1", "macro F1", "NLL", "ECE", "agreement", "KL at T=1", "KL at T=4",
    )  # fmt: skip


@pytest.mark.parametrize("target", ["values", "sigmoid"])
def test_a_sweep_has_a_difference_for_each_setting_and_fits_a_terminal(rng: np.random.Generator, target: str) -> None:
    found, (path, title, ahead) = made_up.results(rng, target=target, swept=SWEPT), MAIN[target]
    for student, other in zip(
        found["students"], made_up.results(rng, target=target, swept=SWEPT)["students"], strict=True
    ):
        student["validation"] = [scores | {"labelled": 50} for scores in other["scores"]]
    table, text = comparison_table(found), comparison_text(found)
    line = dict(zip(table.titles, next(line for line in table.lines if line[0] == "distilled, alpha=0.5"), strict=True))
    gap = of(found, "distilled, alpha=0.5", path) - of(found, "hard", path)
    gap, form = (gap, ".3f") if target == "sigmoid" else (-gap, ".4g")
    assert line[f"{ahead} (SE)"] == f"{gap.mean():+{form}} ({gap.std(ddof=1) / 3**0.5:{form}})"
    assert f"validation {title}" in table.titles
    assert f"choose by the validation {title}" in text
    assert f"validation {title} is of 50 rows with a hard label" in text
    assert max(map(len, text.splitlines()[:8])) <= 140
    sums = {each["label"]: of(found, each["label"], path, "validation").sum() for each in found["students"][1:]}
    chosen = (max if target == "sigmoid" else min)(sums, key=lambda label: sums[label])
    assert best_student(found)["label"] == chosen
    seeds = of(found, chosen, path, "validation")
    assert best_seed(found, best_student(found)) == (seeds.argmax() if target == "sigmoid" else seeds.argmin())


@pytest.mark.parametrize("target", ["values", "sigmoid"])
@pytest.mark.parametrize("change", [{"hard": False}, {"labels": False}, {"seeds": 1}, {"members": 1}])
def test_what_was_not_measured_is_left_out(rng: np.random.Generator, target: str, change: Any) -> None:
    """Vectors without hard labels are compared by how near they are to the teacher's."""
    found = made_up.results(rng, target=target, **change)
    text, values_alone = comparison_text(found), target == "values" and "labels" in change
    assert (MAIN[target][2] in text) == ("hard" not in change and ("labels" not in change or values_alone))
    assert ("MSE to teacher, standard" in text) == values_alone
    assert ("its teacher: " in text) == ("labels" not in change)
    assert ("no standard error" in text) == ("seeds" in change)
    assert ("500 rows, none of them with a hard label;" in text) == ("labels" in change)
    card = of_kind(found, ValuesEncoding() if target == "values" else SigmoidEncoding())
    assert ("Its confidence is as good as" in card) == (target == "sigmoid" and "labels" not in change)


def test_a_member_that_beats_its_ensemble_is_named(rng: np.random.Generator) -> None:
    for target, path, worse in (("values", "mse", 2.0), ("sigmoid", "map", -2.0)):
        found = made_up.results(rng, target=target)
        first, second = (runs[0] for runs in found["teacher"]["members"].values())
        first[path], second[path], found["teacher"]["ensemble"][0][path] = (
            0.25,
            worse,
            0.5 * (1 + (target == "values")) - 0.3,
        )
        text = comparison_text(found)
        title = MAIN[target][1]
        assert f"teacher 0: Net has {title} 0.25" in text
        assert "teacher 1: Net has" not in text


def test_infinite_scores_are_no_number(rng: np.random.Generator) -> None:
    found = made_up.results(rng, target="values", swept={"alpha": [0.5, 0.9]})
    student = found["students"][1]
    student["scores"][0]["mse"] = None
    student["validation"] = [{"mse": None, "labelled": 5}, {"mse": 1.0, "labelled": 5}, {"mse": 1.0, "labelled": 5}]
    found["students"][2]["validation"] = [{"mse": 9.0, "labelled": 5}] * 3
    table = comparison_table(found)
    assert table.lines[-2][table.titles.index("MSE")] == "inf"
    assert best_student(found) == found["students"][2]


@pytest.mark.parametrize("swept", [{}, {"alpha": [0.5, 0.9]}])
def test_nothing_of_values_speaks_of_distributions(rng: np.random.Generator, swept: Any, tmp_path: Path) -> None:
    found = made_up.results(rng, target="values", swept=swept)
    text, page = comparison_text(found), comparison_markdown(found, title="run")
    assert not NOTHING_THERE.search(text + page)
    card = of_kind(found, ValuesEncoding())
    assert "- Gives 3 real values" in card
    about = card.split("## How to load")[0] + card.split("## Limits")[1]
    assert not NOTHING_THERE.search(about.replace("expect more errors on new rows", ""))
    assert "gives its teacher's values to an RMSE of" in card
    assert "Stored values differ from the teacher's exact ones by 2.50e-03 at most" in card


def of_kind(found: dict[str, Any], encoding: Any) -> str:
    manifest = open_store(GOLDEN).manifest
    one = msgspec.structs.replace(manifest.spec.targets[0], encoding=encoding)
    lost = LostTable(errors=Errors(rmse=1e-4, largest=2.5e-3) if one.encoding.target == "values" else None)
    spec = manifest.spec.with_targets((one,))
    manifest = msgspec.structs.replace(manifest, spec=spec, fidelity={}, targets={"": lost})
    return model_card(
        found,
        RECIPE,
        stores={"train": manifest},
        parameters=5,
        prepare=ObjectSpec("my.own"),
        folders=["distilled-seed0"],
    )


def test_the_card_of_flags(rng: np.random.Generator) -> None:
    card = of_kind(made_up.results(rng, target="sigmoid"), SigmoidEncoding())
    assert "sigmoid of each is the probability of that class" in card
    assert "loss `bce` at T = 4" in card
    assert "of the classes of these 500 rows; nothing was measured on other data" in card


@pytest.mark.parametrize(
    ("target", "labels", "titles"),
    [
        ("values", True, ["MSE, validation: choose by these", "MSE, test: not to choose by", "MSE to teacher"]),
        ("values", False, ["MSE to teacher, validation: choose by these", "MSE to teacher, test: not to choose by"]),
        (
            "sigmoid",
            True,
            ["mAP, validation: choose by these", "mAP, test: not to choose by", "KL(teacher || student) at T=1"],
        ),
        ("sigmoid", False, ["KL(teacher || student) at T=1"]),
    ],
)
def test_the_picture_of_a_sweep(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any], target: str, labels: bool, titles: list[str]
) -> None:
    found = made_up.results(rng, target=target, labels=labels, swept={"alpha": [0.5, 0.9]})
    for student in found["students"]:
        student["validation"] = student["scores"]
    sweep_png(found, tmp_path / "sweep.png")
    check_whole(tmp_path / "sweep.png", drawn[0])
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == titles


@pytest.mark.parametrize("target", ["values", "sigmoid"])
def test_curves_of_each_kind(rng: np.random.Generator, tmp_path: Path, drawn: list[Any], target: Any) -> None:
    lines = [
        {"epoch": n, "step": n, "train_loss": 1.0, "validation_loss": 1.0, "lr": 0.1}
        | made_up.scores(rng, temperatures=[1.0], target=target)
        for n in (1, 2, 3)
    ]
    curves_png({"distilled-seed0": lines}, tmp_path / "curves.png", {"": target})
    check_whole(tmp_path / "curves.png", drawn[0])
    shown = {axes.get_title(loc="left"): axes.get_ylabel() for axes in drawn[0].axes}
    unit = "weighted" if target == "values" else "nats, weighted"
    mine = {"values": ["MSE", "MSE to teacher"], "sigmoid": ["mAP", "micro F1"]}[target]
    assert shown == {
        "training loss": unit, "validation loss; dots: epochs kept": unit,
        **{f"{title} on validation rows": title for title in mine}, "learning rate": "learning rate",
    }  # fmt: skip
