"""What is said class by class, and the findings beside the table, from results that never were."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score

from softlabels.report.by_class import class_lines, class_table, confusion_table, has_classes
from softlabels.report.comparison import best_seed, best_student, comparison_text, statements
from softlabels.report.findings import findings
from softlabels.student.metrics import Metrics
from tests.report import made_up


def run(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, Any]:
    """The scores of a model that gives these answers."""
    metrics = Metrics(by_class=True)
    metrics.update(torch.eye(classes)[torch.from_numpy(predicted)] * 5, torch.from_numpy(labels), None)
    return dict(metrics.result())


def test_the_table_has_means_over_seeds(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 90)
    answers = [np.where(rng.random(90) < 0.3, rng.integers(0, 3, 90), labels) for _ in range(4)]
    runs = [run(labels, each, 3) for each in answers]
    f1 = np.mean([f1_score(labels, each, average=None) for each in answers], axis=0)
    table = class_table(runs, ["ant", "bee", "cat"])
    assert [line[0] for line in table.lines] == ["ant", "bee", "cat"]
    assert [line[4] for line in table.lines] == [f"{value:.3f}" for value in f1]
    matrix = np.mean([confusion_matrix(labels, each) for each in answers], axis=0)
    cells = confusion_table(runs, None)
    assert cells is not None
    shown = np.array([[float(cell) for cell in line[1:]] for line in cells.lines])
    assert np.abs(shown - matrix).max() <= 0.051
    macro, mistakes = class_lines(runs, None)
    assert f"F1 {f1.mean():.3f}" in macro
    worst = max((matrix[i, j], i, j) for i in range(3) for j in range(3) if i != j)
    assert f": {worst[1]} as {worst[2]} " in mistakes


def test_of_many_classes_the_worst_are_shown(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(50), 4)
    predicted = np.where(labels < 3, 7, labels)
    found = [run(labels, predicted, 50)]
    assert [line[0] for line in class_table(found, None).lines][:3] == ["0", "1", "2"]
    assert len(class_table(found, None).lines) == 20
    assert confusion_table(found, None) is None
    assert "0 as 7 4, 1 as 7 4, 2 as 7 4" in class_lines(found, None)[1]


def test_nothing_is_shown_of_rows_without_labels() -> None:
    assert not has_classes([run(np.full(9, -1), np.arange(9) % 3, 3)])
    assert not has_classes([])


def test_each_finding_is_a_line(rng: np.random.Generator) -> None:
    """Seen to fail: nothing was said of any of them."""
    found = made_up.results(rng, seeds=2)
    assert findings(found | {"teacher": {**found["teacher"], "members": {}}}) == []
    labels = rng.integers(0, 3, 500)
    for scores in found["students"][0]["scores"]:
        scores |= run(labels, np.full(500, 2), 3)
    for runs in (found["teacher"]["ensemble"], *found["teacher"]["members"].values()):
        runs[0]["errors"] = 16
    found["teacher"]["members"]["1: Net"][0]["errors"] = 13
    found |= {
        "class_names": ["a", "b", "no"],
        "shared_rows": {"test in train": 500},
        "split_rows": {"train": 900, "test": 500},
    }
    assert findings(found) == [
        "500 of 500 test rows are train rows too (equal content keys)",
        "the student hard always answers one class (no), with 2 of 2 seeds",
        "teacher 1: Net makes 13 errors on these rows, the ensemble 16: --members=1 trains from it alone; compare them on "
        "other rows",
    ]
    assert set(findings(found)) < set(statements(found))


def test_errors_say_of_how_many_labelled_rows_they_are(rng: np.random.Generator) -> None:
    """Seen to fail: "600 rows, errors 158" where 200 have a label."""
    found = made_up.results(rng, swept={"temperature": [1.0, 4.0]})
    found["rows"] = 600
    for student in found["students"]:
        student["validation"] = [{"errors": 3, "labelled": 40} for _ in student["scores"]]
        for scores in student["scores"]:
            scores |= {"rows": 600, "labelled": 200}
    said = comparison_text(found)
    assert "600 rows, 200 of them with a hard label: errors, NLL, ECE and Brier are over these;" in said
    assert "validation errors are of 40 rows with a hard label" in said
    of_positions = comparison_text(found | {"rows": 60, "counted": "positions"})
    assert "60 rows with 600 positions, 200 of them with a hard label" in of_positions
    assert "validation errors are of 40 positions with a hard label" in of_positions


def test_the_best_student_is_that_of_the_validation_rows(rng: np.random.Generator) -> None:
    found = made_up.results(rng, swept={"temperature": [1.0, 4.0, 8.0]})
    assert (best_student(found)["label"], best_seed(found, best_student(found))) == ("distilled, T=1", 0)
    for place, student in enumerate(found["students"]):
        student["validation"] = [{"errors": abs(place - 2) * 10 + seed % 2 * -1} for seed in range(3)]
    assert (best_student(found)["label"], best_seed(found, best_student(found))) == ("distilled, T=4", 1)
