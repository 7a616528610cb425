"""A place whose answers are not always true, nor twice the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from softlabels.system.depots import LocalDepot

NAMES = ("../../secret", "/etc/passwd", "plan.json/x", "x\x1b[2J", "", "staging/x")
SIZES = (-1, 0, 1, 1 << 27, 1 << 62)


class Liar(LocalDepot):
    """A folder that tells a lie now and then, by `numbers`: each answer is another one with the probability `often`."""

    numbers: ClassVar[np.random.Generator] = np.random.default_rng(0)
    often: ClassVar[float] = 0.1

    @classmethod
    def of(cls, folder: Path, numbers: np.random.Generator, often: float) -> Liar:
        cls.numbers, cls.often = numbers, often
        return cls(folder)

    def lies(self) -> bool:
        return bool(self.numbers.random() < self.often)

    def other(self, data: bytes) -> bytes:
        """Other bytes than these, or fewer, or more."""
        cut = int(self.numbers.integers(0, max(1, len(data))))
        flipped = data[:cut] + bytes(byte ^ 1 for byte in data[cut : cut + 1]) + data[cut + 1 :]
        return (flipped, data[:cut], data + b" ", b"null", b"[" * 5000)[self.numbers.integers(5)]

    def size(self, name: str) -> int:
        found = super().size(name)
        return SIZES[self.numbers.integers(len(SIZES))] if self.lies() else found

    def read(self, name: str, limit: int | None = None) -> bytes:
        data = super().read(name, limit)
        return self.other(data) if self.lies() else data

    def sizes(self) -> Iterator[tuple[str, int]]:
        for name, size in super().sizes():
            yield (NAMES[self.numbers.integers(len(NAMES))] if self.lies() else name), size

    def opened(self, name: str) -> tuple[int, Iterator[bytes]]:
        size, pieces = super().opened(name)
        if self.lies():
            raise FileNotFoundError(name)
        data = b"".join(pieces)
        data = self.other(data) if self.lies() else data
        size = SIZES[self.numbers.integers(len(SIZES))] if self.lies() else size
        return size, iter([data[:7], data[7:]])
