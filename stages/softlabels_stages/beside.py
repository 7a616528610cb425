"""What stands beside the recipe file: modules that it names are found there, and files that it names are hinted at.

The folder of a recipe comes last on Python's path, so that it hides nothing. Not that of a run: its config.yaml is a copy, and
a run's folder may come from somebody else. Relative paths in a recipe are those of the working folder; where one is not there
and the same one beside the recipe is, an error says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_RUN = "run.json"  # what makes a folder a run's, see `run_folder`
_candidates: dict[str, Path] = {}  # relative paths of the recipe that was read last -> the same beside it


def use(file: Path, recipe: object) -> None:
    """Take note of the recipe that was read from `file`."""
    folder = file.resolve().parent
    _candidates.clear()
    if (folder / _RUN).exists():
        return
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for text in _texts(recipe):
        if not Path(text).is_absolute() and "\0" not in text and len(text) < 4096:
            _candidates[text] = folder / text


def hint(message: str) -> str:
    """What to add to an error that names a path of the recipe which stands beside it, and not in the working folder."""
    for text, there in _candidates.items():
        named = text in message or str(Path(text)) in message
        if named and _is_there(there) and not _is_there(Path(text)):
            return f" ({there} exists beside the recipe: relative paths are those of the working folder, {Path.cwd()})"
    return ""


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no path at all, such as a name that is too long
        return False


def _texts(value: object) -> Iterator[str]:
    """Every text in a recipe that may be a path."""
    if isinstance(value, str) and value.strip(".") and len(value) > 2:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _texts(item)
