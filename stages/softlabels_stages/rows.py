"""The rows of splits as commands open them: what is worth a line about them is printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from softlabels.checks.leaks import leak_lines, leaks
from softlabels.checks.unseen import unseen_lines
from softlabels.text import one_line
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set


def load_rows(transfer_set: TransferSetConfig, split: str) -> TransferRows:
    """`load_transfer_set`, and its notes on standard error."""
    rows = load_transfer_set(transfer_set, split)
    for note in rows.notes:
        print(f"{split}: {note}", file=sys.stderr)
    return rows


def say_how_splits_relate(
    keys: Mapping[str, npt.NDArray[np.uint8]],
    labels: Mapping[str, npt.NDArray[np.int64]],
    names: Sequence[str] | None,
) -> None:
    """Print which rows stand in several splits, by their keys (R, 16), and which classes the training rows lack, by hard labels
    (R,) of the splits that have them; `names` are the classes'.
    """
    shared = leak_lines(leaks(keys), {name: len(rows) for name, rows in keys.items()})
    for line in (*shared, *unseen_lines(labels, names)):
        print(one_line(line, None), flush=True)
