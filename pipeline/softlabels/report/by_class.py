"""Scores class by class as tables and lines, from the scores of one model's runs (one a seed): recall, F1, which class is taken
for which. Counts are means over seeds where there are several. Names come from strangers' stores: `table` escapes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from softlabels.report.measures import Scores
from softlabels.report.spread import spread
from softlabels.report.table import Table

SHOWN = 20  # classes in a table, the worst by F1 first where there are more
MATRIX = 10  # classes up to which all counts are shown; beyond, the worst pairs
PAIRS = 5

Names = Sequence[str] | None


def has_classes(runs: Sequence[Scores]) -> bool:
    """Whether there is anything to show: some row had a label, and classes were counted."""
    return bool(runs) and all("macro" in scores for scores in runs)


def class_table(runs: Sequence[Scores], names: Names) -> Table:
    """A line a class: how often it is the label, how often it is predicted, recall and F1; of many classes the worst."""
    first = runs[0]["classes"]
    labelled = first["labelled"]
    scores = {c: means for c in range(len(labelled)) if (means := _means(runs, c)) is not None}
    shown = sorted(scores, key=lambda c: scores[c][1])[:SHOWN] if len(scores) > SHOWN else list(scores)
    lines = []
    for c in shown:
        recall, f1 = scores[c]
        said = spread([run["classes"]["predicted"][c] for run in runs]).mean
        lines.append((class_name(c, names), f"{labelled[c]:,}", _count(said), f"{recall:.3f}", f"{f1:.3f}"))
    return Table(("class", "labelled", "predicted", "recall", "F1"), tuple(lines))


def confusion_table(runs: Sequence[Scores], names: Names) -> Table | None:
    """Rows by label and predicted class; None for many classes."""
    classes = len(runs[0]["classes"]["labelled"])
    if classes > MATRIX or not all("confusion" in run for run in runs):
        return None
    titles = ("label \\ predicted", *(class_name(c, names) for c in range(classes)))
    cells = [
        (class_name(c, names), *(_count(spread([run["confusion"][c][d] for run in runs]).mean) for d in range(classes)))
        for c in range(classes)
    ]
    return Table(titles, tuple(cells))


def class_lines(runs: Sequence[Scores], names: Names) -> list[str]:
    """Macro averages, the area under the curve of two classes, and the most frequent mistakes."""
    recall, f1 = (spread([run["macro"][name] for run in runs]).mean for name in ("recall", "f1"))
    line = f"macro average over the classes with a label: recall {recall:.3f}, F1 {f1:.3f}"
    if all("auc" in run for run in runs):
        line += f"; area under the ROC curve {spread([run['auc'] for run in runs]).mean:.4f}"
    wrong: Counter[tuple[int, int]] = Counter()
    for run in runs:
        wrong.update({(label, said): count for label, said, count in run["confused"]})
    worst = [
        f"{class_name(label, names)} as {class_name(said, names)} {_count(count / len(runs))}"
        for (label, said), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    ]
    return [line, *([f"most frequent mistakes: {', '.join(worst)}"] if worst else [])]


def class_name(number: int, names: Names) -> str:
    """A class as tables name it."""
    return names[number] if names and number < len(names) else str(number)


def _means(runs: Sequence[Scores], number: int) -> tuple[float, float] | None:
    """Recall and F1 of a class; None where it has no labelled row."""
    recall, f1 = ([run["classes"][name][number] for run in runs] for name in ("recall", "f1"))
    return None if None in recall else (spread(recall).mean, spread(f1).mean)


def _count(mean: float) -> str:
    return f"{mean:,.0f}" if mean == int(mean) else f"{mean:,.1f}"
