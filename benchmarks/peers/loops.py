"""Readers of peers that are a `DataLoader` of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.peers.reader import Batch


class InDataLoader:
    """`DataLoader` of torch over a map-style data set, which keeps no place."""

    def __init__(self, make: Callable[[], DataLoader[Any]]) -> None:
        self._make = make

    def epoch(self, number: int, state: Any = None) -> Iterator[Batch]:
        """See `Reader`."""
        torch.manual_seed(number)
        yield from self._make()

    def state(self) -> Any:
        """See `Reader`."""
        return None
