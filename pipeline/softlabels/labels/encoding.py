"""How a distribution is kept, as the store's specification says it: every class's logit (`DenseEncoding`), or the k largest
and the tail's mass and shape (`TopkEncoding`). What the numbers mean is `dense`'s and `topk`'s business.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Tail = Literal["lowrank", "prior", "uniform", "bucket", "renormalised"]
Reduce = Literal["none", "geometric"]
Inputs = Literal["reference", "embed"]


class _Encoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """`reduce`: "none" keeps every member, "geometric" the members' mean logits. `inputs`: whether they are embedded."""

    reduce: Reduce = "none"
    inputs: Inputs = "reference"


class DenseEncoding(_Encoding, frozen=True, kw_only=True, tag="dense"):
    """Every class's logit."""


class TopkEncoding(_Encoding, frozen=True, kw_only=True, tag="topk"):
    """The `k` largest logits of a distribution, its tail's mass at any inverse temperature up to `beta_max`, and the shape
    of its tail.

    Attributes:
        k: stored classes, at most C.
        tail: "lowrank" (a prior and `rank` basis vectors a store, as many coefficients a position), "prior" (one vector
            a store), "uniform", "bucket" (one outcome, whatever is in it); or "renormalised": no tail at all, the stored
            classes' probabilities are scaled to sum to 1.
        nodes: stored values of the tail's log mass, 0 where `tail` is "renormalised".
        beta_max: the largest beta = 1 / T at which the tail is known: labels are refused at T below 1 / beta_max.
        rank: r, basis vectors; 0 but for "lowrank".
        fine: coefficients of 8 bits, the leading ones, at most r; the others have 4.
        basis: blake3 of the prior and the basis (1 + r, C) float16; "" where the tail has none.
    """

    k: Annotated[int, Meta(ge=1, le=1 << 16)]
    tail: Tail = "lowrank"
    nodes: Annotated[int, Meta(ge=0, le=32)] = 12
    beta_max: Annotated[float, Meta(gt=0, le=1024)] = 1.0
    rank: Annotated[int, Meta(ge=0, le=4096)] = 0
    fine: Annotated[int, Meta(ge=0, le=4096)] = 0
    basis: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""

    @property
    def coarse(self) -> int:
        """Coefficients of 4 bits."""
        return self.rank - self.fine


Encoding = DenseEncoding | TopkEncoding


def tail_of(encoding: Encoding, classes: int) -> Tail | None:
    """What is known of the classes that are not stored; None where all `classes` are."""
    return encoding.tail if isinstance(encoding, TopkEncoding) and encoding.k < classes else None
