"""How far a store is carried: a bar on a terminal, else a line now and then, with rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

_INTERVAL = 30.0  # seconds between two lines


class Moved:
    """Counts bytes of a store of `total`, that were carried or were there already."""

    def __init__(self, name: str, say: Callable[[str], object]) -> None:
        self.total, self.carried, self.there = 0, 0, 0
        self._name, self._say, self._bar = name, say, tqdm(desc=name, unit="B", unit_scale=True, disable=None)
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, size: int, carried: bool) -> None:
        """Bytes that are there now."""
        self.carried += size * carried
        self.there += size * (not carried)
        self._bar.total = self.total
        self._bar.update(size)
        now = time.monotonic()
        if self._bar.disable and now - self._said > _INTERVAL and self.carried:
            self._said = now
            rate = self.carried / (now - self._began)
            left = max(0, self.total - self.carried - self.there) / rate
            done = f"{shown(self.carried + self.there)} of {shown(self.total)}"
            self._say(f"{self._name}: {done}, {shown(rate)}/s, about {left:,.0f} s left")

    @property
    def line(self) -> str:
        """What was done."""
        return f"{shown(self.carried)} carried" + f", {shown(self.there)} were there" * bool(self.there)


def shown(count: float) -> str:
    """Bytes as people read them."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:,.0f} bytes" if units[0] == "bytes" else f"{count:,.1f} {units[0]}"
