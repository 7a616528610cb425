"""Rows that stand in two splits, or twice in one, told by their content keys: whoever learnt one has seen the other.

Keys say that inputs are equal, or, with an id column as the key, that ids are. R rows, (R, 16) uint8 keys.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint8]


def leaks(splits: Mapping[str, Keys]) -> dict[str, int]:
    """What is repeated within and across splits: rows by `SPLIT` and by `SPLIT in OTHER`, where there are any.

    Across: rows of each split that are also in an earlier one of train, validation, test, others.
    """
    order = sorted(splits, key=lambda name: (*(name != known for known in ("train", "validation", "test")), name))
    number = np.dtype((np.void, 16))
    whole = {name: np.ascontiguousarray(keys).view(number)[:, 0] for name, keys in splits.items()}
    found = {name: len(whole[name]) - len(np.unique(whole[name])) for name in order}
    for place, name in enumerate(order):
        for other in order[:place]:
            found[f"{name} in {other}"] = int(np.isin(whole[name], whole[other]).sum())
    return {name: rows for name, rows in found.items() if rows}


def leak_lines(found: Mapping[str, int], rows: Mapping[str, int]) -> list[str]:
    """One line for each of `leaks`; `rows` are those of each split."""
    lines = []
    for name, count in found.items():
        split, _, other = name.partition(" in ")
        of = f"{count:,} of {rows[split]:,} {split} rows"
        lines.append(f"{of} are {other} rows too (equal content keys)" if other else f"{of} repeat an earlier one")
    return lines
