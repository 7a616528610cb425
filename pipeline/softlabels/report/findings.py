"""What a reader of a run's table should know and its numbers do not say: a line for each finding, from `results.json` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabels.checks.leaks import leak_lines
from softlabels.report.by_class import class_name
from softlabels.report.table import Scores

Results = Mapping[str, Any]


def findings(results: Results) -> list[str]:
    """Of a run: rows that splits share, models that always answer one class, members that beat their ensemble."""
    teacher, names = results["teacher"], results.get("class_names")
    lines = leak_lines(results.get("shared_rows", {}), results.get("split_rows", {}))
    models = {f"teacher {name}": runs for name, runs in teacher["members"].items() if len(teacher["members"]) > 1}
    models["the teacher"] = teacher["ensemble"]
    models |= {f"the student {student['label']}": student["scores"] for student in results["students"]}
    lines += [line for name, runs in models.items() if (line := _one_class(name, runs, names))]
    return lines + list(_better_members(results))


def _one_class(name: str, runs: Sequence[Scores], names: Sequence[str] | None) -> str:
    """Where a model gives one class for every row, though there are several."""
    found = []
    for run in runs:
        predicted = run.get("classes", {}).get("predicted", ())
        answers = [c for c, rows in enumerate(predicted) if rows]
        if len(answers) == 1 and len(predicted) > 1 and run["rows"] > 1:
            found.append(class_name(answers[0], names))
    if not found:
        return ""
    of = "" if len(runs) == 1 else f", with {len(found)} of {len(runs)} seeds"
    return f"{name} answers one class for every row ({', '.join(dict.fromkeys(found))}){of}"


def _better_members(results: Results) -> Iterator[str]:
    teacher = results["teacher"]
    members, ensemble = teacher["members"], teacher["ensemble"][0]
    if len(members) < 2 or "errors" not in ensemble:
        return
    numbers = results.get("members") or range(len(members))
    for number, (name, runs) in zip(numbers, members.items(), strict=False):  # a file that anybody may have changed
        if runs[0]["errors"] < ensemble["errors"]:
            yield (
                f"teacher {name} makes {runs[0]['errors']} errors on these rows, the ensemble {ensemble['errors']}: "
                f"--members={number} trains from it alone; compare them on other rows"
            )
