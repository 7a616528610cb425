"""Rows that the sealed stores of one folder share, or repeat, by their content keys; `softlabels.checks.leaks` counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from softlabels.checks.leaks import leak_lines, leaks
from softlabels.errors import SoftLabelsError
from softlabels.store.reader import open_store
from softlabels.system.files import Files

MOST = 10_000_000  # rows of all splits whose keys are read: 160 MB


@dataclass(frozen=True)
class Shared:
    """What `leaks` found among splits.

    Attributes:
        found: rows by `SPLIT` and by `SPLIT in OTHER`.
        rows: of each split.
        unknown: why nothing was counted; "" where it was.
    """

    found: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    unknown: str = ""

    @property
    def lines(self) -> list[str]:
        """One line for each finding."""
        return [self.unknown] if self.unknown else leak_lines(self.found, self.rows)


def shared(folders: Mapping[str, Files]) -> Shared:
    """Of the sealed stores of each split."""
    try:
        stores = {split: open_store(folder) for split, folder in folders.items()}
        rows = {split: store.rows for split, store in stores.items()}
        if sum(rows.values()) > MOST:
            return Shared(rows=rows, unknown=f"rows that splits share are not counted (more than {MOST:,} rows)")
        keys = {split: np.asarray(store.column("content_key"), np.uint8) for split, store in stores.items()}
    except SoftLabelsError as error:
        return Shared(unknown=f"rows that splits share are not counted: {error.what}")
    return Shared(leaks(keys), rows)
