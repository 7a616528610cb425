"""What a run's students say of held-out rows: against their weights in numpy, and what is counted against its definition."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax

from softlabels.errors import ConfigError, DamagedRun, StrangePath
from softlabels.jobs import student_answers
from softlabels.jobs.report_runs import GivenRun, shown_run
from softlabels.jobs.student_answers import Said, ask_students, chosen_students, even
from softlabels.jobs.train import Run, train
from softlabels.jobs.watch import Watch
from softlabels.models import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.pages.runs import runs_sections
from softlabels.pages.shown_run import calibration_of, classes_of, curves_of, sweep_of
from softlabels.store import open_store
from softlabels.student.sweep import StudentTraining
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferSetConfig
from softlabels_stages.schema import typed
from tests.jobs.targets import Case, write
from tests.stages import toy

QUIET = Watch(lambda line: None, lambda line: None)
NET = ModelConfig("softlabels.models.MLP", {"inputs": toy.FEATURES, "hidden": [8], "classes": toy.CLASSES})
ADAM = ObjectSpec("torch.optim.Adam", {"lr": 0.03})
HOW = StudentTraining(
    temperature=(1.0, 4.0), epochs=3, batch_size=32, seeds=(0, 1), optimizer=ADAM, hard_label_fraction=0.3, device="cpu"
)
POINTS = typed(TransferSetConfig, toy.recipe()["transfer_set"], where="toy")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def run(work: Path) -> Run:
    """A sweep over the toy store, which does not hold its inputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABELS_CACHE", str(work / "cache"))
        return train(NET, toy.write_store(work / "store"), HOW, transfer_set=POINTS, out=work / "run", watch=QUIET)


@pytest.fixture
def said(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setenv("SOFTLABELS_CACHE", str(work / "cache"))
    return ask(run, work)


def ask(run: Run, work: Path, **changes: Any) -> Said:
    given: dict[str, Any] = {"transfer_set": POINTS, "watch": QUIET} | changes
    return ask_students(LocalFolder(run.path), run.results, NET, HOW, work / "store", **given)


def logits_of(folder: Path, inputs: np.ndarray) -> np.ndarray:
    """What a student's weights say, in float64."""
    w = {name: each.astype(np.float64) for name, each in load_file(folder / "weights.safetensors").items()}
    hidden = np.maximum(inputs @ w["layers.0.weight"].T + w["layers.0.bias"], 0)
    return hidden @ w["head.weight"].T + w["head.bias"]


def error_of(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error by its definition."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    places = np.clip(np.ceil(sure * 15).astype(int), 1, 15)
    parts = [places == place for place in range(1, 16)]
    return float(sum(abs(right[part].mean() - sure[part].mean()) * part.mean() for part in parts if part.any()))


def test_answers_and_calibration_are_those_of_the_weights(run: Run, said: Said) -> None:
    points = toy.points("test")
    chosen = {each.kind: each for each in chosen_students(run.results)}
    ours = {each.kind: each for each in said.answers}
    z = {kind: logits_of(run.path / each.folder, points["x"]) for kind, each in chosen.items()}
    for kind, each in ours.items():
        assert each.label == f"student, {chosen[kind].label}"
        assert each.rows.tolist() == list(range(80))
        np.testing.assert_allclose(each.outputs, z[kind], atol=1e-5)
    [found] = said.held_out
    assert (found.rows, found.of, found.positions, found.labelled) == (80, 80, 80, 80)
    assert 1.0 in found.grid
    members = toy.teacher_logits(points["x"]).astype(np.float16).astype(np.float64)
    for number in (0, found.grid.index(1.0), len(found.grid) - 1):
        T = found.grid[number]
        assert found.calibration_errors("ensemble")[number] == pytest.approx(
            error_of(softmax(members / T, axis=-1).mean(1), points["label"]), abs=1e-3
        )
        for kind, each in chosen.items():
            expected = error_of(softmax(z[kind] / T, axis=-1), points["label"])
            assert found.calibration_errors(each.label)[number] == pytest.approx(expected, abs=1e-6)
    right = {kind: each.argmax(1) == points["label"] for kind, each in z.items()}
    assert found.right is not None
    for hard in (0, 1):
        for distilled in (0, 1):
            where = (right["hard"] == hard) & (right["distilled"] == distilled)
            expected = np.bincount(points["label"][where], minlength=toy.CLASSES)
            assert found.right[:, hard, distilled].tolist() == expected.tolist()


def test_the_best_setting_and_seed_by_validation_stand_for_a_run(run: Run) -> None:
    hard, distilled = chosen_students(run.results)

    def best(kind: str) -> str:
        of_kind = [each for each in run.results["students"] if each["kind"] == kind]
        each = min(of_kind, key=lambda one: sum(scores["errors"] for scores in one["validation"]))
        errors = [scores["errors"] for scores in each["validation"]]
        return f"{each['label'].replace(', ', '-')}-seed{errors.index(min(errors))}"

    assert (hard.folder, distilled.folder) == (best("hard"), best("distilled"))
    other = json.loads(json.dumps(run.results))
    for student in other["students"]:  # now seed 1 is the best, and T = 4
        errors = (99, 98) if student["label"] == "distilled, T=1" else (50, 10)
        student["validation"] = [
            scores | {"errors": n} for scores, n in zip(student["validation"], errors, strict=True)
        ]
    assert [each.folder for each in chosen_students(other)] == ["hard-seed1", "distilled-T=4-seed1"]


def test_a_sample_is_even_and_answers_keep_to_their_room(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    keys = rng.integers(0, 256, (1000, 16), dtype=np.uint8)
    picked = even(keys, 100)
    assert len(picked) == 100
    np.testing.assert_allclose(np.sort(keys[picked, 0]), np.linspace(0, 255, 100), atol=30)
    order = rng.permutation(1000)
    assert {*order[even(keys[order], 100)].tolist()} == {*picked.tolist()}

    monkeypatch.setenv("SOFTLABELS_CACHE", str(work / "cache"))
    monkeypatch.setattr(student_answers, "MOST_ROWS", 40)
    monkeypatch.setattr(student_answers, "KEPT", 10 * toy.CLASSES)
    fewer = ask(run, work)
    assert (fewer.held_out[0].rows, fewer.held_out[0].of, fewer.held_out[0].positions) == (40, 80, 40)
    folders = {each.kind: each.folder for each in chosen_students(run.results)}
    for each in fewer.answers:
        assert len(each.rows) == 10
        there = logits_of(run.path / folders[each.kind], toy.points("test")["x"][each.rows])
        np.testing.assert_allclose(each.outputs, there, atol=1e-5)


@pytest.mark.parametrize("positions", ["", "ragged"])
def test_every_kind_of_target(tmp_path: Path, positions: str) -> None:
    store = write(tmp_path / "store", Case({"class": "softmax", "box": "values", "tag": "sigmoid"}, positions))
    model = ModelConfig("tests.jobs.targets.Heads", {"outputs": {"class": 4, "box": 2, "tag": 3}})
    how = StudentTraining(epochs=1, batch_size=32, device="cpu")
    run = train(model, store, how, out=tmp_path / "run", watch=QUIET)
    shown, answers = shown_run(GivenRun(run.path, model, how), store, {"test": open_store(store, split="test")}, QUIET)
    assert shown.untold == ""
    assert {(each.target, each.kind) for each in answers["test"]} == {
        (target, kind) for target in ("class", "box", "tag") for kind in ("hard", "distilled")
    }
    assert [each.target for each in shown.held_out] == ["class", "tag"]
    for each in shown.held_out:  # over all rows, of a single seed: the scores of the run itself
        at = each.grid.index(1.0)
        scored = {one["label"]: one["scores"][0]["targets"][each.target]["ece"] for one in run.results["students"]}
        scored["ensemble"] = run.results["teacher"]["ensemble"][0]["targets"][each.target]["ece"]
        assert {name: each.calibration_errors(name)[at] for name in each.kinds} == pytest.approx(scored, abs=1e-6)
    [section] = runs_sections([shown])
    assert "Target box" in section.html


def test_rows_that_validation_cut_from_the_training_rows(tmp_path: Path) -> None:
    store = write(tmp_path / "store", Case({"": "softmax"}))
    shutil.rmtree(store / "test")
    model, how = ModelConfig("tests.jobs.targets.Net", {"outputs": 4}), replace(HOW, temperature=2.0, validation=0.25)
    run = train(model, store, how, out=tmp_path / "run", watch=QUIET)
    shown, answers = shown_run(GivenRun(run.path, model, how), store, {"train": open_store(store / "train")}, QUIET)
    assert shown.held_out[0].split == "validation"
    assert shown.held_out[0].of == run.results["rows"] == len(answers["train"][0].rows)


def test_what_a_page_says_of_a_sweep(run: Run, said: Said) -> None:
    shown, _ = shown_run(GivenRun(run.path), "unused", {})
    curves, step = curves_of(shown)
    assert step == 1
    assert [panel["title"] for panel in curves] == ["training loss", "validation loss", "errors", "learning rate"]
    assert {line["name"] for line in curves[0]["lines"]} == {
        f"{kind}-seed{seed}" for kind in ("hard", "distilled-T=1", "distilled-T=4") for seed in (0, 1)
    }
    log = [json.loads(line) for line in (run.path / "hard-seed1" / "metrics.jsonl").read_text().splitlines()]
    own = next(line for line in curves[0]["lines"] if line["name"] == "hard-seed1")
    assert own["values"] == pytest.approx([line["train_loss"] for line in log if "epoch" in line], rel=1e-4)
    panels = sweep_of(run.results)
    test = next(panel for panel in panels if panel["title"].startswith("errors, test"))
    students = [each for each in run.results["students"] if each["kind"] == "distilled"]
    for point, student in zip(test["points"], students, strict=True):
        errors = [scores["errors"] for scores in student["scores"]]
        assert (point["mean"], point["high"] - point["mean"]) == pytest.approx(
            (np.mean(errors), np.std(errors, ddof=1)), abs=1e-3
        )
    classes = classes_of(run.results)
    assert classes is not None
    hard = run.results["students"][0]["scores"]
    assert [point["wrong"] for point in classes["points"] if point["kind"] == "hard"] == pytest.approx(
        1 - np.mean([scores["classes"]["recall"] for scores in hard], axis=0), abs=1e-4
    )
    found = calibration_of(said.held_out[0])
    for model in found["models"]:
        for at in model["at"]:
            rows = sum(n for _, _, n in at["bins"])
            gap = sum(abs(right - sure) * n for sure, right, n in at["bins"]) / rows
            assert (rows, gap) == (80, pytest.approx(at["ece"], abs=1e-4))


def test_what_is_no_run_or_another_store_s(run: Run, work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run; name the folder of a finished train-student run"):
        shown_run(GivenRun(work / "store"), "unused", {})
    other = write(tmp_path / "other", Case({"": "softmax"}))
    given = GivenRun(run.path, NET, HOW, POINTS)
    shown, answers = shown_run(given, other, {"test": open_store(other, split="test")}, QUIET)
    assert ([*answers.values()], shown.held_out) == ([[]], [])
    [section] = runs_sections([shown])
    assert "over another store (the digest of its split test is another)" in section.html
    assert "hard - distilled" in section.html

    shown, answers = shown_run(replace(given, transfer_set=None), work / "store", own_store(work), QUIET)
    assert [*answers.values()] == [[]]
    assert "this store holds no inputs" in shown.untold
    assert "this store holds no inputs" in runs_sections([shown])[0].html


def own_store(work: Path) -> dict[str, Any]:
    return {"test": open_store(work / "store", split="test")}


def test_a_stranger_s_run_is_data(run: Run, work: Path, tmp_path: Path) -> None:
    copy = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(run.path, copy)
    results = json.loads((copy / "results.json").read_text())
    hostile = "distilled, </script><img src=x onerror=alert(1)>"
    for student in results["students"][1:]:
        student["label"] = hostile
    results["students"][0]["label"] = "../../hard"  # whose folder would lie outside
    results["seeds"] = ["0", "1"]
    (copy / "results.json").write_text(json.dumps(results))
    shown, _ = shown_run(GivenRun(copy), work / "store", own_store(work), QUIET)
    [section] = runs_sections([shown])
    assert "<script" not in section.html
    assert "<img" not in section.html
    assert "&lt;img src=x" in section.html
    assert not shown.sizes

    results["students"][1]["scores"][0]["classes"] = {"recall": "abc", "labelled": [1]}
    (copy / "results.json").write_text(json.dumps(results))
    with pytest.raises(DamagedRun, match="holds results or logs that a run does not write"):
        shown_run(GivenRun(copy), work / "store", own_store(work), QUIET)


def test_no_link_in_a_run_is_followed(run: Run, work: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    chosen = chosen_students(run.results)[0].folder
    shutil.rmtree(copy / chosen)
    (copy / chosen).symlink_to(run.path / chosen)
    with pytest.raises(StrangePath):
        shown_run(GivenRun(copy), work / "store", own_store(work), QUIET)
