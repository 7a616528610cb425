"""Values to the column of the values encoding, where the values are, and what was lost.

n positions of a block, M members, D values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softlabels.errors import InfiniteLogits, LogitsOverflow, NanLogits
from softlabels.labels.base import Encoded
from softlabels.labels.blocks import OVERFLOW, Block, rounded
from softlabels.labels.lost import ErrorSums, Lost


def finite_values(block: Block) -> None:
    """Raise `NanLogits` or `InfiniteLogits` where a value is none."""
    if not torch.isfinite(block.logits).all():
        block.refuse(block.logits.isnan().any(dim=-1), "values are NaN", OVERFLOW, NanLogits)
        block.refuse(block.logits.isinf().any(dim=-1), "a value is infinite", OVERFLOW, InfiniteLogits)


def encode_values(dtype: str, block: Block) -> Encoded:
    """The column of a block, and what it lost at the positions that count. Raises as `stored_values`."""
    stored = stored_values(dtype, block)
    errors = stored[block.real].double() - block.logits[block.real].double()
    return {"values": stored.cpu().numpy()}, Lost(errors=ErrorSums.of(errors))


def stored_values(dtype: str, block: Block) -> Tensor:
    """The values as they are stored. Raises `LogitsOverflow` for one that `dtype` does not hold."""
    stored = rounded(block.logits, getattr(torch, dtype))
    most = torch.finfo(stored.dtype).max
    what = f"a value lies beyond {most:g}, the largest {dtype}"
    remedy = "keep float32 (dtype), or scale the teacher's outputs down"
    block.refuse(stored.isinf().any(dim=-1), what, remedy, LogitsOverflow)
    return stored
