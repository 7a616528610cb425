"""What is asked of dense labels at many temperatures at once: the blocks of `summary`, of labels that are all tail.

N positions, M members, C classes, k classes that are asked for, S others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.asked import Summary
from softlabels.labels.summary import LOWEST, NUMBERS, Block, Shaped, summarised

Floats = NDArray[np.float64]


def dense_summary(
    logits: NDArray[np.float16], *, weights: Floats, temperatures: Sequence[float], ids: NDArray[np.int64],
    others: Sequence[NDArray[np.floating]],
) -> Summary:  # fmt: skip
    """See `EncodingBase.summary`; of z - max(z) (N, M, C)."""
    _, members, classes = logits.shape

    def block(rows: slice, other: Sequence[Tensor]) -> Block:
        z = [torch.from_numpy(logits[rows, number].astype(np.float32)).clamp_(min=LOWEST) for number in range(members)]
        lead = (len(z[0]), members)

        def nothing(_: float) -> tuple[Floats, Floats]:
            return np.zeros((*lead, 0)), np.zeros(lead)

        return Shaped(np.zeros((*lead, 0), np.int64), nothing, weights, other, z)

    step = max(1, NUMBERS // classes)
    return summarised(block, step, classes=classes, weights=weights, temperatures=temperatures, ids=ids, others=others)
