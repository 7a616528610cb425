"""What a reader of a run's table should know and its numbers do not say: a line for each finding, from `results.json` alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from softlabels.checks.leaks import leak_lines
from softlabels.report.by_class import class_name
from softlabels.report.measures import Results, Scores, shown


def findings(results: Results) -> list[str]:
    """Of a run: what its labels are not known at, rows that splits share, models that always answer one class, members that
    beat their ensemble.
    """
    teacher, names = results["teacher"], results.get("class_names")
    lines = [*results.get("cautions", ())]
    lines += leak_lines(results.get("shared_rows", {}), results.get("split_rows", {}))
    models = {f"teacher {name}": runs for name, runs in teacher["members"].items() if len(teacher["members"]) > 1}
    models["the teacher"] = teacher["ensemble"]
    models |= {f"the student {student['label']}": student["scores"] for student in results["students"]}
    lines += [line for name, runs in models.items() if (line := _one_class(name, runs, names))]
    lines += [line for student in results["students"] if (line := _far_off(student["label"], student["scores"]))]
    return lines + list(_better_members(results))


def _one_class(name: str, runs: Sequence[Scores], names: Sequence[str] | None) -> str:
    """Where a model always gives one class, though there are several."""
    found = []
    for run in runs:
        predicted = run.get("classes", {}).get("predicted", ())
        answers = [c for c, rows in enumerate(predicted) if rows]
        if len(answers) == 1 and len(predicted) > 1 and run["rows"] > 1:
            found.append(class_name(answers[0], names))
    if not found:
        return ""
    of = "" if len(runs) == 1 else f", with {len(found)} of {len(runs)} seeds"
    return f"{name} always answers one class ({', '.join(dict.fromkeys(found))}){of}"


def _far_off(label: str, runs: Sequence[Scores]) -> str:
    """Where a student of values has learnt less than their mean, as of numbers far from those that networks begin with."""
    found = [r2 for run in runs if (r2 := run.get("teacher", {}).get("r2")) is not None]
    if not found or fmean(found) >= 0:
        return ""
    return (
        f"the student {label} is farther from the teacher's values than a constant, their mean (R2 {fmean(found):.3g}): "
        "train longer, or scale values to about 1"
    )


def _better_members(results: Results) -> Iterator[str]:
    teacher = results["teacher"]
    members, by = teacher["members"], shown(results).main[0]
    ensemble = by.found(teacher["ensemble"][:1])
    if len(members) < 2 or not ensemble:
        return
    numbers = results.get("members") or range(len(members))
    for number, (name, runs) in zip(numbers, members.items(), strict=False):  # a file that anybody may have changed
        [of_member], [of_all] = by.found(runs[:1]), ensemble
        if of_member > of_all if by.is_higher_better else of_member < of_all:
            one, all_of_them = (f"{x}" if isinstance(x, int) else f"{x:{by.form}}" for x in (of_member, of_all))
            said = f"makes {one} {by.title}" if by.title == "errors" else f"has {by.title} {one}"
            yield (
                f"teacher {name} {said} on these rows, the ensemble {all_of_them}: "
                f"--members={number} trains from it alone; compare them on other rows"
            )
