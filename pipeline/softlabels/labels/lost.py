"""`Lost`: what encoding outputs lost, whatever their kind: of distributions `fidelity`'s sums, of values the errors of the
stored numbers. Sums are kept, not means, so that shards add up in any order of work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from softlabels.labels.fidelity import Fidelity, FidelitySums, add_up, table

if TYPE_CHECKING:
    from torch import Tensor


class ErrorSums(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Over `samples` stored numbers: the sum of the squares of their errors, and the largest absolute one."""

    samples: Annotated[int, Meta(ge=0)]
    squares: Annotated[float, Meta(ge=0)]
    largest: Annotated[float, Meta(ge=0)]

    @staticmethod
    def of(errors: Tensor) -> ErrorSums:
        """Of the errors of some numbers, any shape, in float64."""
        largest = errors.abs().max().item() if errors.numel() else 0.0
        return ErrorSums(samples=errors.numel(), squares=errors.square().sum().item(), largest=largest)


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The line of the table: the root of the mean squared error of the stored numbers, and the largest absolute one."""

    rmse: float
    largest: float


class Lost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Of distributions `fidelity`, of values `errors`; of what nobody measured neither."""

    fidelity: tuple[FidelitySums, ...] = ()
    errors: ErrorSums | None = None

    @staticmethod
    def total(parts: Iterable[Lost]) -> Lost:
        """Of several parts together."""
        parts = list(parts)
        errors = [part.errors for part in parts if part.errors is not None]
        summed = ErrorSums(
            samples=sum(each.samples for each in errors),
            squares=math.fsum(each.squares for each in errors),
            largest=max((each.largest for each in errors), default=0.0),
        )
        return Lost(fidelity=add_up(part.fidelity for part in parts), errors=summed if errors else None)


class LostTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The same for people: a line a temperature, or the line of the errors."""

    fidelity: dict[str, Fidelity] = {}
    errors: Errors | None = None

    @staticmethod
    def of(parts: Iterable[Lost]) -> LostTable:
        """Of several parts together."""
        total = Lost.total(parts)
        found = total.errors
        errors = None
        if found is not None and found.samples:
            errors = Errors(rmse=math.sqrt(found.squares / found.samples), largest=found.largest)
        return LostTable(fidelity=table([total.fidelity]), errors=errors)
