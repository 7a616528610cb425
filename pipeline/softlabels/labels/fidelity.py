"""What the encoding lost, measured while the exact logits are still there: KL(exact || stored), the error of the tail's mass
and top-1 agreement, at several temperatures. One sample is one stored distribution (a row of a member).

Sums are kept, not means, so that shards add up to the store's table in any order of work (they are added in shard order).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
MASS_OFF = 0.01  # an error of the tail's mass that is worth a word

Line = TypeVar("Line")


class FidelitySums(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sums over `samples` distributions at one temperature; KL in nats, None where it is infinite (JSON has no such number)."""

    temperature: float
    samples: int
    kl_sum: float | None
    kl_max: float | None
    tail_mass_error: float
    top1_agreed: int

    @staticmethod
    def of(temperature: float, kl: Tensor, agreed: Tensor, mass_error: float = 0.0) -> FidelitySums:
        """Of the KL (n,) of each distribution, and whether its largest class is the same."""
        kl_sum, kl_max = kl.sum().item(), kl.max().item() if len(kl) else 0.0
        return FidelitySums(
            temperature=temperature,
            samples=len(kl),
            kl_sum=kl_sum if math.isfinite(kl_sum) else None,
            kl_max=kl_max if math.isfinite(kl_max) else None,
            tail_mass_error=mass_error,
            top1_agreed=int(agreed.sum()),
        )


class Fidelity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the table: `kl_mean` and `kl_max` of KL(exact || stored) in nats, the largest absolute error of the mass
    outside the stored classes (0 for dense labels, which store every class), and the share of equal argmaxes.
    None: the KL is infinite, as labels give probability 0 to a class that has some (top-k labels without a tail do).
    """

    kl_mean: float | None
    kl_max: float | None
    tail_mass_error: float
    top1_agreement: float


def add_up(parts: Iterable[tuple[FidelitySums, ...]]) -> tuple[FidelitySums, ...]:
    """The sums over several parts, one a temperature, ascending."""
    merged: dict[float, FidelitySums] = {}
    for part in parts:
        for sums in part:
            merged[sums.temperature] = _add(merged[sums.temperature], sums) if sums.temperature in merged else sums
    return tuple(merged[temperature] for temperature in sorted(merged))


def table(shards: Iterable[tuple[FidelitySums, ...]]) -> dict[str, Fidelity]:
    """Add up shards: {"1": Fidelity, "2": ..., ...}, keyed by temperature."""
    return {
        f"{s.temperature:g}": Fidelity(
            kl_mean=None if s.kl_sum is None else s.kl_sum / s.samples,
            kl_max=s.kl_max,
            tail_mass_error=s.tail_mass_error,
            top1_agreement=s.top1_agreed / s.samples,
        )
        for s in add_up(shards)
        if s.samples
    }


def is_temperature(key: str) -> bool:
    """Whether a key of a table, which may be somebody else's, is a temperature as `table` writes it."""
    try:
        return 0 < float(key) < math.inf and f"{float(key):g}" == key
    except ValueError:
        return False


def by_temperature(found: Mapping[str, Line]) -> list[tuple[str, Line]]:
    """A table's lines in order of T: JSON's is that of the text."""
    return sorted(found.items(), key=lambda line: float(line[0]))


def nats(kl: float | None, digits: int = 2) -> str:
    """A KL as tables print it."""
    return "infinite" if kl is None else f"{kl:.{digits}e}"


def _add(a: FidelitySums, b: FidelitySums) -> FidelitySums:
    both = a.kl_sum is not None and b.kl_sum is not None and a.kl_max is not None and b.kl_max is not None
    return FidelitySums(
        temperature=a.temperature,
        samples=a.samples + b.samples,
        kl_sum=a.kl_sum + b.kl_sum if both else None,  # type: ignore[operator]
        kl_max=max(a.kl_max, b.kl_max) if both else None,  # type: ignore[type-var]
        tail_mass_error=max(a.tail_mass_error, b.tail_mass_error),
        top1_agreed=a.top1_agreed + b.top1_agreed,
    )
