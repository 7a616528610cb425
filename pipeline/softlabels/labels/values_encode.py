"""Values to the column of the values encoding, where the values are, and what was lost.

n positions of a block, M members, D values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softlabels.errors import InfiniteLogits, LogitsOverflow, NanLogits
from softlabels.labels.base import Encoded
from softlabels.labels.blocks import OVERFLOW, Block, rounded
from softlabels.labels.lost import ErrorSums, Lost


def finite_values(block: Block) -> None:
    """Raise `NanLogits` or `InfiniteLogits` where a value is none."""
    if not torch.isfinite(block.logits).all():
        block.refuse(block.logits.isnan().any(dim=-1), "values are NaN", OVERFLOW, NanLogits)
        block.refuse(block.logits.isinf().any(dim=-1), "a value is infinite", OVERFLOW, InfiniteLogits)


@dataclass(frozen=True)
class ValuesEncoder:
    """Blocks to columns of a dtype. Raises `LogitsOverflow` for a value that it does not hold."""

    dtype: torch.dtype

    def __call__(self, block: Block) -> Encoded:
        stored = rounded(block.logits, self.dtype)
        block.refuse(
            stored.isinf().any(dim=-1),
            f"a value lies beyond {torch.finfo(self.dtype).max:g}, the largest {str(self.dtype).removeprefix('torch.')}",
            "keep float32, or scale the teacher's outputs down",
            LogitsOverflow,
        )
        errors = stored[block.real].double() - block.logits[block.real].double()
        return {"values": stored.cpu().numpy()}, Lost(errors=ErrorSums.of(errors))
