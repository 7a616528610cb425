"""The comparison of a run: every student in its line, differences paired by seed, nobody crowned after the fact."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from softlabels.report.comparison import comparison_markdown, comparison_table, comparison_text, judged
from tests.report import made_up


def errors(found: dict[str, Any], label: str) -> np.ndarray:
    student = next(student for student in found["students"] if student["label"] == label)
    return np.array([scores["errors"] for scores in student["scores"]])


def cells(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The table's cells by line and title."""
    table = comparison_table(found)
    return {line[0]: dict(zip(table.titles, line, strict=True)) for line in table.lines}


def test_one_setting_is_compared_in_a_sentence(rng: np.random.Generator) -> None:
    found = made_up.results(rng, seeds=4)
    text = comparison_text(found)
    difference = errors(found, "hard") - errors(found, "distilled")
    mean, error = difference.mean(), difference.std(ddof=1) / 2
    said = f"hard - distilled: {mean:+.1f} errors, standard error {error:.1f} (paired over 4 seeds)"
    assert said in text
    assert f"{said}: {mean / error:.1f} standard errors" in text
    behind = errors(found, "distilled") - found["teacher"]["ensemble"][0]["errors"]
    assert f"distilled - its teacher: {behind.mean():+.1f} errors" in text
    names = ["teacher 0: Net", "teacher 1: Net", "ensemble", "student, hard", "student, distilled"]
    assert list(cells(found)) == names
    assert {"KL at T=1", "KL at T=4"} < set(cells(found)["ensemble"])


def test_a_sweep_is_one_table_with_a_difference_for_each_setting(rng: np.random.Generator) -> None:
    found = made_up.results(rng, swept={"temperature": [1.0, 4.0, "cosine:20:2"], "alpha": [0.5, 0.9]}, seeds=5)
    lines = cells(found)
    labels = [student["label"] for student in found["students"]]
    assert list(lines)[3:] == labels  # each setting, in order
    assert labels[1:3] == ["distilled, T=1, alpha=0.5", "distilled, T=1, alpha=0.9"]
    for student in found["students"][1:]:
        cell = lines[student["label"]]
        difference = errors(found, "hard") - errors(found, student["label"])
        expected = f"{difference.mean():+.1f} ({difference.std(ddof=1) / 5**0.5:.1f})"
        assert cell["hard - distilled (SE)"] == expected
        last = str(student["settings"]["temperature"]).rpartition(":")[2]  # of a schedule
        kl = np.array([scores["kl"][f"{float(last):g}"] for scores in student["scores"]])
        assert cell["KL at own T"] == f"{kl.mean():.4f} ± {kl.std(ddof=1):.4f}"
    assert lines["hard"]["hard - distilled (SE)"] == lines["ensemble"]["KL at own T"] == ""
    assert [title for title in lines["hard"] if title.startswith("KL")] == ["KL at T=1", "KL at own T"]

    text = comparison_text(found)
    assert "hard - distilled, for each of 6 settings of temperature, alpha" in text
    assert "choose by the validation errors" in text
    behind = {label: errors(found, label).mean() - found["teacher"]["ensemble"][0]["errors"] for label in labels[1:]}
    assert f"from {min(behind.values()):+.1f} errors" in text
    assert f"to {max(behind.values()):+.1f} (" in text
    assert max(map(len, text.splitlines()[:12])) <= 140  # the table fits a terminal
    assert "ECE" in comparison_markdown(found, title="a sweep")


def test_students_that_were_changed_afterwards_are_compared_with_the_hard_one(rng: np.random.Generator) -> None:
    found = made_up.results(rng)
    changed = [student | {"label": f"{student['label']}, corrected"} for student in made_up.results(rng)["students"]]
    found["students"] += changed
    lines, text = cells(found), comparison_text(found)
    difference = errors(found, "hard") - errors(found, "distilled, corrected")
    assert lines["distilled, corrected"]["hard - distilled (SE)"].startswith(f"{difference.mean():+.1f} (")
    assert lines["hard, corrected"]["hard - distilled (SE)"] == ""
    assert "for each of 2 distilled students" in text
    assert "the best of" not in text


@pytest.mark.parametrize("change", [{"hard": False}, {"labels": False}, {"seeds": 1}, {"members": 1}])
@pytest.mark.parametrize("swept", [{}, {"temperature": [1.0, 8.0]}], ids=["one", "sweep"])
def test_what_was_not_measured_is_left_out(rng: np.random.Generator, change: Any, swept: Any) -> None:
    found = made_up.results(rng, **{"swept": swept} | change)
    text = comparison_text(found)
    assert ("hard - distilled" in text) == ("hard" not in change and "labels" not in change)
    assert ("its teacher: " in text) == ("labels" not in change)
    assert ("no standard error" in text) == ("seeds" in change)
    assert ("\nensemble" in text) == ("members" not in change)
    assert ("hard - distilled (SE)" in text) == (bool(swept) and "hard" not in change and "labels" not in change)


HOSTILE = ["a\n# b", "a|b", "<script>", "`x`", "\x1b[31mred", "a\u202eb", "[x](http://y)", "---"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_name_stays_in_its_cell(rng: np.random.Generator, name: str) -> None:
    found = made_up.results(rng)
    harmless = comparison_markdown(found, title="run"), comparison_text(found)
    first, second = found["teacher"]["members"].values()
    found["teacher"]["members"] = {name: first, "b": second}
    page, text = comparison_markdown(found, title=name), comparison_text(found)
    assert page.count("\n") == harmless[0].count("\n")
    assert text.count("\n") == harmless[1].count("\n")
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")}) == 1
    assert not re.search(r"(?<!\\)[<`\[]", page)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page + text)


def test_the_errors_on_validation_rows_stand_beside_those_on_the_test(rng: np.random.Generator) -> None:
    """By them a setting may be chosen; without such rows there is no column."""
    found = made_up.results(rng, swept={"temperature": [1.0, 4.0]})
    assert "validation errors" not in comparison_table(found).titles
    for number, student in enumerate(found["students"]):
        student["validation"] = [{"errors": 7 + number, "rows": 50} for _ in student["scores"]]
    table = comparison_table(found)
    place = table.titles.index("validation errors")
    assert [line[place] for line in table.lines if line[place]] == [
        f"{7 + n:.1f} ± 0.0" for n in range(len(found["students"]))
    ]


def test_rows_of_tokens_are_judged_by_the_token(rng: np.random.Generator) -> None:
    results = made_up.results(rng)
    assert judged(results) == (500, "rows")
    for student in results["students"]:
        for scores in student["scores"]:
            scores["rows"] = scores["labelled"] = 12_345
    assert judged(results) == (12_345, "tokens")
    said = comparison_text(results)
    assert "500 rows with 12,345 tokens;" in said
    assert "% of the tokens" in said
