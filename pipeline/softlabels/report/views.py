"""A run's results target by target. Code that shows results looks at one target; `views` makes of the results of several as
many results of one, with the names that `comparison` explains.

Results of several targets have `targets`: what is known of each by its name, as results of one have it: `class_names`,
`temperatures`, and its kind, `target`, where it is no distribution. Scores have `targets` too: those of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softlabels.report.measures import Results, Scores


def views(results: Results) -> dict[str, Results]:
    """The results of each target by its name; of one without a name the results as they are."""
    if "targets" not in results:
        return {"": results}
    return {name: _view(results, name, is_first=number == 0) for number, name in enumerate(results["targets"])}


def first_view(results: Results) -> Results:
    """Those of the first target, by which students are chosen."""
    return next(iter(views(results).values()))


def _view(results: Results, name: str, *, is_first: bool) -> Results:
    teacher = results["teacher"]
    found = {
        **{key: value for key, value in results.items() if key != "targets"},
        **results["targets"][name],
        "teacher": {
            "ensemble": _of(teacher["ensemble"], name),
            "members": {member: _of(runs, name) for member, runs in teacher["members"].items()},
        },
        "students": [_student(student, name) for student in results["students"] if _of(student["scores"], name)],
    }
    return found if is_first else found | {"shared_rows": {}}  # which is said once


def _student(student: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    settings = student.get("targets", {}).get(name, student["settings"])
    validation = _of(student.get("validation", ()), name)
    return {**student, "settings": settings, "scores": _of(student["scores"], name), "validation": validation}


def _of(runs: Sequence[Scores], name: str) -> list[Scores]:
    """What each run has of a target."""
    return [run["targets"][name] for run in runs if name in run.get("targets", {})]
