"""The sample of a dense store in which the tails' basis is found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from softlabels.store import Store
from softlabels.teacher import reencode
from softlabels.teacher.reencode import DensePilot


def rows_of(mask: np.ndarray | None, rows: int) -> list[int]:
    store: Any = SimpleNamespace(rows=rows, positions=None if mask is None else mask.shape[1], column=lambda name: mask)
    return cast("list[int]", DensePilot(cast(Store, store), torch.device("cpu")).rows.tolist())


def test_it_holds_as_many_positions_as_it_says_also_where_masks_are_uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reencode, "POSITIONS", 8)
    assert rows_of(None, 33) == list(range(0, 33, 4))
    assert rows_of(None, 5) == list(range(5))
    mask = np.ones((12, 4), np.uint8)
    assert rows_of(mask, 12) == [0, 6]
    mask[[0, 5]] = 0
    assert rows_of(mask, 12) == [0, 4, 8]  # every fifth row would hold 4 positions
    assert rows_of(np.zeros((4, 2), np.uint8), 4) == list(range(4))
