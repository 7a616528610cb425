"""The comparison that ends a student run: teacher, students with hard labels, distilled students, on one held-out split.

Made from the mapping that `results.json` holds, and from nothing else, so that a finished run can be shown again::

    {"split": "test", "rows": 500, "temperatures": [1.0, 4.0], "seeds": [0, 1], "swept": ["temperature"],
     "teacher": {"ensemble": [scores, ..], "members": {"name": [scores, ..]}},
     "students": [{"label": "hard", "kind": "hard", "settings": {}, "scores": [scores, ..]},
                  {"label": "distilled, T=4", "kind": "distilled",
                   "settings": {"temperature": 4.0, "alpha": 0.9, "loss": "forward_kl"}, "scores": [scores, ..]}, ..]}

`shared_rows` and `split_rows` (see `softlabels.checks.leaks`) and `class_names` may be there too.
Scores stand one a seed (one in all for a teacher judged once), with the names of `metrics.jsonl`; where there were validation
rows, a student has `validation`, its scores on them. A sweep has several distilled students; `swept` names what differs
between them. A temperature or alpha that follows a schedule is its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softlabels.errors import one_line
from softlabels.report.findings import findings
from softlabels.report.spread import Spread, paired_difference, spread
from softlabels.report.table import Scores, Table, as_markdown, as_text, errors_cell, kl_cell, results_table
from softlabels.store.markdown import escaped

Results = Mapping[str, Any]
Student = Mapping[str, Any]


def comparison_text(results: Results) -> str:
    """For a terminal: what was judged on, the table, what the difference is. A sweep's table has more columns than a
    terminal has room for: ECE and Brier are on the page only.
    """
    table = comparison_table(results)
    table = table.without("ECE", "Brier") if len(distilled_students(results)) > 1 else table
    return "\n".join([_title(results), "", as_text(table), "", *map(one_line, statements(results))])


def comparison_markdown(results: Results, *, title: str) -> str:
    """The same as a Markdown page."""
    return f"# {escaped(title)}\n\n{comparison_body(results)}"


def comparison_body(results: Results) -> str:
    """The page without its heading: what was judged on, the table, the statements as a list."""
    lines = "\n".join(f"- {escaped(line)}" for line in statements(results))
    return f"{escaped(_title(results))}\n\n{as_markdown(comparison_table(results))}\n{lines}\n"


def comparison_table(results: Results) -> Table:
    """A line for each of the teacher's members, the ensemble, and each student.

    One distilled student: KL at 1 and at its temperature. Several: KL at 1 and at each one's own temperature, and how
    far each is ahead of the hard student.
    """
    lines = _lines(results)
    sweep = len(distilled_students(results)) > 1
    table = results_table(lines, temperatures=[] if sweep else results["temperatures"])
    if not sweep:
        return table
    students = results["students"]
    before = [""] * (len(lines) - len(students))
    own = {
        ("KL at own T", "KL at T=1"): [_own_kl(student) for student in students],
        ("validation errors", "errors"): [_validation_errors(student) for student in students],
        ("hard - distilled (SE)", "errors"): [_ahead(results, student) for student in students],
    }
    for (title, after), cells in own.items():
        table = table.with_column(title, before + cells, after=after) if any(cells) else table
    return table


def distilled_students(results: Results) -> list[Student]:
    """The distilled students in the order of the sweep."""
    return [student for student in results["students"] if student["kind"] == "distilled"]


def best_student(results: Results) -> Student:
    """The distilled student of the setting with the fewest validation errors; the first where they were not counted."""

    def errors(student: Student) -> float:
        return float(sum(scores.get("errors", 0) for scores in student.get("validation", ())))

    return min(distilled_students(results) or results["students"], key=errors)


def best_seed(results: Results, student: Student) -> int:
    """The place of a student's seed with the fewest validation errors among the seeds; 0 where they were not counted."""
    errors = [scores.get("errors", 0) for scores in student.get("validation", ())] or [0]
    return errors.index(min(errors))


def hard_student(results: Results) -> Student | None:
    """The student trained with hard labels only, if there is one."""
    return next((student for student in results["students"] if student["kind"] == "hard"), None)


def statements(results: Results) -> list[str]:
    """What the table says about distilling, a sentence a line, and what else a reader should know."""
    return [*_statements(results), *findings(results)]


def _statements(results: Results) -> list[str]:
    distilled = distilled_students(results)
    if len(distilled) > 1:
        return _statements_of_sweep(results)
    lines = []
    for student in distilled:
        ahead, behind = _fewer_than_hard(results, student), _more_than_teacher(results, student)
        lines += [f"hard - distilled: {_difference(ahead)}"] if ahead else []
        lines += [f"distilled - its teacher: {_difference(behind)}"] if behind else []
        agreement = spread([scores["agreement"] for scores in student["scores"]]).mean
        lines.append(f"the distilled student gives its teacher's answer on {agreement:.1%} of the {judged(results)[1]}")
    return lines


def _statements_of_sweep(results: Results) -> list[str]:
    distilled = distilled_students(results)
    swept = ", ".join(results.get("swept", ()))
    each = f"each of {len(distilled)} settings of {swept}" if swept else f"each of {len(distilled)} distilled students"
    lines = []
    if any(_fewer_than_hard(results, student) for student in distilled):
        seeds = len(results["seeds"])
        paired = (
            f"mean and standard error (SE) over {seeds} seeds, paired" if seeds > 1 else "one seed: no standard error"
        )
        lines.append(f"hard - distilled, for {each}: {paired}")
    behind = [
        (found.mean, student["label"]) for student in distilled if (found := _more_than_teacher(results, student))
    ]
    if behind:
        (least, nearest), (most, farthest) = min(behind), max(behind)
        lines.append(f"distilled - its teacher: from {least:+.1f} errors ({nearest}) to {most:+.1f} ({farthest})")
    held_out = sorted(
        {scores.get("labelled") or 0 for student in distilled for scores in student.get("validation", ())} - {0}
    )
    if held_out:
        lines.append(f"validation errors are of {' or '.join(f'{rows:,}' for rows in held_out)} rows with a hard label")
    if swept:
        lines.append(
            f"the best of {len(distilled)} settings on this split is chosen with the rows that judge it: choose by the "
            "validation errors, or judge the choice on other rows"
        )
    return lines


def _title(results: Results) -> str:
    seeds = results["seeds"]
    spread_over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    count, what = judged(results)
    rows = f"{results['rows']} rows" + ("" if what == "rows" else f" with {count:,} {what}")
    labelled = next(
        (scores.get("labelled", count) for student in results["students"] for scores in student["scores"]), count
    )
    if labelled != count:
        rows += f", {labelled:,} of them with a hard label: errors, NLL, ECE and Brier are over these"
    return one_line(f"Held-out split {results['split']!r}, {rows}; students: {spread_over}.")


def judged(results: Results) -> tuple[int, str]:
    """How many samples the scores are over, and what they are: rows, or of rows of tokens each token that counts."""
    count = next((scores["rows"] for student in results["students"] for scores in student["scores"]), results["rows"])
    return count, "rows" if count == results["rows"] else "tokens"


def _lines(results: Results) -> list[tuple[str, Sequence[Scores]]]:
    teacher = results["teacher"]
    lines: list[tuple[str, Sequence[Scores]]] = []
    if len(teacher["members"]) > 1:
        lines += [(f"teacher {name}", runs) for name, runs in teacher["members"].items()]
    lines.append(("ensemble" if len(teacher["members"]) > 1 else "teacher", teacher["ensemble"]))
    kind = "" if len(distilled_students(results)) > 1 else "student, "  # the labels of a sweep are long enough
    return lines + [(f"{kind}{student['label']}", student["scores"]) for student in results["students"]]


def _own_kl(student: Student) -> str:
    """KL at the temperature that a student was trained at, the last one of a schedule; empty with hard labels."""
    temperature = student["settings"].get("temperature")
    return "" if temperature is None else kl_cell(student["scores"], float(str(temperature).rpartition(":")[2]))


def _ahead(results: Results, student: Student) -> str:
    """How many errors fewer than the hard student's, and the standard error: "+12.3 (1.9)"."""
    found = _fewer_than_hard(results, student)
    if found is None or student["kind"] != "distilled":
        return ""
    error = "" if found.standard_error is None else f" ({found.standard_error:.1f})"
    return f"{found.mean:+.1f}{error}"


def _validation_errors(student: Student) -> str:
    """Errors on the validation rows, by which a setting may be chosen; empty where there were none."""
    runs = student.get("validation", [])
    return errors_cell(runs) if runs and all("errors" in scores for scores in runs) else ""


def _fewer_than_hard(results: Results, student: Student) -> Spread | None:
    """Hard - distilled; None where there is no such student."""
    hard = hard_student(results)
    return None if hard is None else _more_errors(hard["scores"], student["scores"])


def _more_than_teacher(results: Results, student: Student) -> Spread | None:
    """Distilled - teacher, which may be judged once for all seeds."""
    teacher, runs = results["teacher"]["ensemble"], student["scores"]
    return _more_errors(runs, teacher * len(runs) if len(teacher) == 1 else teacher)


def _more_errors(runs: Sequence[Scores], others: Sequence[Scores]) -> Spread | None:
    """How many more errors than others, seed by seed; None where no row has a label."""
    if not all("errors" in scores for scores in [*runs, *others]):
        return None
    return paired_difference([scores["errors"] for scores in runs], [scores["errors"] for scores in others])


def _difference(found: Spread) -> str:
    errors = f"{found.mean:+.1f} errors"
    if found.standard_error is None:
        return f"{errors} (one seed: no standard error)"
    paired = f"{errors}, standard error {found.standard_error:.1f} (paired over {found.count} seeds)"
    return f"{paired}: {found.mean / found.standard_error:.1f} standard errors" if found.standard_error else paired
