"""How far two computations of one logit may differ: the rounding of each arithmetic."""

from __future__ import annotations

# Of the same rows in batches that are cut otherwise, relative to 1 + the largest logit.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}
HALF = 2.0**-11  # float16, relative


def tolerance(precision: str) -> float:
    """That of a teacher's arithmetic as a store names it; float32's where it names another one."""
    return TOLERANCE.get(precision, TOLERANCE["float32"])
