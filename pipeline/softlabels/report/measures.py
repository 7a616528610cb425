"""What tables, sentences and pictures show of each kind of target, and by which measure students of it are compared. Scores are
plain mappings with the names of `softlabels.student.metrics.Scores`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from softlabels.labels.targets import Target

Scores = Mapping[str, Any]
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A number among a model's scores.

    Attributes:
        path: its name, and the names of the mappings that it is in, the outermost first.
        title: what tables call it.
        form: how it is written, as a format.
        is_higher_better: or the lower.
    """

    path: tuple[str, ...]
    title: str
    form: str = ".3f"
    is_higher_better: bool = False

    @property
    def is_about_teacher(self) -> bool:
        """Whether it compares with the teacher, and not with hard labels."""
        return self.path[0] in ("kl", "teacher", "agreement")

    @property
    def ahead(self) -> str:
        """The difference that is above 0 where a distilled student is better than one of hard labels only."""
        return "distilled - hard" if self.is_higher_better else "hard - distilled"

    def found(self, runs: Sequence[Scores]) -> list[Any]:
        """Its value in each of the runs that have one; None where it is infinite, which JSON has no number for."""
        return [value for run in runs if (value := _at(run, self.path)) is not _ABSENT]


@dataclass(frozen=True)
class Shown:
    """What is shown of a kind of target.

    Attributes:
        columns: of a table.
        main: by which students are compared: the first that they have.
        to_teacher: how near a student is to its teacher, in pictures.
        near: the same in sentences: a measure, and words that say it of a student.
        of_labels: the measures over the rows that have a hard label, in words.
        left_out: titles of columns for which a sweep's table has no room on a terminal.
        has_temperature: whether there is a KL at each temperature.
        unit: of the losses.
    """

    columns: tuple[Measure, ...]
    main: tuple[Measure, ...]
    to_teacher: Measure
    near: tuple[Measure, str]
    of_labels: str
    left_out: tuple[str, ...] = ()
    has_temperature: bool = True
    unit: str = "nats, weighted"

    def compared_by(self, runs: Sequence[Scores]) -> Measure:
        """The first main measure that some of the runs have; the first of all where none has any."""
        return next((measure for measure in self.main if measure.found(runs)), self.main[0])

    def near_teacher(self, students: Sequence[Sequence[Scores]]) -> str:
        """How near students, each of several runs, are to their teacher, as the end of a sentence in which rows follow."""
        measure, words = self.near
        means = [fmean(math.inf if value is None else value for value in measure.found(runs)) for runs in students]
        ends = (min(means), max(means)) if len(means) > 1 else means
        return words.format(" to ".join(f"{mean:{measure.form}}" for mean in ends))


def kl_at(temperature: float) -> Measure:
    """The KL to the teacher at a temperature."""
    return Measure(("kl", f"{temperature:g}"), f"KL at T={temperature:g}", ".4f")


def shown(results: Results) -> Shown:
    """What is shown of a run's results."""
    return SHOWN[results.get("target", "softmax")]


def _at(scores: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if name not in scores:
            return _ABSENT
        scores = scores[name]
    return scores


_ABSENT = object()
_ERRORS = Measure(("errors",), "errors", ".1f")
_NLL, _ECE = Measure(("nll",), "NLL"), Measure(("ece",), "ECE")
_AGREEMENT = Measure(("agreement",), "agreement", is_higher_better=True)
_SHARE = Measure(("agreement",), "agreement", ".1%", is_higher_better=True)
_MAP = Measure(("map",), "mAP", is_higher_better=True)
_F1 = Measure(("f1", "micro"), "micro F1", is_higher_better=True)
_MACRO = Measure(("f1", "macro"), "macro F1", is_higher_better=True)
_MSE, _RMSE = Measure(("mse",), "MSE", ".4g"), Measure(("rmse",), "RMSE", ".4g")
_R2, _COSINE = Measure(("r2",), "R2", is_higher_better=True), Measure(("cosine",), "cosine", is_higher_better=True)
_TO_TEACHER = Measure(("teacher", "mse"), "MSE to teacher", ".4g")
_R2_TEACHER = Measure(("teacher", "r2"), "R2 to teacher", is_higher_better=True)
_COSINE_TEACHER = Measure(("teacher", "cosine"), "cosine to teacher", is_higher_better=True)

SHOWN: Mapping[Target, Shown] = {
    "softmax": Shown(
        (_ERRORS, _NLL, _ECE, Measure(("brier",), "Brier"), _AGREEMENT), (_ERRORS,), kl_at(1.0),
        (_SHARE, "gives its teacher's answer on {} of"), "errors, NLL, ECE and Brier", ("ECE", "Brier"),
    ),
    "sigmoid": Shown(
        (_MAP, _F1, _MACRO, _NLL, _ECE, _AGREEMENT), (_MAP, _F1), kl_at(1.0),
        (_SHARE, "gives its teacher's answer for {} of the classes of"), "mAP, F1, NLL and ECE", ("macro F1", "NLL", "ECE"),
    ),
    "values": Shown(
        (_MSE, _RMSE, _R2, _COSINE, _TO_TEACHER, _R2_TEACHER, _COSINE_TEACHER), (_MSE, _TO_TEACHER), _TO_TEACHER,
        (Measure(("teacher", "rmse"), "RMSE to teacher", ".4g"), "gives its teacher's values to an RMSE of {} on"),
        "MSE, RMSE, R2 and cosine", ("RMSE", "cosine", "R2 to teacher"), has_temperature=False, unit="weighted",
    ),
}  # fmt: skip
