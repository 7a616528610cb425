"""What is said of a run of pruned students: what remains of each, on its card, and a picture of errors (or what else students
are compared by) over the share that is left.

Made from the mapping of `results.json`, and from nothing else::

    {"students": [{.., "left": 1.0}, {.., "left": 0.4}], "pruned": {"rule": "saliency", "structure": "weight", ..,
     "rounds": [{"share": 0.4, "students": {"distilled-seed0": {"left": [1031, 2578], "expected": .1, "measured": .2}}}],
     "parameters": {"": [1031, 2578], "head.weight": [700, 1920]}}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softlabels.report.comparison import compared_by
from softlabels.report.figure import HARD, figure_in, legend_below, line_style
from softlabels.report.measures import Results
from softlabels.report.spread import spread
from softlabels.report.table import Table, as_markdown
from softlabels.report.views import first_view
from softlabels.store.markdown import escaped

_WHAT = {
    "weight": "the others are 0, and its file is as large as before",
    "unit": "the others went with hidden units that were removed, and the network is smaller",
}
_RULE = {
    "saliency": "those without which the training loss would rise least, h u^2 / 2 (LeCun, Denker, Solla 1989)",
    "magnitude": "the smallest",
}
_RISES = ("expected", "measured")
_LABELS = {
    "own": "the labels that each student was trained with",
    "hard": "hard labels",
    "stored": "the stored labels",
}


def remains(results: Results) -> str:
    """Markdown: what is left of a student, how it came to that, and by tensor."""
    pruned = results["pruned"]
    (left, total), *_ = pruned["parameters"].values()
    rows = [
        (escaped(name), f"{one:,}", f"{of:,}", f"{one / of:.1%}")
        for name, (one, of) in pruned["parameters"].items()
        if name
    ]
    lines = [
        f"- {left:,} of {total:,} parameters ({left / total:.1%}): {_WHAT[pruned['structure']]}",
        f"- In {len(pruned['rounds'])} rounds of {pruned['epochs']} epochs; deleted first: {_RULE[pruned['rule']]}; "
        f"retrained with {_LABELS[pruned['retrain']]}",
    ]
    tables = [Table(("tensor", "left", "of", "share"), tuple(rows)), rises(results)]
    return "\n".join(lines) + "\n\n" + "\n".join(as_markdown(table) for table in tables).rstrip()


def rises(results: Results) -> Table:
    """A line a round and kind of student: the share that is left, and by how much deleting raised the loss before anything was
    retrained: as the saliencies say, and as it was measured; means over seeds.
    """
    lines = []
    for number, each in enumerate(results["pruned"]["rounds"], start=1):
        kinds: dict[str, list[Any]] = {}
        for name, found in each["students"].items():
            kinds.setdefault(name.rpartition("-seed")[0], []).append(found)
        for kind, runs in kinds.items():
            left, total = runs[0]["left"]
            means = [spread([run[name] for run in runs]).mean if name in runs[0] else None for name in _RISES]
            cells = ["" if mean is None else f"{mean:.4f}" for mean in means]
            lines.append((str(number), kind, f"{left / total:.1%}", *cells))
    return Table(("round", "student", "left", "rise of the loss, expected", "measured"), tuple(lines))


def pruned_png(results: Results, path: Path) -> None:
    """Draw the measure that students are compared by over the share of parameters that is left, a line a kind of student, with
    the spread over seeds; the teacher is a horizontal line. Of several targets the first.

    Raises:
        MissingExtra: matplotlib is not installed. DiskFull, StorageError: the file cannot be written.
    """
    view = first_view(results)
    by, groups = compared_by(view), _groups(view)
    with figure_in(path, width=5.4, height=3.5) as figure:
        axes, handles = figure.subplots(), {}
        for number, (label, students) in enumerate(groups.items()):
            points = [
                (100 * each["left"], spread([float(value or 0) for value in by.found(each["scores"])]))
                for each in students
            ]
            style = HARD | {"marker": "o"} if label == "hard" else line_style(number, len(groups))
            handles[label] = axes.errorbar(
                [x for x, _ in points],
                [y.mean for _, y in points],
                [y.deviation or 0 for _, y in points],
                capsize=2,
                **style,
            )
        teacher = by.found(view["teacher"]["ensemble"])
        if teacher and teacher[0] is not None:
            handles["teacher"] = axes.axhline(float(teacher[0]), color="#555555", linestyle=(0, (1, 1)))
        axes.invert_xaxis()
        axes.set_xlabel("parameters left, %")
        axes.set_ylabel(by.title)
        legend_below(figure, handles)


def _groups(results: Results) -> dict[str, list[Results]]:
    """The students of each kind and setting, from the whole ones on."""
    found: dict[str, list[Results]] = {}
    for student in results["students"]:
        found.setdefault(str(student["label"]).rpartition(", ")[0], []).append(student)
    return found
