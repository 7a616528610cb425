"""Runs of several targets: each is shown as a run of it alone would be, one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.jobs.run_report import draw
from softlabels.objects import ObjectSpec
from softlabels.report.comparison import best_seed, best_student, comparison_markdown, comparison_text
from softlabels.report.model_card import model_card
from softlabels.report.views import views
from softlabels.store.reader import open_store
from softlabels.system.local import LocalFolder
from tests.report import made_up
from tests.report.test_plots import check_whole, drawn

__all__ = ["drawn"]
GOLDEN = Path(__file__).parent.parent / "store" / "golden" / "v3-several-zarr"
RECIPE: dict[str, Any] = {
    "name": "toy", "student": {"class_path": "my_code.Net", "init_args": {}}, "training": {"epochs": 7},
}  # fmt: skip


def together(rng: np.random.Generator, kinds: dict[str, str], **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of several targets, and those of each alone."""
    alone = {name: made_up.results(rng, target=kind, **options) for name, kind in kinds.items()}
    first = next(iter(alone.values()))

    def merged(get: Any) -> list[dict[str, Any]]:
        runs = [get(one) for one in alone.values()]
        return [{"rows": 500, "targets": dict(zip(kinds, each, strict=True))} for each in zip(*runs, strict=True)]

    students = []
    for number, student in enumerate(first["students"]):
        scores = merged(lambda one, number=number: one["students"][number]["scores"])
        own = {name: one["students"][number]["settings"] for name, one in alone.items()}
        students.append({**student, "scores": scores, **({"targets": own} if student["kind"] != "hard" else {})})
    members = {
        name: merged(lambda one, name=name: one["teacher"]["members"][name]) for name in first["teacher"]["members"]
    }
    teacher = {"ensemble": merged(lambda one: one["teacher"]["ensemble"]), "members": members}
    about = {
        name: {"class_names": None, "temperatures": one["temperatures"], "target": kinds[name]}
        for name, one in alone.items()
    }
    return first | {"students": students, "teacher": teacher, "targets": about}, alone


def test_each_target_is_shown_as_alone(rng: np.random.Generator) -> None:
    for swept in ({}, {"alpha": [0.5, 0.9]}):
        results, alone = together(rng, {"class": "softmax", "box": "values", "tag": "sigmoid"}, swept=swept)
        text, page = comparison_text(results), comparison_markdown(results, title="run")
        assert [*views(results)] == ["class", "box", "tag"]
        assert text == "\n\n".join(f"{name}\n{comparison_text(one)}" for name, one in alone.items())
        assert [line for line in page.splitlines() if line.startswith("#")] == [
            "# run",
            "### class",
            "### box",
            "### tag",
        ]
        for one in alone.values():
            assert comparison_markdown(one, title="run").partition("\n\n")[2] in page


def test_students_are_chosen_by_the_first_target(rng: np.random.Generator) -> None:
    results, alone = together(rng, {"box": "values", "class": "softmax"}, swept={"alpha": [0.1, 0.5, 0.9]})
    for number, student in enumerate(results["students"]):
        own = alone["box"]["students"][number]
        own["validation"] = [{**scores, "labelled": 50} for scores in own["scores"][::-1]]
        student["validation"] = [{"rows": 5, "targets": {"box": scores}} for scores in own["validation"]]
    best = best_student(results)
    assert best["label"] == best_student(alone["box"])["label"]
    assert best_seed(results, best) == best_seed(alone["box"], best_student(alone["box"]))


def test_the_card_and_the_pictures_name_each(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOFTLABELS_REPORT")
    manifest = open_store(GOLDEN).manifest
    names = [target.name for target in manifest.spec.targets]
    kinds = {target.name: target.encoding.target for target in manifest.spec.targets}
    results, _ = together(rng, kinds, swept={"alpha": [0.5, 0.9]})
    results["shared_rows"], results["split_rows"] = {}, {"train": 5}
    prepare = ObjectSpec("none")
    card = model_card(
        results, RECIPE, stores={"train": manifest}, parameters=7, prepare=prepare, folders=["hard-seed0"]
    )
    for name in names:
        assert f"- Gives of `{name}` " in card
        assert f"### {name}\n" in card
        assert f"f `{name}` it gives" in card
    assert "a mapping of them by name" in card
    assert "session.run(None," in card
    lines = made_up.log(rng, epochs=3)
    for line in lines:
        if "errors" in line:
            line["targets"] = {name: made_up.scores(rng, temperatures=[1.0], target=kinds[name]) for name in names}
    folder = LocalFolder(tmp_path)
    for name in ("hard-seed0", "distilled-alpha=0.5-seed0"):
        folder.within(name).make()
        folder.within(name).put("metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    pictures = draw(folder, ["hard-seed0", "distilled-alpha=0.5-seed0"], results)
    assert pictures == [*(f"sweep-{name}.png" for name in names), "curves.png"]
    for picture, made in zip(("curves.png", *pictures[:-1]), drawn, strict=True):
        check_whole(tmp_path / picture, made)
