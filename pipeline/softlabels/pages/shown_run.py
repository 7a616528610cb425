"""`ShownRun`: a finished run as a page shows it, and its numbers for the script `static/runs.js`. Made of what the run's files
say and of what its students said; neither files nor models are opened here. `runs` makes the HTML.

T temperatures, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from softlabels.labels.targets import Target
from softlabels.pages.held_out import HeldOut
from softlabels.report.by_class import class_name, has_classes
from softlabels.report.comparison import Student, best_student, compared_by, hard_student, teacher_name
from softlabels.report.curves import Line, curve, kind_of, measured_in
from softlabels.report.measures import SHOWN, Measure, Results, Scores
from softlabels.report.plots import AXES, Panel, lines_of, panels_of, shown_setting
from softlabels.report.spread import Spread
from softlabels.report.views import views

POINTS = 24_000  # of all curves of a run
FEWEST, CLASSES = 20, 40  # points of a curve at least; classes in a plot
Json = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large a model is, and how fast: a file that was exported, or the weights of a student.

    Attributes:
        name: of the student, and of the file.
        bytes: of the file. parameters: None where the file does not say.
        milliseconds: a row, in batches of 1 and 32, where `export --latency` measured it.
    """

    name: str
    bytes: int
    parameters: int | None = None
    milliseconds: Sequence[float] = ()


@dataclass(frozen=True)
class ShownRun:
    """A finished run.

    Attributes:
        name: of its folder.
        results: what its results.json holds.
        logs: the lines of each student's log, by the name of its folder.
        other_store: why it is not a run over the page's store; "" where it is one.
        split: the split of the store that its held-out rows are in.
        held_out: what its students said of these, of each target. untold: why nothing is known of that.
        sizes: of the students that were asked, and their exported files.
    """

    name: str
    results: Results
    logs: Mapping[str, Sequence[Line]]
    other_store: str = ""
    split: str = ""
    held_out: Sequence[HeldOut] = ()
    untold: str = ""
    sizes: Sequence[Size] = ()

    @property
    def views(self) -> dict[str, Results]:
        """Its results target by target."""
        return views(self.results)

    @property
    def kinds(self) -> dict[str, Target]:
        """Of its targets by name."""
        return {name: view.get("target", "softmax") for name, view in self.views.items()}

    def held_out_of(self, target: str) -> HeldOut | None:
        """What was said of a target."""
        return next((each for each in self.held_out if each.target == target), None)


def curves_of(run: ShownRun) -> tuple[list[Json], int]:
    """The panels of learning curves: a line a student; and every how many epochs one is kept."""
    logs, kinds = list(run.logs.values()), run.kinds
    measures = measured_in(logs, kinds)
    longest = max((len(lines) for lines in logs), default=0)
    most = max(FEWEST, POINTS // max(1, len(logs) * len(measures)))
    step = max(1, math.ceil(longest / most))
    unit = SHOWN[kinds[""]].unit if "" in kinds else "weighted"
    return [panel for each in measures if (panel := _panel(run.logs, each, step, unit))["lines"]], step


def _panel(logs: Mapping[str, Sequence[Line]], measure: Measure, step: int, unit: str) -> Json:
    is_loss, lines = "loss" in measure.title, list[Json]()
    for name, own in logs.items():
        found = list(curve(own, measure).items())
        if found:
            epochs, values = zip(*_thinned(found, step), strict=True)
            lines.append({"student": kind_of(name), "name": name, "epochs": epochs, "values": [*map(_short, values)]})
    low = min((value for line in lines for value in line["values"]), default=0)
    high = max((value for line in lines for value in line["values"]), default=0)
    log = is_loss and low > 0 and high > 30 * low
    return {"title": measure.title, "unit": unit if is_loss else measure.title, "log": log, "lines": lines}


def _thinned(curve: Sequence[tuple[int, float]], step: int) -> list[tuple[int, float]]:
    """Every `step`-th point of a curve, the last, the lowest and the highest."""
    values = [value for _, value in curve]
    ends = {len(curve) - 1, values.index(min(values)), values.index(max(values))}
    return [curve[at] for at in sorted({*range(0, len(curve), step), *ends})]


def sweep_of(view: Results) -> list[Json]:
    """The panels of a sweep: points with spread, and what they are compared with; none of a run that swept nothing."""
    if not view.get("swept"):
        return []
    axis, lines = lines_of(view)
    settings = [student["settings"].get(axis) for students in lines.values() for student in students]
    numeric = all(isinstance(value, int | float) for value in settings)
    own = {"axis": AXES.get(axis, axis), "numeric": numeric, "log": numeric and axis == "temperature"}
    return [own | _sweep_panel(view, axis, lines, panel, numeric=numeric) for panel in panels_of(view)]


def _sweep_panel(
    view: Results, axis: str, lines: Mapping[str, Sequence[Student]], panel: Panel, *, numeric: bool
) -> Json:
    points = [
        {"line": name or "distilled", "x": value if numeric else shown_setting(value), **_ends(found)}
        for name, students in lines.items()
        for student in students
        if (found := panel.found(student)) is not None
        for value in [student["settings"].get(axis)]
    ]
    teacher = {} if panel.measure.is_about_teacher else {"scores": view["teacher"]["ensemble"]}
    beside = {"teacher": teacher, "hard labels": hard_student(view) or {}}
    rules = [{"line": name, **_ends(found)} for name, model in beside.items() if (found := panel.found(model))]
    return {"title": panel.title, "unit": panel.unit, "points": points, "rules": rules}


def calibration_of(said: HeldOut) -> Json:
    """Of each model and temperature the bins that have rows: mean confidence, share that is right, rows; and the error."""
    models = []
    for name, kind in said.kinds.items():
        bins, errors = said.bins(name), said.calibration_errors(name)
        at = [
            {"ece": _short(error), "bins": [[_short(b / n), _short(c / n), int(n)] for n, b, c in each if n]}
            for each, error in zip(bins.tolist(), errors, strict=True)
        ]
        models.append({"name": name, "kind": kind, "at": at})
    return {"grid": [*said.grid], "models": models}


def classes_of(view: Results) -> Json | None:
    """The share of each class's labelled rows that a model gets wrong, mean over the seeds: of the ensemble, the hard student
    and the best distilled one; of many classes those at which the last errs most. None where classes were not counted.
    """
    models = {teacher_name(view): ("ensemble", view["teacher"]["ensemble"])}
    if (hard := hard_of(view)) is not None:
        models[hard["label"]] = ("hard", hard["scores"])
    best = best_student(view)
    models[best["label"]] = (best["kind"], best["scores"])
    counted = {name: (kind, runs) for name, (kind, runs) in models.items() if has_classes(runs)}
    if not counted:
        return None
    shares = {name: _wrong(runs) for name, (_, runs) in counted.items()}
    labelled = next(iter(counted.values()))[1][0]["classes"]["labelled"]
    last = shares[[*shares][-1]]
    there = [number for number, rows in enumerate(labelled) if rows]
    shown = sorted(there, key=lambda number: -last[number])[:CLASSES] if len(there) > CLASSES else there
    names = view.get("class_names")
    points = [
        {"class": class_name(number, names), "place": place, "model": name, "kind": kind, "wrong": _short(share)}
        for name, (kind, _) in counted.items()
        for place, number in enumerate(shown)
        if not math.isnan(share := shares[name][number])
    ]
    return {"points": points, "labelled": [labelled[number] for number in shown], "of": len(there), "shown": len(shown)}


def hard_of(view: Results) -> Student | None:
    """The hard student, if there is one; of pruned ones that of which least is left, as `best_student` takes the distilled."""
    hard = [student for student in view["students"] if student["kind"] == "hard"]
    return min(hard, key=lambda student: student.get("left", 1.0), default=None)


def main_numbers(view: Results) -> tuple[Measure, dict[str, Sequence[Scores]]]:
    """By what the students of a run are compared, and whose numbers a table of several runs has."""
    hard, best = hard_of(view), best_student(view)
    found = {teacher_name(view): view["teacher"]["ensemble"]} | (
        {} if hard is None else {"student, hard": hard["scores"]}
    )
    return compared_by(view), found | {"student, distilled" if best["kind"] != "hard" else "student": best["scores"]}


def _wrong(runs: Sequence[Scores]) -> list[float]:
    recalls = [run["classes"]["recall"] for run in runs]
    return [math.nan if None in each else 1 - fmean(each) for each in zip(*recalls, strict=True)]


def _ends(found: Spread) -> Json:
    spread = found.deviation or 0.0
    return {"mean": _short(found.mean), "low": _short(found.mean - spread), "high": _short(found.mean + spread)}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
