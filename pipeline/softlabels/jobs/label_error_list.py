"""The hard labels that are likely wrong, as a CSV that people go through."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from softlabels.checks.label_errors import LabelErrors
from softlabels.errors import ConfigError, one_line
from softlabels.pages.row_scan import label_errors
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
)
_NAME = 200  # characters of a class's name
_OBEYED = ("=", "+", "-", "@")  # by spreadsheets, at the beginning of a cell


def write_label_errors(splits: Mapping[str, Store], out: Path) -> int:
    """Write the likely label errors of all targets that have hard labels of classes, each target's least likely label first.
    Returns how many there are.

    Raises:
        ConfigError: no target has hard labels of classes.
        DiskFull, StorageError: the file cannot be written.
    """
    text = io.StringIO()
    lines, looked_at, count = csv.writer(text, lineterminator="\n"), False, 0
    lines.writerow(HEAD)
    for split, store in splits.items():
        for target in store.targets:
            found = label_errors(store.only(target))
            if found is not None:
                looked_at, count = True, count + len(found.places)
                lines.writerows(_lines(split, target, store.only(target), found))
    if not looked_at:
        raise ConfigError(
            "the store has no hard labels of classes, among which errors could be found",
            remedy="leave out --label_errors, or name the column of labels (transfer_set.label) and label the rows again",
        )
    write_atomically(out, text.getvalue().encode())
    return count


def _lines(split: str, target: str, store: Store, found: LabelErrors) -> Iterator[list[object]]:
    rows = found.places // (store.positions or 1)
    keys = store.gather("content_key", rows)
    for number, place in enumerate(found.places.tolist()):
        position = place % store.positions if store.positions else ""
        given, suggested = int(found.given[number]), int(found.suggested[number])
        key = bytes(keys[number]).hex()
        names = [_name(store, given), _name(store, suggested)]
        score = f"{found.scores[number]:.6f}"
        yield [_cell(split), _cell(target), rows[number], position, key, given, names[0], suggested, names[1], score]


def _name(store: Store, number: int) -> str:
    return _cell(one_line(store.class_names[number], _NAME)) if store.class_names else ""


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_OBEYED) else text
