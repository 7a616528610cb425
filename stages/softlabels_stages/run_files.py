"""The JSON files of a run folder, read as whoever may have cut or changed them: what is no such file is an error of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softlabels.errors import DamagedRun

RESULTS = "results.json"


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises DamagedRun."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedRun(f"{path} is no JSON file: {str(error) or type(error).__name__}", remedy=remedy) from None
    if not isinstance(found, dict):
        raise DamagedRun(f"{path} holds {type(found).__name__}, expected an object", remedy=remedy)
    return found


def read_results(run: Path) -> dict[str, Any]:
    """What results.json of a finished run holds. Raises DamagedRun where it is not what a run writes."""
    path, remedy = run / RESULTS, "delete that file and give the command again: the students are judged anew"
    found = read_object(path, remedy)
    students, teacher = found.get("students"), found.get("teacher")
    is_whole = (
        isinstance(students, list)
        and all(
            isinstance(student, dict) and {"label", "kind", "settings", "scores"} <= student.keys()
            for student in students
        )
        and isinstance(teacher, dict)
        and {"ensemble", "members"} <= teacher.keys()
        and {"split", "rows", "temperatures", "seeds", "store"} <= found.keys()
    )
    if not is_whole:
        raise DamagedRun(f"{path} lacks what the results of a run are made of", remedy=remedy)
    return found
