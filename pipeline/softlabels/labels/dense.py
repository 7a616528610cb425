"""The dense encoding: every class's logit, as z - max(z) in float16 beside max(z) in float32.

float16 is finest near 0, which is where this puts the classes that hold the mass: a logit 8 below the maximum is off by at
most 0.004, one within 1 by 0.0005. Stored logits, unlike stored probabilities, do not underflow, so softmax((z - max)/T)
is right at any T. `dense_encode` makes the columns, `dense_soft` decodes them in torch.

R rows or positions (any number of leading axes), M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.labels.asked import Gap, Summary
from softlabels.labels.base import ColumnShape, Encoded, EncodingBase
from softlabels.labels.compare import dense_gap
from softlabels.labels.decoder import Basis, Columns, Floats, Ints
from softlabels.labels.ensemble import largest_class
from softlabels.labels.one_column import column_code
from softlabels.labels.stored import require, require_below_peak

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.dense_soft import DenseMembers
    from softlabels.labels.tail_fit import TailBasis


class DenseEncoding(EncodingBase, frozen=True, kw_only=True, tag="dense"):
    """Every class's logit: columns `logits` float16 (M, C) and `shift` float32 (M,).

    Example:
        >>> from softlabels.labels.encoding import DenseEncoding
        >>> store.encoding == DenseEncoding(inputs="embed")
        True
    """

    first_format: ClassVar[int] = 1
    keeps_all: ClassVar[bool] = True
    read_hint: ClassVar[str] = (
        "softmax((logits)/T) over the last axis is a member's distribution; logits + shift are its raw outputs"
    )
    how: ClassVar[str] = "`softmax(logits / T)` over the last axis is a member's distribution at temperature T"

    def columns(self, classes: int, members: int, positions: int | None = None) -> tuple[ColumnShape, ...]:
        lead, axes = ((), ()) if positions is None else ((positions,), ("position",))
        return (
            ("logits", "float16", (*lead, members, classes), (*axes, "member", "class")),
            ("shift", "float32", (*lead, members), (*axes, "member")),
        )

    def check_values(
        self, name: str, values: NDArray[Any], classes: int, beside: NDArray[Any] | None, first_row: int
    ) -> None:
        if name == "logits":
            require_below_peak(values, first_row)
        elif name == "shift":
            require(np.isfinite(values), "is NaN or infinite", first_row)

    def decoding(self) -> dict[str, Any]:
        """Nothing, as in format 1, except for foreign probabilities."""
        return {} if self.known_at is UNSET else {"known_at": self.known_at}

    def encoder(self, classes: int, basis: TailBasis | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
        from softlabels.labels.dense_encode import encode_dense

        return partial(encode_dense, self.measured_at)

    def member_logits(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, temperature: float
    ) -> NDArray[np.float64]:
        return np.asarray(columns["logits"].astype(np.float64) / temperature)

    def members(self, columns: Mapping[str, Tensor], classes: int, basis: Tensor | None = None) -> DenseMembers:
        from softlabels.labels.dense_soft import DenseMembers

        return DenseMembers(columns["logits"], columns["shift"])

    def largest(self, columns: Columns, classes: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        logits = columns["logits"]
        if logits.shape[1] == 1:  # the largest is 0: found as an integer in a tenth of the time
            return np.asarray((logits[:, 0].view(np.uint16) << 1 == 0).argmax(axis=-1), np.int64)
        return largest_class(logits, weights, self.near_1)

    def summary(
        self, columns: Columns, classes: int, basis: Basis, *, weights: Floats, temperatures: Sequence[float], ids: Ints,
        others: Sequence[NDArray[np.floating]] = (),
    ) -> Summary:  # fmt: skip
        from softlabels.labels.dense_summary import dense_summary

        return dense_summary(columns["logits"], weights=weights, temperatures=temperatures, ids=ids, others=others)

    def gaps(self, one: Columns, other: Columns, classes: int) -> list[Gap]:
        return [dense_gap(one, other, self.near_1)]

    def outputs(self, columns: Columns) -> NDArray[np.float32]:
        return np.asarray(columns["logits"].astype(np.float32) + columns["shift"].astype(np.float32)[..., None])

    def exact(self, outputs: NDArray[np.floating]) -> Columns:
        peak = outputs.max(axis=-1, keepdims=True)
        return {"logits": outputs - peak, "shift": peak[..., 0]}

    def reordered(self, columns: Columns, order: NDArray[np.int64], classes: int) -> Columns:
        return {**columns, "logits": columns["logits"][..., order]}

    def words(self, classes: int, basis_file: str) -> str:
        return "dense, logits minus their maximum as float16 and the maximum as float32"

    def code(self, layout: str, path: str, classes: int, *, positions: bool) -> str:
        return column_code(layout, path, "logits", f"{'positions, ' * positions}members, classes", "float16")
