"""What is asked of topk labels at many temperatures at once: the blocks of `summary`.

Kept classes and the mass of the tail are those of `topk_reference`, in float64; a tail's shape z is made once, in float32.

N positions, M members, C classes, k classes that are asked for, S others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.asked import Summary
from softlabels.labels.decoder import Columns
from softlabels.labels.summary import LOWEST, NUMBERS, Alike, Block, Shaped, summarised
from softlabels.labels.topk_fields import TopkFields
from softlabels.labels.topk_reference import stored_log_probs
from softlabels.labels.topk_soft import TopkMembers

Floats = NDArray[np.float64]


def topk_summary(
    columns: Columns, encoding: TopkFields, classes: int, basis: NDArray[np.float16] | None, *, weights: Floats,
    temperatures: Sequence[float], ids: NDArray[np.int64], others: Sequence[NDArray[np.floating]],
) -> Summary:  # fmt: skip
    """See `EncodingBase.summary`."""
    whole = None if basis is None else torch.from_numpy(np.require(basis, requirements="W")).float()

    def block(rows: slice, logits: Sequence[Tensor]) -> Block:
        own = {name: values[rows] for name, values in columns.items()}
        members = TopkMembers.of(own, encoding=encoding, classes=classes, basis=whole)
        kept = members.ids()

        def stored(temperature: float) -> tuple[Floats, Floats]:
            return stored_log_probs(own, encoding, classes, temperature)[1:]

        if not encoding.has_shapes(classes):
            return Alike(kept.numpy(), stored, weights, logits, classes)
        shapes = [members.member(m).tail_logits(kept[:, m], 1.0, LOWEST) for m in range(len(weights))]
        shapes = [z.sub_(z.amax(dim=1, keepdim=True)) for z in shapes]
        return Shaped(kept.numpy(), stored, weights, logits, shapes)

    by_class = classes if others or encoding.has_shapes(classes) else 1
    step = max(1, NUMBERS // max(by_class, len(weights) * encoding.k * max(ids.shape[1], 1)))
    return summarised(block, step, classes=classes, weights=weights, temperatures=temperatures, ids=ids, others=others)
