"""What the encoding lost, measured while the exact logits are still there: KL(exact || stored), the error of the tail's mass
and top-1 agreement, at several temperatures. One sample is one stored distribution (a row of a member).

Sums are kept, not means, so that shards add up to the store's table in any order of work (they are added in shard order).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
MASS_OFF = 0.01  # an error of the tail's mass that is worth a word
_BLOCK_BYTES = 1 << 25  # float64 working memory a block of rows

Line = TypeVar("Line")


class FidelitySums(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sums over `samples` distributions at one temperature; KL in nats, None where it is infinite (JSON has no such number)."""

    temperature: float
    samples: int
    kl_sum: float | None
    kl_max: float | None
    tail_mass_error: float
    top1_agreed: int


class Fidelity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the table: `kl_mean` and `kl_max` of KL(exact || stored) in nats, the largest absolute error of the mass
    outside the stored classes (0 for dense labels, which store every class), and the share of equal argmaxes.
    None: the KL is infinite, as labels give probability 0 to a class that has some (top-k labels without a tail do).
    """

    kl_mean: float | None
    kl_max: float | None
    tail_mass_error: float
    top1_agreement: float


def one_of(classes: int) -> int:
    """Of top-k labels one position of so many is measured, so that the table costs little beside the encoding."""
    return max(1, min(classes // 1024, 32))


def measure_dense(exact: NDArray[np.floating], stored: NDArray[np.float16]) -> tuple[FidelitySums, ...]:
    """Compare raw logits (R, M, C) with their dense encoding (R, M, C), a temperature at a time."""
    classes = exact.shape[-1]
    exact, stored = exact.reshape(-1, classes), stored.reshape(-1, classes)
    step = max(1, _BLOCK_BYTES // (8 * classes))
    kl_sum = dict.fromkeys(TEMPERATURES, 0.0)
    kl_max = dict.fromkeys(TEMPERATURES, 0.0)
    agreed = 0
    for start in range(0, len(exact), step):
        z = exact[start : start + step].astype(np.float64)
        z -= z.max(axis=-1, keepdims=True)
        s = stored[start : start + step].astype(np.float64)
        agreed += int((z.argmax(axis=-1) == s.argmax(axis=-1)).sum())
        with np.errstate(invalid="ignore"):  # -inf - -inf, replaced in the same line
            delta = np.where(np.isneginf(z), 0.0, s - z)
        for temperature in TEMPERATURES:
            kl = _kl(z, delta, temperature)
            kl_sum[temperature] += float(kl.sum())
            kl_max[temperature] = max(kl_max[temperature], float(kl.max()))
    return tuple(
        FidelitySums(
            temperature=t,
            samples=len(exact),
            kl_sum=_told(kl_sum[t]),
            kl_max=_told(kl_max[t]),
            tail_mass_error=0.0,
            top1_agreed=agreed,
        )
        for t in TEMPERATURES
    )


def _told(kl: float) -> float | None:
    return kl if math.isfinite(kl) else None


def _kl(z: NDArray[np.float64], delta: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """KL(softmax(z/T) || softmax((z + delta)/T)) = log E_p[exp(d)] with d = delta/T - E_p[delta/T], per row; written so,
    it keeps its digits when the two are nearly equal. Infinite where a possible class has a delta of -inf.
    """
    p = np.exp(z / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    d = delta / temperature
    with np.errstate(invalid="ignore"):  # a delta of -inf makes the row NaN
        d = d - (p * d).sum(axis=-1, keepdims=True)
        kl = np.maximum(np.log1p((p * np.expm1(d)).sum(axis=-1)), 0.0)
    return np.where(np.isnan(kl), np.inf, kl)


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


def mass_warning(found: Mapping[str, Fidelity], tail: str) -> str | None:
    """What to say, in a line, of top-k labels whose tail's mass is off by more than `MASS_OFF`; None where it is not, or where
    nothing is kept of the tail.
    """
    worst = max(found, key=lambda t: found[t].tail_mass_error, default=None)
    if worst is None or tail == "renormalised" or found[worst].tail_mass_error <= MASS_OFF:
        return None
    return (
        f"the tail's mass is off by up to {found[worst].tail_mass_error:.2g} (at T={worst}): keep more nodes, and mark "
        "impossible classes with -inf where the teacher marks them with a large negative number, which few nodes cannot follow"
    )


def _add(a: FidelitySums, b: FidelitySums) -> FidelitySums:
    return FidelitySums(
        temperature=a.temperature,
        samples=a.samples + b.samples,
        kl_sum=_sum(a.kl_sum, b.kl_sum),
        kl_max=_max(a.kl_max, b.kl_max),
        tail_mass_error=max(a.tail_mass_error, b.tail_mass_error),
        top1_agreed=a.top1_agreed + b.top1_agreed,
    )


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _max(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else max(a, b)
