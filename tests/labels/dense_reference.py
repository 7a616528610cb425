"""Dense columns by their definition, in numpy, with nothing of ours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dense(NamedTuple):
    """`logits` (..., M, C) float16 = z - max(z), `shift` (..., M) float32 = max(z)."""

    logits: np.ndarray
    shift: np.ndarray


def dense_columns(z: np.ndarray) -> Dense:
    """Of logits (..., M, C)."""
    wide = z if z.dtype == np.float64 else z.astype(np.float32)
    peak = wide.max(axis=-1, keepdims=True)
    return Dense((wide - peak).astype(np.float16), peak[..., 0].astype(np.float32))
