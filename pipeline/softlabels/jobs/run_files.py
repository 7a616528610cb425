"""The JSON files of a run folder, read as whoever may have cut or changed them: what is no such file is an error of its own."""

from __future__ import annotations

import json
from typing import Any

from softlabels.errors import DamagedRun
from softlabels.report.comparison import best_seed, best_student, comparison_text
from softlabels.system.local import LocalFolder

RUN, RECIPE, RESULTS = "run.json", "config.yaml", "results.json"
LATENCY = (
    "latency.json"  # in a student's folder: bytes and milliseconds a row of what was exported of it, and of its teacher
)


MOST_BYTES = 1 << 28  # of a file that is read whole: a stranger's may say to have more than there is memory


def read_bounded(run: LocalFolder, name: str, remedy: str) -> bytes:
    """A file of at most `MOST_BYTES`. Raises DamagedRun where it is larger."""
    if (size := run.size(name)) > MOST_BYTES:
        raise DamagedRun(f"{run.at(name)} has {size:,} bytes, expected at most {MOST_BYTES:,}", remedy=remedy)
    return run.read(name)


def _no_number(name: str) -> float:
    """NaN and Infinity, which a run never writes."""
    raise ValueError(f"{name} is no number in JSON")


def read_object(run: LocalFolder, name: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises DamagedRun."""
    path = run.at(name)
    try:
        found = json.loads(read_bounded(run, name, remedy), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DamagedRun(f"{path} is no JSON file: {str(error) or type(error).__name__}", remedy=remedy) from None
    if not isinstance(found, dict):
        raise DamagedRun(f"{path} holds {type(found).__name__}, expected an object", remedy=remedy)
    return found


def read_results(run: LocalFolder) -> dict[str, Any]:
    """What results.json of a finished run holds. Raises DamagedRun where it is not what a run writes."""
    remedy = "delete that file and run the command again: the students are then evaluated again"
    found = read_object(run, RESULTS, remedy)
    try:  # to show them, as whoever reads them does
        is_whole = (
            all({"label", "kind", "settings", "scores"} <= student.keys() for student in found["students"])
            and {"ensemble", "members"} <= found["teacher"].keys()
            and {"split", "rows", "temperatures", "seeds", "store"} <= found.keys()
        )
        comparison_text(found)
        best_seed(found, best_student(found))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        is_whole = False
    if not is_whole:
        raise DamagedRun(f"{run.at(RESULTS)} lacks what the results of a run are made of", remedy=remedy)
    return found
