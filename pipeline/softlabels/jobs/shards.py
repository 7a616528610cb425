"""Which shards of the stores a worker does. Light, for the commands' help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from softlabels.errors import ConfigError, UserError
from softlabels.store.claims import LAPSE


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards that a worker computes. By default all that no other live worker has claimed, until none is left.

    Attributes:
        part: (i, n) with i from 1 to n, for n workers with a part each: shard i, shard i + n, ..., counted through all splits.
        named: shards by split. With `part` or `named` the worker ignores other workers and waits for none.
        lapse: seconds after which another worker, whose claim has not changed, counts as dead.

    Example:
        >>> [*label(states, teacher, LabelsConfig(), "stores/parts", shards=Shards(part=(1, 2)))]  # worker 1 of 2
        ['train']
    """

    part: tuple[int, int] | None = None
    named: Mapping[str, Iterable[int]] | None = None
    lapse: float = LAPSE

    def __post_init__(self) -> None:
        if not self.lapse > 0:
            raise ConfigError(f"lapse is {self.lapse:g}", remedy="give a number of seconds above 0")

    @classmethod
    def of(cls, text: str | None, *, lapse: float = LAPSE) -> Shards:
        """From "i/n". Raises `ConfigError`."""
        if text is None:
            return cls(lapse=lapse)
        given = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if given is None or not 1 <= int(given[1]) <= int(given[2]):
            raise ConfigError(f"--shards={text}", remedy="give i/n with i from 1 to n, such as --shards=1/8")
        return cls(part=(int(given[1]), int(given[2])), lapse=lapse)

    def own(self, sizes: Mapping[str, int]) -> dict[str, set[int]] | None:
        """The worker's shards of each split, from the number of shards of each; None if it has no shards of its own. Raises
        `UserError`.
        """
        if self.part is not None:
            number, parts = self.part
            found = _parts(sizes, parts)
            return {split: {shard for shard, part in found[split].items() if part == number} for split in sizes}
        if self.named is None:
            return None
        named = {split: {*map(int, shards)} for split, shards in self.named.items()}
        for split, shards in named.items():
            if wrong := sorted(shards - set(range(sizes.get(split, 0)))):
                there = ", ".join(f"{name} has {size}" for name, size in sizes.items())
                raise UserError(f"{split} has no shard {wrong[0]}", remedy=f"count shards from 0; {there}")
        return {split: named.get(split, set()) for split in sizes}

    def parts_of(self, sizes: Mapping[str, int], split: str, shards: Iterable[int]) -> list[str]:
        """The parts, as i/n, that these shards of a split belong to, if the worker has a part."""
        if self.part is None:
            return []
        found = _parts(sizes, self.part[1])[split]
        return [f"{part}/{self.part[1]}" for part in sorted({found[shard] for shard in shards})]


def _parts(sizes: Mapping[str, int], parts: int) -> dict[str, dict[int, int]]:
    """The part of each shard, by split."""
    numbers: Iterator[int] = count()
    return {split: {shard: next(numbers) % parts + 1 for shard in range(size)} for split, size in sizes.items()}


ALL = Shards()
