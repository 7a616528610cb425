"""The rows of a store of values on a page: the members' vectors beside hard values and students.

N positions, M members, D values, S students.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import one_line
from softlabels.labels.decoder import Columns
from softlabels.pages.numbers import numbers
from softlabels.store import Store

VALUES = 64  # of a vector, beyond which the first are shown


def value_data(
    store: Store,
    columns: Columns,
    hard: NDArray[Any] | None,
    students: Sequence[NDArray[np.floating]],
    usual: NDArray[np.float64],
) -> dict[str, Any]:
    """What the script needs: `values` (N, M, D), `mean` (N, D), `hard` (N, D) or None, `student_values` (S, N, D), and
    `usual` (D,), the usual sizes in which distances are said.
    """
    shown = min(store.classes, VALUES)
    names = store.class_names or [f"output {number}" for number in range(shown)]
    mean = store.encoding.values(columns, store.member_weights)
    said = [each[:, :shown] for each in students]
    return {
        "names": {number: one_line(name, 80) for number, name in enumerate(names[:shown])},
        "usual": usual[:shown].tolist(),
        "values": numbers(columns["values"][..., :shown].astype(np.float32)),
        "mean": numbers(mean[:, :shown].astype(np.float32)),
        "hard": None
        if hard is None or np.isnan(hard[:, :shown]).all()
        else numbers(hard[:, :shown].astype(np.float32)),
        "student_values": numbers(np.stack(said or [np.zeros((len(mean), shown))])[: len(said)].astype(np.float32)),
    }
