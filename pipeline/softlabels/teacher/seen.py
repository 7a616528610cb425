"""Which rows the weights of a fold were trained on, in a file beside them: their content keys, sorted.

A fold is a function of the key, so weights never label a row that they saw, as long as it has the key that it had then. It has
another with another `transfer_set.key`, `key_salt` or `inputs`, or columns of other dtypes. Neighbour: `stream.folds`.

R rows.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import WeightsError
from softlabels.store.key_index import KeyIndex
from softlabels.stream.folds import across_folds, fold_of
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferRows


def record_seen(weights: Path, keys: NDArray[np.uint8]) -> None:
    """Write down the keys (R, 16) of the rows that `weights` are trained on. Raises DiskFull, StorageError."""
    out = io.BytesIO()
    np.save(out, np.unique(keys, axis=0))
    LocalFolder(weights.parent).put(_beside(weights).name, out.getvalue())


def require_unseen(weights: Path, keys: NDArray[np.uint8], fold: int, folds: int) -> None:
    """Refuse weights that saw a row of their fold, or none of the other rows: keys are made otherwise now. Weights without such
    a file, trained by somebody else, are taken at their word.

    Args:
        weights: of a fold. keys: (R, 16) of all rows that the folds label.

    Raises:
        WeightsError: they did; or the file is damaged.
    """
    file = _beside(weights)
    if not file.exists():
        return
    try:
        with system_errors("read", file):
            seen = KeyIndex(np.load(io.BytesIO(file.read_bytes()), allow_pickle=False).astype(np.uint8, casting="no"))
    except (ValueError, EOFError) as error:
        raise WeightsError(
            f"{file} holds no keys of rows: {error}", remedy=f"delete it and {weights}, and train"
        ) from error
    is_seen, own = seen.find(keys) >= 0, fold_of(keys, folds) == fold
    if count := int((is_seen & own).sum()):
        what = f"saw {count:,} of the {int(own.sum()):,} rows of fold {fold}"
    elif own.all() or is_seen.any():
        return
    else:
        what = "saw none of these training rows: they are others, or transfer_set makes their keys otherwise now"
    raise WeightsError(f"{weights} {what}", remedy="delete the weights of all folds, and train them on these rows")


def repeats_line(rows: TransferRows, folds: int, among: NDArray[np.bool_] | None = None) -> str:
    """A line where rows, all or those `among` (R,) them, have the content of a row of another fold and other ids; else ""."""
    if rows.key == "content":
        return ""
    at = np.arange(len(rows.keys)) if among is None else np.flatnonzero(among)
    count = across_folds(rows.keys[at], rows.inputs[at], folds)
    if not count:
        return ""
    return (
        f"{count:,} of {len(at):,} training rows have the content of a row of another fold under another key ({rows.key}): "
        "models that saw one of them label the other; leave transfer_set.key out, or keep one row of each content"
    )


def _beside(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.rows.npy")
