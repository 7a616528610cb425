"""What a finished run shows to people: curves.png, for a sweep sweep.png, and README.md, its model card.

All of it is made from the run's files, the results and the stores' manifests. Pictures need the extra `[report]`; without
it a line says so, and the run is as good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softlabels.errors import MissingExtra
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.objects import ObjectSpec
from softlabels.report.curves import curves_png, log_lines
from softlabels.report.model_card import model_card
from softlabels.report.model_loading import Shape
from softlabels.report.plots import sweep_png
from softlabels.store.spec import Manifest
from softlabels.student.runlog import NAME as LOG
from softlabels.system.local import LocalFolder

CARD, CURVES, SWEEP = "README.md", "curves.png", "sweep.png"


def write_report(
    folder: Path,
    students: Sequence[str],
    results: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    stores: Mapping[str, Manifest],
    parameters: int,
    prepare: ObjectSpec,
    inputs: Shape | None = None,
    watch: Watch = LOGGED,
) -> None:
    """Write pictures and card into the run `folder`; written again, they replace what stood there.

    Args:
        folder: the run folder.
        students: names of its students' folders: what else lies in it may be anybody's.
        results: what results.json holds, or will hold, with "store".
        recipe: what config.yaml holds.
        stores: the manifest of each split's store.
        parameters: of one student.
        prepare: what made the students' inputs, with digests in place of files.
        inputs: dtype and shape of one of them.
    """
    run, pictures = LocalFolder(folder), []
    students = sorted(students, key=_in_order)
    try:
        curves_png({name: log_lines(run.read(f"{name}/{LOG}").decode()) for name in students}, folder / CURVES)
        pictures.append(CURVES)
        if results["swept"]:
            sweep_png(results, folder / SWEEP)
            pictures.insert(0, SWEEP)
    except MissingExtra as error:
        watch.warn(f"no pictures: {error}")
    card = model_card(
        results,
        recipe,
        stores=stores,
        parameters=parameters,
        prepare=prepare,
        folders=students,
        pictures=pictures,
        inputs=inputs,
    )
    run.put(CARD, card.encode())


def _in_order(student: str) -> list[float | str]:
    """Names in the order of the numbers in them: T=2 before T=10. Text and numbers alternate, so that they never compare."""
    parts = re.split(r"(\d+(?:\.\d+)?)", student)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]
