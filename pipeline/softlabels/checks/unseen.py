"""Classes that another split has and the training rows lack: a split that was cut along the labels, or misses a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SHOWN = 10  # classes that a line names
TRAIN = "train"


def unseen_lines(labels: Mapping[str, NDArray[np.int64]], names: Sequence[str] | None = None) -> Iterator[str]:
    """One line for each split with hard labels that no row of `train` has, where that has any.

    Args:
        labels: hard labels (R,) by split, -1 where a row has none.
        names: of the classes.
    """
    seen = np.unique(labels.get(TRAIN, np.empty(0, np.int64)))
    if not (seen >= 0).any():
        return
    for split, theirs in labels.items():
        there = np.unique(theirs[theirs >= 0])
        lacking = np.setdiff1d(there, seen).tolist()
        if lacking:
            shown = [str(number) if names is None else names[number] for number in lacking[:SHOWN]]
            more = ", ..." if len(lacking) > SHOWN else ""
            what = f"{len(lacking):,} of {len(there):,} classes of {split} have no row in {TRAIN}: {', '.join(shown)}{more}"
            yield f"{what} (a file whose rows are sorted by class is shuffled before it is cut into splits)"
