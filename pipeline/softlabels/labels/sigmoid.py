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

from softlabels.labels.base import Columns, ColumnShape, Encoded, EncodingBase, Gap, Reduce
from softlabels.labels.bernoulli import mean_logits, sigmoid
from softlabels.labels.compare import sigmoid_gap
from softlabels.labels.stored import require
from softlabels.labels.targets import Target

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.sigmoid_soft import SigmoidMembers


class SigmoidEncoding(EncodingBase, frozen=True, kw_only=True, tag="sigmoid"):
    """Every class's logit: column `logits` (M, C). `dtype`: of what is stored."""

    dtype: Literal["float16", "float32"] = "float16"

    target: ClassVar[Target] = "sigmoid"
    reduces: ClassVar[tuple[Reduce, ...]] = ("none", "geometric")
    first_format: ClassVar[int] = 3
    keeps_all: ClassVar[bool] = True
    read_hint: ClassVar[str] = "sigmoid(logits / T) is a member's probability of each class, one by one; logits are raw"
    how: ClassVar[str] = "`sigmoid(logits / T)` is a member's probability of each class at temperature T, one by one"

    def columns(self, classes: int, members: int, positions: int | None = None) -> tuple[ColumnShape, ...]:
        lead, axes = ((), ()) if positions is None else ((positions,), ("position",))
        return (("logits", self.dtype, (*lead, members, classes), (*axes, "member", "class")),)

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

    def encoder(self, classes: int, basis: Tensor | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
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
        return [sigmoid_gap(one, other)]

    def outputs(self, columns: Columns) -> NDArray[np.float32]:
        return np.asarray(columns["logits"], np.float32)

    def exact(self, outputs: NDArray[np.floating]) -> Columns:
        return {"logits": outputs}

    def words(self, classes: int, basis_file: str) -> str:
        return f"sigmoid, each class's logit as {self.dtype}"

    def code(self, layout: str, path: str, classes: int, *, positions: bool) -> str:
        return column_code(layout, path, "logits", f"{'positions, ' * positions}members, classes", self.dtype)


def column_code(layout: str, path: str, name: str, axes: str, dtype: str) -> str:
    """Lines of Python that read a column of rows with these `axes`."""
    if layout == "zarr":
        return f'import zarr\n\n{name} = zarr.open_group({path}, mode="r")["{name}"][:]  # (rows, {axes})'
    read = f'{name} = datasets.load_from_disk({path}).with_format("arrow")["{name}"]'
    note = "float16; the numpy and torch formats give float32" if dtype == "float16" else dtype
    return f"import datasets\n\n{read}  # {note}"
