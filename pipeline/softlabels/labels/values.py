"""The values encoding: a real vector a position, as it is. There is no temperature, and one mean of members: the weighted one.

`values_encode` makes the column, `values_soft` decodes it in torch.

M members, D values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.labels.asked import Gap
from softlabels.labels.base import Encoded
from softlabels.labels.compare import values_gap
from softlabels.labels.decoder import Columns, Reduce
from softlabels.labels.ensemble import normalised_weights
from softlabels.labels.one_column import OneColumn
from softlabels.labels.stored import require
from softlabels.labels.targets import Target, require_target

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.tail_fit import TailBasis
    from softlabels.labels.values_soft import ValuesMembers


class ValuesEncoding(OneColumn, frozen=True, kw_only=True, tag="values"):
    """Every value: column `values` (M, D).

    Example:
        >>> from softlabels.labels.encoding import ValuesEncoding
        >>> boxes = store_spec(teacher="mine", name="boxes", keys=array_keys(inputs), classes=4, encoding=ValuesEncoding())
        >>> boxes.encoding.dtype
        'float32'
    """

    target: ClassVar[Target] = "values"
    reduces: ClassVar[tuple[Reduce, ...]] = ("none", "arithmetic")
    column: ClassVar[str] = "values"
    axis: ClassVar[str] = "value"
    read_hint: ClassVar[str] = "values are each member's raw outputs; their weighted mean is the teacher's"
    off: ClassVar[str] = "a value off by {:.3g} of its usual size"
    how: ClassVar[str] = "`values` are each member's outputs; their mean, with the members' weights, is the teacher's"

    def check_values(
        self, name: str, values: NDArray[Any], classes: int, beside: NDArray[Any] | None, first_row: int
    ) -> None:
        if name == "values":
            require(np.isfinite(values), "a value is NaN or infinite", first_row)

    def check_outputs(self, block: Block) -> None:
        from softlabels.labels.values_encode import finite_values

        finite_values(block)

    def check_storable(self, block: Block) -> None:
        from softlabels.labels.values_encode import stored_values

        stored_values(self.dtype, block)

    def encoder(self, classes: int, basis: TailBasis | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
        from softlabels.labels.values_encode import encode_values

        return partial(encode_values, self.dtype)

    def check_temperature(self, temperature: float) -> None:
        require_target(self.target, "temperature", "softmax", "sigmoid")

    def check_mean(self, mean: str, classes: int, members: int) -> None:
        require_target(self.target, "mean of members to choose", "softmax", "sigmoid")

    def values(self, columns: Columns, weights: ArrayLike) -> NDArray[np.float64]:
        stored = columns["values"].astype(np.float64)
        share = normalised_weights(weights, stored.shape[-2])
        return np.asarray((stored * share[:, None]).sum(axis=-2))

    def member_logits(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, temperature: float
    ) -> NDArray[np.float64]:
        require_target(self.target, "logits", "softmax", "sigmoid")
        raise NotImplementedError(self.kind)

    def members(self, columns: Mapping[str, Tensor], classes: int, basis: Tensor | None = None) -> ValuesMembers:
        from softlabels.labels.values_soft import ValuesMembers

        return ValuesMembers(columns["values"])

    def gaps(self, one: Columns, other: Columns, classes: int) -> list[Gap]:
        return [values_gap(one, other)]

    def words(self, classes: int, basis_file: str) -> str:
        return f"values, real numbers as {self.dtype}"
