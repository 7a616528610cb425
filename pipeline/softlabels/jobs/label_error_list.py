"""The hard labels that are likely wrong, as a CSV that people go through."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from softlabels.checks.label_errors import LabelErrors
from softlabels.errors import ConfigError, one_line
from softlabels.pages.looked import Looked
from softlabels.store import Store
from softlabels.system.local import write_atomically

HEAD = (
    "split",
    "target",
    "row",
    "position",
    "content_key",
    "given",
    "given_name",
    "suggested",
    "suggested_name",
    "score",
    "input",
)
_AT_ONCE = 256  # rows whose inputs are read together
_NAME = 200  # characters of a class's name
_OBEYED = ("=", "+", "-", "@")  # by spreadsheets, at the beginning of a cell


def write_label_errors(looked: Mapping[tuple[str, str], Looked], out: Path) -> int:
    """Write the likely label errors of all targets that have hard labels of classes, each target's least likely label first.
    Returns how many there are.

    Raises:
        ConfigError: no target has hard labels of classes.
        DiskFull, StorageError: the file cannot be written.
    """
    if all(each.found.errors is None for each in looked.values()):
        raise ConfigError(
            "the store has no hard labels of classes, among which errors could be found",
            remedy="leave out --label_errors, or name the column of labels (transfer_set.label) and label the rows again",
        )
    text = io.StringIO()
    lines, count = csv.writer(text, lineterminator="\n"), 0
    lines.writerow(HEAD)
    for (split, target), each in looked.items():
        if each.found.errors is not None:
            count += len(each.found.errors.places)
            lines.writerows(_lines(split, target, each, each.found.errors))
    write_atomically(out, text.getvalue().encode())
    return count


def _lines(split: str, target: str, looked: Looked, found: LabelErrors) -> Iterator[list[object]]:
    store = looked.store
    rows = found.places // (store.positions or 1)
    keys, parts = store.gather("content_key", rows), (rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE))
    called = [each for part in parts for each in looked.inputs.called(part)]
    for number, place in enumerate(found.places.tolist()):
        position = place % store.positions if store.positions else ""
        given, suggested = int(found.given[number]), int(found.suggested[number])
        key = bytes(keys[number]).hex()
        names = [_name(store, given), _name(store, suggested)]
        classes = [given, names[0], suggested, names[1]]
        score, which = f"{found.scores[number]:.6f}", _cell(called[number])
        yield [_cell(split), _cell(target), rows[number], position, key, *classes, score, which]


def _name(store: Store, number: int) -> str:
    return _cell(one_line(store.class_names[number], _NAME)) if store.class_names else ""


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_OBEYED) else text
