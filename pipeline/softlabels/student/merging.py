"""Scores that several processes add up, each over its own rows, as those of all rows."""

from __future__ import annotations

from typing import Any, ClassVar


class Merging:
    """What adds up: `SUMS` are the names of its attributes that hold sums: numbers, tensors, lists, mappings of these, or None
    where there is nothing yet; others of the same kind (`Merging`) may be among them.
    """

    SUMS: ClassVar[tuple[str, ...]] = ()

    def sums(self) -> dict[str, Any]:
        """All of them, as plain values and tensors."""
        found = {name: getattr(self, name) for name in self.SUMS}
        return {name: each.sums() if isinstance(each, Merging) else each for name, each in found.items()}

    def merge(self, sums: dict[str, Any]) -> None:
        """Add what another one of the same kind has."""
        for name, other in sums.items():
            own = getattr(self, name)
            if isinstance(own, Merging):
                own.merge(other)
            else:
                setattr(self, name, _both(own, other))


def _both(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict):
        return {key: _both(one.get(key), other.get(key)) for key in {**one, **other}}
    return one + other
