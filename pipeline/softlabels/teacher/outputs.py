"""What the teacher's members say of one batch: logits, or hidden states from which logits are made a block at a time.

Logits of all positions of a language model are large (256 rows x 127 positions x 150,000 classes in float32: 20 GB), so they
are made where they are used, block by block, on the device.

N distributions of a batch (its rows, or rows x positions, row behind row), M members, C classes, V outputs of a member, d
hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 28  # of float32 logits of all members


@dataclass(frozen=True, eq=False)
class Product:
    """Logits that are still to be made: hidden (N, d) @ weight (V, d).T + bias (V,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None

    def rows(self, at: slice | Tensor, classes: int) -> Tensor:
        """Logits (n, C) of some of the N distributions; outputs beyond C are padding and not computed."""
        bias = None if self.bias is None else self.bias[:classes]
        return torch.nn.functional.linear(self.hidden[at], self.weight[:classes], bias)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Logits of N distributions that several models gave, each of some: distribution i is number inside[i] of parts[part[i]].

    Attributes:
        parts: logits (n, V), or what they are a product of; one a model.
        part, inside: (N,) int64.
    """

    parts: tuple[Tensor | Product, ...]
    part: Tensor
    inside: Tensor

    def rows(self, at: slice | Tensor, classes: int) -> Tensor:
        """Logits (n, C) of some of the N distributions."""
        part, inside = self.part[at], self.inside[at]
        found = [rows_of(each, inside[part == number], classes) for number, each in enumerate(self.parts)]
        places = torch.cat([torch.nonzero(part == number)[:, 0] for number in range(len(self.parts))])
        return torch.cat(found)[places.argsort()]


def rows_of(part: Tensor | Product | Gathered, at: slice | Tensor, classes: int) -> Tensor:
    """Logits (n, C) of some of a member's distributions."""
    return part[at, :classes] if isinstance(part, Tensor) else part.rows(at, classes)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The members' outputs for a batch, on the device.

    Attributes:
        members: logits (N, V), what they are a product of, or those of several models; one a member.
        classes: C, at most V: outputs beyond are padding.
        arithmetic: what products run in: the teacher's precision.
    """

    members: tuple[Tensor | Product | Gathered, ...]
    classes: int
    arithmetic: Callable[[], AbstractContextManager[object]]

    def __len__(self) -> int:
        return len(self._first)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._first.device

    @property
    def _first(self) -> Tensor:
        first = self.members[0]
        return first if isinstance(first, Tensor) else first.hidden if isinstance(first, Product) else first.part

    @torch.inference_mode()
    def logits(self, at: slice | Tensor = slice(None)) -> Tensor:
        """Logits (n, M, C) of the distributions that `at` selects, in the members' dtype (float32 where they differ)."""
        with self.arithmetic():
            parts = [rows_of(part, at, self.classes) for part in self.members]
        if len({part.dtype for part in parts}) > 1:
            parts = [part.float() for part in parts]
        return torch.stack(parts, dim=1) if len(parts) > 1 else parts[0][:, None]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Every distribution in order, as many at a time as `BLOCK_BYTES` hold: where they stand, and logits (n, M, C).

        How many depends on M and C alone, so the same batch is always cut alike.
        """
        step = max(1, BLOCK_BYTES // (4 * len(self.members) * self.classes))
        for start in range(0, len(self), step):
            at = slice(start, min(start + step, len(self)))
            yield at, self.logits(at)


def joined(found: Sequence[Outputs]) -> Outputs:
    """The outputs for batches one behind the other, of the same members."""
    members: list[Tensor | Product | Gathered] = []
    for parts in zip(*(each.members for each in found), strict=True):
        first = parts[0]
        if isinstance(first, Gathered):
            raise TypeError("batches of rows of several folds are not joined")
        if isinstance(first, Product):
            members.append(replace(first, hidden=torch.cat([part.hidden for part in parts])))
        else:
            members.append(torch.cat(parts))
    return replace(found[0], members=tuple(members))
