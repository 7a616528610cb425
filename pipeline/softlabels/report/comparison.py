"""The comparison that ends a student run: teacher, students with hard labels, distilled students, on one held-out split.

Made from the mapping that `results.json` holds, and from nothing else, so that a finished run can be shown again::

    {"split": "test", "rows": 500, "temperatures": [1.0, 4.0], "seeds": [0, 1], "swept": ["temperature"],
     "teacher": {"ensemble": [scores, ..], "members": {"name": [scores, ..]}},
     "students": [{"label": "hard", "kind": "hard", "settings": {}, "scores": [scores, ..]},
                  {"label": "distilled, T=4", "kind": "distilled",
                   "settings": {"temperature": 4.0, "alpha": 0.9, "loss": "forward_kl"}, "scores": [scores, ..]}, ..]}

Of several targets there is `targets`, see `views`. `counted` says what is scored where it is neither rows nor tokens.
`shared_rows` and `split_rows` (see `softlabels.checks.leaks`) and `class_names` may be there too, and `target`, the kind of
the labels where they are no distributions; `measures` says what is shown of each kind, and by what students are compared. Of
pruned students there is `pruned`, see there.
Scores stand one a seed (one in all for a teacher judged once), with the names of `metrics.jsonl`; where there were validation
rows, a student has `validation`, its scores on them. A sweep has several distilled students; `swept` names what differs
between them. A temperature or alpha that follows a schedule is its text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from softlabels.errors import one_line
from softlabels.report.findings import findings
from softlabels.report.measures import Measure, Results, Scores, kl_at, shown
from softlabels.report.spread import Spread, paired_difference
from softlabels.report.table import Table, as_markdown, as_text, cell, results_table
from softlabels.report.views import first_view, views
from softlabels.store.markdown import escaped

Student = Mapping[str, Any]


def comparison_text(results: Results) -> str:
    """For a terminal: what was judged on, the table, what the difference is; of several targets for each. A sweep's table has
    more columns than a terminal has room for: some are on the page only.
    """
    if "targets" in results:
        parts = (f"{one_line(name)}\n{comparison_text(view)}" for name, view in views(results).items())
        return "\n\n".join(parts)
    table = comparison_table(results)
    table = table.without(*shown(results).left_out) if len(distilled_students(results)) > 1 else table
    return "\n".join([judged_on(results), "", as_text(table), "", *map(one_line, statements(results))])


def comparison_markdown(results: Results, *, title: str) -> str:
    """The same as a Markdown page."""
    return f"# {escaped(title)}\n\n{comparison_body(results)}"


def comparison_body(results: Results) -> str:
    """The page without its heading: what was judged on, the table, the statements as a list; of several targets for each."""
    if "targets" in results:
        parts = (f"### {escaped(name)}\n\n{comparison_body(view)}" for name, view in views(results).items())
        return "\n".join(parts)
    lines = "\n".join(f"- {escaped(line)}" for line in statements(results))
    return f"{escaped(judged_on(results))}\n\n{as_markdown(comparison_table(results))}\n{lines}\n"


def comparison_table(results: Results) -> Table:
    """A line for each of the teacher's members, the ensemble, and each student.

    One distilled student: KL at 1 (or next to it, where the teacher is not known there) and at its temperature. Several: there
    and at each one's own temperature, and how far each is ahead of the hard student. Vectors have no KL.
    """
    lines = _lines(results)
    sweep = len(distilled_students(results)) > 1
    temperatures = results["temperatures"]
    near = 1.0 if 1.0 in temperatures or not temperatures else temperatures[0]
    temperatures = [near] if sweep else temperatures
    table = results_table(lines, temperatures=temperatures, target=results.get("target", "softmax"))
    if not sweep:
        return table
    students, by = results["students"], compared_by(results)
    before = [""] * (len(lines) - len(students))
    own = {
        ("KL at own T", kl_at(near).title): [_own_kl(student) for student in students],
        (f"validation {by.title}", by.title): [_on_validation(student, by) for student in students],
        (f"{by.ahead} (SE)", by.title): [_ahead(results, student) for student in students],
    }
    for (title, after), cells in own.items():
        table = table.with_column(title, before + cells, after=after) if any(cells) else table
    return table


def distilled_students(results: Results) -> list[Student]:
    """The distilled students in the order of the sweep."""
    return [student for student in results["students"] if student["kind"] == "distilled"]


def compared_by(results: Results, of: str = "scores") -> Measure:
    """The measure by which the run's students are compared, of those that their scores (or those of `validation`) have."""
    return shown(results).compared_by([scores for student in results["students"] for scores in student.get(of, ())])


def best_student(results: Results) -> Student:
    """The distilled student of the setting with the fewest validation errors; the first where they were not counted. Of several
    targets by the first; of pruned students among those of which least is left.
    """
    if "targets" in results:
        chosen = best_student(first_view(results))["label"]
        return next(student for student in results["students"] if student["label"] == chosen)
    students = distilled_students(results) or results["students"]
    least = min(student.get("left", 1.0) for student in students)
    standing = [student for student in students if student.get("left", 1.0) == least]
    return min(standing, key=lambda student: sum(_costs(results, student)))


def best_seed(results: Results, student: Student) -> int:
    """The place of a student's seed with the fewest validation errors among the seeds; 0 where they were not counted."""
    if "targets" in results:
        view = first_view(results)
        return best_seed(view, next(each for each in view["students"] if each["label"] == student["label"]))
    costs = _costs(results, student) or [0]
    return costs.index(min(costs))


def _costs(results: Results, student: Student) -> list[float]:
    """What each seed's validation scores have of the main measure, the lower the better; 0 where it was not taken."""
    by = compared_by(results, "validation")
    values = [(by.found([scores]) or [0.0])[0] for scores in student.get("validation", ())]
    return [math.inf if value is None else -value if by.is_higher_better else value for value in values]


def hard_student(results: Results) -> Student | None:
    """The student trained with hard labels only, if there is one."""
    return next((student for student in results["students"] if student["kind"] == "hard"), None)


def statements(results: Results) -> list[str]:
    """What the table says about distilling, a sentence a line, and what else a reader should know."""
    return [*_statements(results), *findings(results)]


def _statements(results: Results) -> list[str]:
    distilled = distilled_students(results)
    if "pruned" in results:
        return _statements_of_pruned(results)
    if len(distilled) > 1:
        return _statements_of_sweep(results)
    lines, by = [], compared_by(results)
    for student in distilled:
        ahead, behind = _ahead_of_hard(results, student), _more_than_teacher(results, student)
        lines += [f"{by.ahead}: {_difference(ahead, by)}"] if ahead else []
        lines += [f"distilled - its teacher: {_difference(behind, by)}"] if behind else []
        near = shown(results).near_teacher([student["scores"]])
        lines.append(f"the distilled student {near} the {judged(results)[1]}")
    return lines


def _statements_of_sweep(results: Results) -> list[str]:
    distilled = distilled_students(results)
    swept = ", ".join(results.get("swept", ()))
    each = f"each of {len(distilled)} settings of {swept}" if swept else f"each of {len(distilled)} distilled students"
    lines = []
    by = compared_by(results)
    if any(_ahead_of_hard(results, student) for student in distilled):
        seeds = len(results["seeds"])
        paired = (
            f"mean and standard error (SE) over {seeds} seeds, paired" if seeds > 1 else "one seed: no standard error"
        )
        lines.append(f"{by.ahead}, for {each}: {paired}")
    behind = [
        (found.mean, student["label"]) for student in distilled if (found := _more_than_teacher(results, student))
    ]
    if behind:
        (least, nearest), (most, farthest) = min(behind), max(behind)
        ends = f"from {least:+{by.form}} {by.title} ({nearest}) to {most:+{by.form}} ({farthest})"
        lines.append(f"distilled - its teacher: {ends}")
    held_out = sorted(
        {scores.get("labelled") or 0 for student in distilled for scores in student.get("validation", ())} - {0}
    )
    if held_out and not by.is_about_teacher:
        counts, verb = " or ".join(f"{rows:,}" for rows in held_out), "are" if by.title == "errors" else "is"
        lines.append(f"validation {by.title} {verb} of {counts} {judged(results)[1]} with a hard label")
    if swept:
        lines.append(
            f"the best of {len(distilled)} settings on this split looks better than it is, since these rows chose it: choose "
            f"by the validation {by.title}, or judge the choice on other rows"
        )
    return lines


def _statements_of_pruned(results: Results) -> list[str]:
    """What deleting cost each kind of student, and how far those of either kind are apart where as much is left."""
    by, whole, lines = compared_by(results), dict[str, Student](), []
    hard = {_end(student): student for student in results["students"] if student["kind"] == "hard"}
    for student in results["students"]:
        begun = whole.setdefault(student["label"].rpartition(", ")[0], student)
        cost = _more(by, student["scores"], begun["scores"])
        if cost and student is not begun:
            lines.append(f"{student['label']} - {_end(begun)}: {_difference(cost, by)}")
        if student["kind"] == "distilled" and _end(student) in hard:
            pair = [hard[_end(student)]["scores"], student["scores"]]
            ahead = _more(by, *(reversed(pair) if by.is_higher_better else pair))
            lines += [f"{student['label']}: {by.ahead}: {_difference(ahead, by)}"] if ahead else []
    return lines


def _end(student: Student) -> str:
    """What the name of a pruned student says of how much is left."""
    return str(student["label"]).rpartition(", ")[2]


def teacher_name(results: Results) -> str:
    """What the mean of the members is called: of one member it is no ensemble."""
    return "ensemble" if len(results["teacher"]["members"]) > 1 else "teacher"


def judged_on(results: Results) -> str:
    """Which rows everyone was judged on, and over how many seeds."""
    seeds = results["seeds"]
    spread_over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    count, what = judged(results)
    rows = f"{results['rows']:,} rows" + ("" if what == "rows" else f" with {count:,} {what}")
    labelled = next(
        (scores.get("labelled", count) for student in results["students"] for scores in student["scores"]), count
    )
    if labelled != count:
        over = f"{labelled:,} of them with a hard label: {shown(results).of_labels} are over these"
        rows += f", {over if labelled else 'none of them with a hard label'}"
    return one_line(f"Held-out split {results['split']!r}, {rows}; students: {spread_over}.")


def judged(results: Results) -> tuple[int, str]:
    """How many samples the scores are over, and what they are: rows, or of rows of positions (tokens) each that counts."""
    count = next((scores["rows"] for student in results["students"] for scores in student["scores"]), results["rows"])
    return count, "rows" if count == results["rows"] else results.get("counted", "tokens")


def _lines(results: Results) -> list[tuple[str, Sequence[Scores]]]:
    teacher = results["teacher"]
    lines: list[tuple[str, Sequence[Scores]]] = []
    if len(teacher["members"]) > 1:
        lines += [(f"teacher {name}", runs) for name, runs in teacher["members"].items()]
    lines.append((teacher_name(results), teacher["ensemble"]))
    kind = "" if len(distilled_students(results)) > 1 else "student, "  # the labels of a sweep are long enough
    return lines + [(f"{kind}{student['label']}", student["scores"]) for student in results["students"]]


def _own_kl(student: Student) -> str:
    """KL at the temperature that a student was trained at, the last one of a schedule; empty with hard labels."""
    temperature = student["settings"].get("temperature")
    return "" if temperature is None else cell(student["scores"], kl_at(float(str(temperature).rpartition(":")[2])))


def _ahead(results: Results, student: Student) -> str:
    """How far it is ahead of the hard student, such as fewer errors, and the standard error: "+12.3 (1.9)"."""
    found, form = _ahead_of_hard(results, student), compared_by(results).form
    if found is None or student["kind"] != "distilled":
        return ""
    error = "" if found.standard_error is None else f" ({found.standard_error:{form}})"
    return f"{found.mean:+{form}}{error}"


def _on_validation(student: Student, by: Measure) -> str:
    """A measure on the validation rows, by which a setting may be chosen; empty where it was not taken."""
    runs = student.get("validation", [])
    return cell(runs, by) if len(by.found(runs)) == len(runs) else ""


def _ahead_of_hard(results: Results, student: Student) -> Spread | None:
    """`Measure.ahead`; None where there is no hard student."""
    hard, by = hard_student(results), compared_by(results)
    if hard is None:
        return None
    pair = (student["scores"], hard["scores"]) if by.is_higher_better else (hard["scores"], student["scores"])
    return _more(by, *pair)


def _more_than_teacher(results: Results, student: Student) -> Spread | None:
    """Distilled - teacher, which may be judged once for all seeds; None of what compares with the teacher."""
    teacher, runs, by = results["teacher"]["ensemble"], student["scores"], compared_by(results)
    return None if by.is_about_teacher else _more(by, runs, teacher * len(runs) if len(teacher) == 1 else teacher)


def _more(by: Measure, runs: Sequence[Scores], others: Sequence[Scores]) -> Spread | None:
    """How much more than others, seed by seed; None where it was not taken, as without labels, or is infinite."""
    pair = by.found(runs), by.found(others)
    if len(pair[0]) < len(runs) or len(pair[1]) < len(others) or None in (*pair[0], *pair[1]):
        return None
    return paired_difference(*pair)


def _difference(found: Spread, by: Measure) -> str:
    errors = f"{found.mean:+{by.form}} {by.title}"
    if found.standard_error is None:
        return f"{errors} (one seed: no standard error)"
    paired = f"{errors}, standard error {found.standard_error:{by.form}} (paired over {found.count} seeds)"
    return f"{paired}: {found.mean / found.standard_error:.1f} standard errors" if found.standard_error else paired
