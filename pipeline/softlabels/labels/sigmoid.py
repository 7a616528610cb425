"""The sigmoid encoding: a Bernoulli a class, kept as its logit z, so that sigma(z / T) is the class's probability at any T and
neither end underflows. -inf and +inf are probabilities of 0 and 1.

float16 keeps z to one part in 2,048; where that is too coarse there is float32. `sigmoid_encode` makes the column,
`sigmoid_soft` decodes it in torch, and what is decoded in numpy is in `bernoulli`.

M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softlabels.labels.asked import Gap
from softlabels.labels.base import Encoded
from softlabels.labels.bernoulli import mean_logits, sigmoid
from softlabels.labels.compare import sigmoid_gap
from softlabels.labels.decoder import Columns, Reduce
from softlabels.labels.one_column import OneColumn
from softlabels.labels.stored import require
from softlabels.labels.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.sigmoid_soft import SigmoidMembers
    from softlabels.labels.tail_fit import TailBasis


class SigmoidEncoding(OneColumn, frozen=True, kw_only=True, tag="sigmoid"):
    """Every class's logit: column `logits` (M, C). `dtype`: that of the stored column.

    Example:
        >>> from softlabels.labels.encoding import SigmoidEncoding
        >>> flags = store_spec(teacher="mine", name="tags", keys=array_keys(inputs), classes=3, encoding=SigmoidEncoding())
        >>> flags.encoding.target
        'sigmoid'
    """

    dtype: Literal["float16", "float32"] = "float16"

    target: ClassVar[Target] = "sigmoid"
    reduces: ClassVar[tuple[Reduce, ...]] = ("none", "geometric")
    column: ClassVar[str] = "logits"
    axis: ClassVar[str] = "class"
    read_hint: ClassVar[str] = "sigmoid(logits / T) is a member's probability of each class, one by one; logits are raw"
    how: ClassVar[str] = "`sigmoid(logits / T)` is a member's probability of each class at temperature T, one by one"

    def check_values(
        self, name: str, values: NDArray[Any], classes: int, beside: NDArray[Any] | None, first_row: int
    ) -> None:
        if name == "logits":
            require(~np.isnan(values), "a logit is NaN", first_row)

    def check_outputs(self, block: Block) -> None:
        from softlabels.labels.sigmoid_encode import sigmoid_logits

        sigmoid_logits(block)

    def check_storable(self, block: Block) -> None:
        from softlabels.labels.sigmoid_encode import stored_logits

        stored_logits(self.dtype, block)

    def encoder(self, classes: int, basis: TailBasis | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
        from softlabels.labels.sigmoid_encode import encode_sigmoid

        return partial(encode_sigmoid, self.dtype, self.measured_at)

    def probabilities(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, *, temperature: float, mean: str,
        weights: ArrayLike,
    ) -> NDArray[np.float64]:  # fmt: skip
        self.check_temperature(temperature)
        return sigmoid(mean_logits(columns["logits"], temperature, mean, weights))

    def member_logits(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, temperature: float
    ) -> NDArray[np.float64]:
        return np.asarray(columns["logits"].astype(np.float64) / temperature)

    def members(self, columns: Mapping[str, Tensor], classes: int, basis: Tensor | None = None) -> SigmoidMembers:
        from softlabels.labels.sigmoid_soft import SigmoidMembers

        return SigmoidMembers(columns["logits"])

    def gaps(self, one: Columns, other: Columns, classes: int) -> list[Gap]:
        return [sigmoid_gap(one, other, self.near_1)]

    def words(self, classes: int, basis_file: str) -> str:
        return f"sigmoid, each class's logit as {self.dtype}"
