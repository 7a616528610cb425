"""What the specification says of a top-k encoding, the rules and columns that follow, and what these may hold. What they mean
is in `tail_mass` and `topk_reference`; `topk` is the encoding with all that it does.

M stored members, C classes, K stored classes, n tail nodes, r basis vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from msgspec import UNSET, Meta
from numpy.typing import NDArray

from softlabels.labels.base import ColumnShape, EncodingBase, Misfit, Rule
from softlabels.labels.class_ids import NoSuchClass, id_dtype, page_dtype, pages, widen
from softlabels.labels.fidelity import TEMPERATURES
from softlabels.labels.stored import Values, require, require_below_peak

Tail = Literal["lowrank", "prior", "uniform", "bucket", "renormalised"]
FINE = 127  # steps of a scale with 8 bits
COARSE = 7  # with 4 bits in two's complement, two a byte
MAX_CLASSES = 1 << 23
MAX_BASIS_BYTES = 1 << 31
_PAGES = "page counts do not fit"
_SCALE = "a scale of coefficients is not a finite number of at least 0"


class TopkFields(EncodingBase, frozen=True, kw_only=True):
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

    @property
    def lowest_temperature(self) -> float:
        return 1 / self.beta_max

    @property
    def measured_at(self) -> tuple[float, ...]:
        """Those of `TEMPERATURES` at which the tail is known, and the lowest, where that is lower still."""
        if self.known_at is not UNSET:
            return (self.known_at,)
        everywhere, lowest = self.tail == "renormalised", 1 / self.beta_max
        served = tuple(t for t in TEMPERATURES if everywhere or t * self.beta_max >= 1 - 1e-12)
        return (lowest, *served) if lowest < TEMPERATURES[0] else served

    def measured_share(self, classes: int) -> int:
        """So that the table costs little beside the encoding."""
        return max(1, min(classes // 1024, 32))

    @property
    def basis_rank(self) -> int | None:
        return self.rank if self.tail in ("lowrank", "prior") else None

    def has_shapes(self, classes: int) -> bool:
        """Whether the classes of a tail differ."""
        return self.basis_rank is not None and self.k < classes

    def tail_of(self, classes: int) -> Tail | None:
        return self.tail if self.k < classes else None

    def misfits(self, members: int, classes: int | None) -> Iterator[Misfit]:
        yield from super().misfits(members, classes)
        tail, fix = self.tail, "change the encoding"
        dense = "; so few classes are as well kept dense" if self.known_at is UNSET else ""
        fewer = f"give at most {classes}{dense}"
        yield self.k > (classes or self.k), f"k is {self.k}, and there are {classes} classes", fewer
        nodes = f"a tail {tail!r} cannot have {self.nodes} nodes: 0 for renormalised, else 2 or more"
        yield (self.nodes == 0) != (tail == "renormalised") or self.nodes == 1, nodes, fix
        rank = f"a tail {tail!r} cannot have rank {self.rank}: 1 or more for lowrank, else 0"
        yield (self.rank == 0) == (tail == "lowrank"), rank, fix
        yield self.fine > self.rank, f"of {self.rank} coefficients, {self.fine} cannot have 8 bits", fix
        if self.known_at is not UNSET and tail != "renormalised":
            where = (
                f"the labels are known at temperature {self.known_at:g}, and their tail from {1 / self.beta_max:g} up"
            )
            yield self.known_at * self.beta_max < 1 - 1e-12, where, fix
        one = f"a bucket is one outcome of one model, and there are {members} members"
        yield tail == "bucket" and members != 1, one, "choose another tail, or reduce the members to one"

    def rules(self, members: int, classes: int) -> Iterator[Rule]:
        yield from super().rules(members, classes)
        yield classes > MAX_CLASSES, f"{classes} classes are more than the {MAX_CLASSES} of topk labels"
        yield (
            bool(self.basis) != (self.basis_rank is not None),
            f"tail={self.tail} {'with' if self.basis else 'without'} a basis: lowrank and prior have one, no other",
        )
        size = math.prod(self.basis_shape(classes) or (0,)) * 2
        yield size > MAX_BASIS_BYTES, f"a basis of {size} bytes exceeds {MAX_BASIS_BYTES}"

    def columns(self, classes: int, members: int, positions: int | None = None) -> tuple[ColumnShape, ...]:
        lead = ((), ()) if positions is None else ((positions,), ("position",))
        shape, axes = (*lead[0], members), (*lead[1], "member")
        kept = (
            ("top_class", id_dtype(classes), self.k, "stored"),
            ("top_page", page_dtype(self.k), pages(classes), "page"),
            ("top_logit", "float16", self.k, "stored"),
            ("tail_odds", "float16", 2 * (self.tail != "renormalised"), "end"),
            ("tail_curve", "int16", max(0, self.nodes - 1), "node"),
            ("tail_fine", "int8", self.fine, "component"),
            ("tail_coarse", "uint8", -(-self.coarse // 2), "pair"),
            ("tail_scale", "float16", (self.fine > 0) + (self.coarse > 0), "precision"),
        )
        found = [(name, dtype, (*shape, size), (*axes, axis)) for name, dtype, size, axis in kept if size]
        return (*found, ("label_logit", "float16", shape, axes))


def check_basis(basis: NDArray[np.float16], shape: tuple[int, int]) -> None:
    """Raise `ValueError` unless `basis` can be a prior and a basis: (1 + r, C) float16, all finite."""
    if basis.dtype != np.float16 or basis.shape != shape:
        raise ValueError(f"the basis is {basis.dtype} {basis.shape}, not {shape}")
    if not np.isfinite(basis).all():
        raise ValueError("the basis is NaN or infinite")


def check_ids(values: Values, page: Values | None, classes: int, first_row: int) -> None:
    """`top_class`, beside `top_page` where the classes have pages."""
    ids = values if page is None else widen({"top_class": values, "top_page": page}, classes)
    require(ids < classes, f"a class id is not below the number of classes, {classes}", first_row, NoSuchClass)
    require(ids[..., 1:] > ids[..., :-1], "class ids do not ascend", first_row)


def check_others(name: str, values: Values, encoding: TopkFields, first_row: int) -> None:
    """The other columns, each by itself."""
    if name == "top_logit":
        require_below_peak(values, first_row)
    elif name == "top_page":
        require((values <= encoding.k) & (np.diff(values.astype(np.int64), axis=-1, prepend=0) >= 0), _PAGES, first_row)
    elif name == "tail_odds":
        finite, nothing = np.isfinite(values).all(axis=-1), np.isneginf(values).all(axis=-1)
        require(np.asarray(finite | nothing), "the tail's mass is NaN or infinite", first_row)
    elif name == "tail_fine":
        require(values != -FINE - 1, f"a coefficient of 8 bits is {-FINE - 1}", first_row)
    elif name == "tail_coarse":
        low, high = values.astype(np.uint8) & 15, values.astype(np.uint8) >> 4
        require((low != COARSE + 1) & (high != COARSE + 1), f"a coefficient of 4 bits is {-COARSE - 1}", first_row)
        unused = high[..., -1:] if encoding.coarse % 2 else high[..., :0]
        require(unused == 0, "4 bits that no coefficient uses are not those of 0", first_row)
    elif name == "tail_scale":
        require(np.isfinite(values) & (values >= 0), _SCALE, first_row)
    elif name == "label_logit":
        require(~(values > 0), "a label's logit is above 0", first_row)  # NaN where there is no label
