"""Two-class tasks of the UCI letters (Bucila et al. 2006): the factory of the recipes `letter`, and their prepare function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features
from numpy.typing import NDArray

from softlabels.errors import TransferSetError
from softlabels.transfer.columns import class_names_at
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.prepare import Row, vector
from softlabels.transfer.source import open_split

FEATURES = (
    "x-box", "y-box", "width", "high", "onpix", "x-bar", "y-bar", "x2bar", "y2bar", "xybar", "x2ybr", "xy2br",
    "x-ege", "xegvy", "y-ege", "yegvx",
)  # fmt: skip


def letter_rows(*, split: str, source: str, positive: str) -> Dataset:
    """The sixteen numbers of each letter as they are, and `label`: 1 where it is one of `positive`, else 0.

    Args:
        split: its name in the source.
        source: hub id, or local folder or file, with the columns `FEATURES` and `label`, a ClassLabel A to Z.
        positive: the letters of class 1, such as "O" or "ABCDEFGHIJKLM".

    Raises:
        TransferSetError: a source that cannot be opened, lacks a column, or does not name these letters.
    """
    columns = TransferSetConfig(source=source, inputs=FEATURES, splits={"_": split})
    data = open_split(columns, "_").data
    names = class_names_at(data.features, "label") or ()
    if unknown := sorted({*positive} - {*names}):
        raise TransferSetError(
            f"{source} has no letter {unknown[0]!r} in label",
            remedy=f"its classes are {', '.join(names) or 'not named'}",
        )
    table = data[:]
    is_positive = np.isin(table.column("label").to_numpy(), [names.index(letter) for letter in positive])
    made = table.select(FEATURES).append_column("label", pa.array(is_positive.astype(np.int64)))
    two = ClassLabel(names=["others", positive])
    features = Features({name: data.features[name] for name in FEATURES} | {"label": two})
    return Dataset(made.cast(features.arrow_schema), info=DatasetInfo(features=features), fingerprint="letter_rows")


def centred(rows: Sequence[Row]) -> NDArray[np.float32]:
    """The numbers of letters, 0 to 15, as float32 from -1 to 1: (B, 16)."""
    return vector(rows) / np.float32(7.5) - np.float32(1)
