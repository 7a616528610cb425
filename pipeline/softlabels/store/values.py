"""What the values of a stored column must be, a column at a time: docs/format.md. Readers ask when a chunk is first read,
writers before anything is written. What columns say of each other is the business of `positions`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.stored import require
from softlabels.store.columns import LABEL, bare, stored_name
from softlabels.store.hard_labels import require_labels
from softlabels.store.spec import Spec


def beside(spec: Spec, name: str) -> str | None:
    """The column that the values of column `name` are read with; None of one that stands alone."""
    owner = spec.owner(name)
    if owner is None:
        return None
    found = owner.encoding.beside(bare(name), owner.label_space.classes)
    return None if found is None else stored_name(owner.name, found)


def check_column(
    spec: Spec, name: str, values: NDArray[Any], *, others: NDArray[Any] | None = None, first_row: int = 0
) -> None:
    """Raise `ValueError`, naming row and rule, where a column (N, ...) holds what the format forbids; `NoSuchClass` of ids,
    `LabelError` of hard labels. `others`: the same rows of the column that `beside` names.
    """
    owner = spec.owner(name)
    if name == "fold":
        require(values < spec.folds, f"is of no fold below {spec.folds}", first_row)
    elif name == "position_mask" and not spec.of_tokens:
        require(np.asarray((values <= 1).all(axis=1)), "the mask of its positions is neither 0 nor 1", first_row)
        require(np.asarray(values.any(axis=1)), "none of its positions counts: the mask is 0 everywhere", first_row)
    elif owner is not None and bare(name) == LABEL:
        require_labels(owner, values, first_row=first_row)
    elif owner is not None:
        owner.encoding.check_column(bare(name), values, owner.label_space.classes, beside=others, first_row=first_row)
