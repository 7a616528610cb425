"""What stands beside the recipe file: modules that it names are found there, and files that it names are hinted at.

Modules are looked for there last, so that it hides nothing. Not in the folder of a run: its config.yaml is a copy, and a run's
folder may come from somebody else. Relative paths in a recipe are those of the working folder; where one is not there
and the same one beside the recipe is, an error says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from softlabels.objects import look_in

_candidates: dict[str, Path] = {}  # relative paths of the recipe that was read last -> the same beside it


def use(file: Path, recipe: object) -> None:
    """Take note of the user's own recipe that was read from `file`."""
    folder = file.resolve().parent
    look_in(folder)
    for text in _texts(recipe):
        if not Path(text).is_absolute() and "\0" not in text and len(text) < 4096:
            _candidates[text] = folder / text


def forget() -> None:
    """No recipe was read."""
    _candidates.clear()


def hint(message: str) -> str:
    """What to add to an error that names a path of the recipe which stands beside it, and not in the working folder."""
    for text, there in _candidates.items():
        words = "|".join({re.escape(text), re.escape(str(Path(text)))})
        named = re.search(rf"(?<![\w./-])({words})(?![\w-]|\.\w)", message)
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
