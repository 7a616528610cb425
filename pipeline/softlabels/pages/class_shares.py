"""Hard labels of a store, counted: by class, of a sigmoid flag by flag; and of how many rows or positions there is none.

C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.hard import are_labelled
from softlabels.store import Store
from softlabels.store.columns import LABEL

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shares:
    """Of all rows' hard labels.

    Attributes:
        positions: how many rows, or positions that count, there are. labelled: how many of them have a label.
        counts: (C,) of each class; of flags how many are 1. known: (C,) of how many it is known.
    """

    positions: int
    labelled: int
    counts: Ints
    known: Ints


def class_shares(store: Store) -> Shares:
    """Those of a store of one target, softmax or sigmoid; chunk by chunk."""
    positions, labelled, counts, known = 0, 0, *np.zeros((2, store.classes), np.int64)
    for block, labels in _blocks(store):
        positions += block
        if labels is None:
            continue
        has = are_labelled(labels, store.encoding.target)
        labelled += int(has.sum())
        if store.encoding.target == "sigmoid":
            counts += (labels == 1).sum(axis=0)
            known += (labels >= 0).sum(axis=0)
        else:
            counts += np.bincount(labels[has], minlength=store.classes)
    return Shares(
        positions, labelled, counts, known if store.encoding.target == "sigmoid" else np.full_like(counts, labelled)
    )


def _blocks(store: Store) -> Iterator[tuple[int, NDArray[np.integer] | None]]:
    """How many positions count in a chunk, and their labels (n, ...); tokens have none."""
    is_labelled = LABEL in store.columns and not store.spec.of_tokens
    for chunk in range(store.chunks):
        rows = min(store.rows_per_chunk, store.rows - chunk * store.rows_per_chunk)
        labels = store.read_chunk(LABEL, chunk) if is_labelled else None
        if store.positions is None:
            yield rows, labels  # type: ignore[misc]  # of integers
            continue
        mask = np.ones((rows, store.positions), np.bool_)
        if "position_mask" in store.columns:
            mask = np.asarray(store.read_chunk("position_mask", chunk) != 0)
        yield int(mask.sum()), None if labels is None else labels[mask]  # type: ignore[misc]
