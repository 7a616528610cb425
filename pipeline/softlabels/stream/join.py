"""Rows meet labels: for each row of the student's data, the row of the store that labels it, found by content key.

A filtered, shuffled or re-exported copy of the transfer set finds its labels; what the store does not hold is an error
that counts and names it, or is left out when asked. A key that stands in the store more than once gives its first
labelled row.

Neighbours: `softlabels.store` keeps the index of keys, `examples.py` reads the rows that are joined here.
Shape letters: R rows of the transfer set, N selected items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, UnlabelledRows
from softlabels.store.digest import keys_digest
from softlabels.store.key_index import Missing
from softlabels.transfer.keys import SALTED_RULE

if TYPE_CHECKING:
    from softlabels.store import Store

Ints = NDArray[np.int64]


_SALTED = (
    "the store's keys are salted: give the salt that it was made with (transfer_set.key_salt: a file, or env:NAME); ask who "
    "made it. With the right salt, check that it is the same data and split"
)
_OTHER_DATA = (
    "check that it is the same data and split with the same input columns of the same dtypes, and no key_salt; where inputs "
    "were re-encoded with loss (JPEG), join by an id column (`key`)"
)


def find_labels(
    keys: NDArray[np.uint8], store: Store, *, items: Ints, missing: Missing, names: tuple[str, str]
) -> tuple[Ints, Ints]:
    """The items that have labels, and the store row of each.

    Args:
        keys: (R, 16) content keys of the student's rows.
        store: what holds the labels.
        items: (N,) the rows that are wanted.
        missing: "error", or "skip" to leave out rows that the store does not hold.
        names: how messages call the rows and the store.

    Returns:
        Two int64 arrays of one length: rows out of `items`, in their order, and their store rows.

    Raises:
        UnlabelledRows: rows without labels; always where not a single row has one.
    """
    if missing not in ("error", "skip"):
        raise ConfigError(f"missing must be error or skip, not {missing!r}", remedy="choose one of the two")
    wanted = keys[items]
    found = items if _same_order(keys, items, store) else store.find(wanted)
    known = found >= 0
    if not known.any():
        raise UnlabelledRows(
            f"{names[0]} ({len(items)} rows) and the store {names[1]} ({store.rows} rows) share no content keys",
            remedy=_SALTED if store.spec.transfer_set.key_rule == SALTED_RULE else _OTHER_DATA,
        )
    if missing == "error" and not known.all():
        lost = items[~known]
        raise UnlabelledRows(
            f"the store {names[1]} holds no labels for {len(lost)} of {len(items)} rows of {names[0]}, "
            f"first rows {', '.join(map(str, lost[:5]))}",
            remedy="label them with `softlabels teacher-logits`, or leave them out with missing=skip (--missing=skip)",
        )
    return items[known], found[known]


def _same_order(keys: NDArray[np.uint8], items: Ints, store: Store) -> bool:
    """Whether each item's label stands in the store row of the same number, which spares the index of keys. Where these are all
    rows of the store, its specification says so by their digest, and its keys are not read.

    Where a key repeats it does not: its labels are those of its first row, however the rows are ordered.
    """
    if len(items) == 0 or items.max() >= store.rows:
        return False
    stored = keys
    if len(keys) != store.rows or keys_digest(keys) != store.spec.transfer_set.content_keys:
        stored = store.column("content_key")  # type: ignore[assignment]  # the column's dtype is uint8
        if not np.array_equal(stored[items], keys[items]):
            return False
    half = np.sort(np.ascontiguousarray(stored[:, :8]).view(np.uint64).ravel())
    return not (half[1:] == half[:-1]).any()
