"""The pictures of a finished run: curves.png, for a sweep sweep.png, of several targets sweep-NAME.png of each.

They are made from the run's files and its results. They need the extra `[report]`; without it a line says so, and the run is as
good. `SOFTLABELS_REPORT=0` leaves them out, and the page, which costs more: both cost more than a small student's training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from softlabels.errors import MissingExtra
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.report.comparison import distilled_students
from softlabels.report.curves import curves_png, log_lines
from softlabels.report.plots import sweep_png
from softlabels.report.views import views
from softlabels.student.runlog import NAME as LOG
from softlabels.system.local import LocalFolder

CURVES, SWEEP = "curves.png", "sweep.png"
REPORT = "SOFTLABELS_REPORT"  # in the environment: 0 leaves pictures and page of a run out


def is_wanted() -> bool:
    """Whether a run gets its pictures and its page."""
    return os.environ.get(REPORT) != "0"


def draw(run: LocalFolder, students: Sequence[str], results: Mapping[str, Any], watch: Watch = LOGGED) -> list[str]:
    """Write the pictures of a run into its folder, where they are wanted, and say their names; written again, they replace what
    stood there.

    Args:
        students: names of the students' folders: what else lies in the run's may be anybody's.
        results: what results.json holds, or will hold.
    """
    if not is_wanted():
        return []
    try:
        logs = {name: log_lines(run.read(f"{name}/{LOG}").decode()) for name in students}
        found = views(results)
        curves_png(logs, run.at(CURVES), {name: view.get("target", "softmax") for name, view in found.items()})
        if not (results["swept"] and distilled_students(results)):
            return [CURVES]
        sweeps = {f"sweep-{name}.png" if name else SWEEP: view for name, view in found.items()}
        for picture, view in sweeps.items():
            sweep_png(view, run.at(picture))
        return [*sweeps, CURVES]
    except MissingExtra as error:
        watch.warn(f"no pictures: {error}")
        return []


def in_order(students: Iterable[str]) -> list[str]:
    """Names in the order of the numbers in them: T=2 before T=10. Text and numbers alternate, so that they never compare."""

    def parts(student: str) -> list[float | str]:
        found = re.split(r"(\d+(?:\.\d+)?)", student)
        return [float(part) if place % 2 else part for place, part in enumerate(found)]

    return sorted(students, key=parts)
