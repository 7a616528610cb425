"""Products whose rows begin at cache lines: the numbers of plain ones."""

from __future__ import annotations

import pytest
import torch

from softlabels.labels.aligned import LINE, aligned_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, LINE, 5 * LINE + 1, 50 * LINE - 3])
def test_has_the_bits_of_a_plain_product(columns: int, dtype: torch.dtype) -> None:
    left, right = torch.randn(9, 7).to(dtype), torch.randn(columns, 7).to(dtype).t()
    found = aligned_product(left, right)
    assert torch.equal(found, left @ right)
    assert found.dtype == dtype
    assert found.stride(0) % LINE == 0
