"""`EncodingBase`: what every kind of encoding owns, which is all that follows from what it keeps. Its columns, what their
values must be, how logits become them, and what the card says; `decoder` has how they become distributions again.

The kinds stand side by side: `dense` (every class's logit) and `topk` (the k largest and the tail) of softmax targets,
`sigmoid` and `values` of others. A new one is a class like these, its name in `encoding`, and the settings that ask for it in
`settings`. Nobody outside of this package asks which kind an encoding is, only for its `target`. Torch is imported inside the
methods that need it.

R rows or positions (any number of leading axes), M members, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import ArrayLike, NDArray

from softlabels.errors import ConfigError
from softlabels.labels.decoder import Decoder, Reduce
from softlabels.labels.fidelity import TEMPERATURES, Fidelity
from softlabels.labels.lost import Lost
from softlabels.labels.stored import BLOCK

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.tail_fit import TailBasis

ColumnShape = tuple[str, str, tuple[int, ...], tuple[str, ...]]  # name, dtype, shape of a row, names of its axes
Encoded = tuple[dict[str, NDArray[Any]], Lost]  # columns, and what they lost
BLOCK_BYTES = 1 << 28
Rule = tuple[object, str]  # whether it is broken, and how
Misfit = tuple[object, str, str]  # the same, and what to do


class EncodingBase(Decoder, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """How the outputs of a position are kept.

    Class attributes:
        reduces: what `reduce` may be.
        first_format: the first version of the store's format that has this kind.
        read_hint: in a line, how the columns are read, for those who find them without us.
        how: the same for the card, of its lines of code.
    """

    reduces: ClassVar[tuple[Reduce, ...]] = ("none", "geometric")
    first_format: ClassVar[int]
    read_hint: ClassVar[str]
    how: ClassVar[str]

    # What is stored.

    @abstractmethod
    def columns(self, classes: int, members: int, positions: int | None = None) -> tuple[ColumnShape, ...]:
        """The columns of M stored members in the store's order; `positions` P of a sequence row, None of other rows."""

    def check_column(
        self, name: str, values: NDArray[Any], classes: int, *, beside: NDArray[Any] | None = None, first_row: int = 0
    ) -> None:
        """Raise `ValueError`, naming row and rule, where a column (N, ...) holds what the format forbids; `NoSuchClass` of ids.

        Args:
            name, values: of one of the kind's columns.
            beside: the same rows of the column that `beside` names, where it names one.
            first_row: the number of the first row, for messages.
        """
        step = max(1, BLOCK * len(values) // max(1, values.size))
        for start in range(0, len(values), step):
            part, others = values[start : start + step], None if beside is None else beside[start : start + step]
            self.check_values(name, part, classes, others, first_row + start)

    @abstractmethod
    def check_values(
        self, name: str, values: NDArray[Any], classes: int, beside: NDArray[Any] | None, first_row: int
    ) -> None:
        """The same of some rows of one of the kind's columns."""

    def beside(self, name: str, classes: int) -> str | None:
        """The name of the column that the values of column `name` are read with; None of one that stands alone."""
        return None

    def blank(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A value of one position of a column that nobody looks at, but that is well-formed."""
        return np.zeros(shape, dtype)

    def check(self, members: int, classes: int | None = None) -> None:
        """Raise `ConfigError` unless the encoding's numbers fit each other and those of stored members and of classes; where
        classes are not known yet, these are not looked at.
        """
        for wrong, what, remedy in self.misfits(members, classes):
            if wrong:
                raise ConfigError(what, remedy=remedy)

    def misfits(self, members: int, classes: int | None) -> Iterator[Misfit]:
        """What `check` refuses."""
        what = f"{self.kind} labels cannot be reduced to the {self.reduce} mean (reduce)"
        yield self.reduce not in self.reduces, what, f"choose one of {', '.join(self.reduces)}"

    def rules(self, members: int, classes: int) -> Iterator[Rule]:
        """What a specification with this encoding must satisfy beyond the types of its fields."""
        yield from ((wrong, what) for wrong, what, _ in self.misfits(members, classes))
        least = 2 if self.target == "softmax" else 1
        yield classes < least, f"{self.kind} labels of {classes} classes; at least {least}"

    def decoding(self) -> dict[str, Any]:
        """What it takes to decode the columns beyond their names, dtypes and shapes: part of the content digest."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in fields.items() if name != "inputs"}

    @property
    def basis_rank(self) -> int | None:
        """r, of tails whose prior and r basis vectors are found before anything is encoded; None where they have none."""
        return None

    def basis_shape(self, classes: int) -> tuple[int, int] | None:
        """(1 + r, C) of the prior and the basis of the tails, None where there is none."""
        return None if self.basis_rank is None else (1 + self.basis_rank, classes)

    def with_basis(self, digest: str) -> Self:
        """The same with the digest of its basis, "" for none."""
        return self

    # Logits to columns, on the device.

    def encode(
        self, logits: Tensor, *, weights: ArrayLike | None = None, basis: Tensor | TailBasis | None = None,
        labels: Tensor | None = None, mask: Tensor | None = None, place: Callable[[int], str] = "row {}".format,
        block_bytes: int = BLOCK_BYTES,
    ) -> Encoded:  # fmt: skip
        """The columns (N, M, ...) of raw logits, and what they lost; blocks pass one after the other.

        Args:
            logits: (N, M, C) float16, bfloat16, float32 or float64 on any device, or (N, M, D) values; -inf marks a class of
                probability 0, of a sigmoid +inf one of probability 1.
            weights: (M,) of members that are still to be reduced to their mean; None where they are not.
            basis: (1 + r, C) float16 on the same device, where the tails have one; a `TailBasis` of it for more than one call.
            labels: (N,) int64 on the same device, -1 for none: the logit of this class may be kept beside others.
            mask: (N,) bool, which positions count; the others are encoded as if all logits were 0. None: all.
            place: what messages call a position, from its number.
            block_bytes: working memory, roughly.

        Raises:
            NanLogits, InfiniteLogits, NoPossibleClass: NaN; +inf or a maximum beyond float32; only -inf. LogitsOverflow: a
                finite logit more than 65,504 below the largest of its row, or a number of another target that its dtype does
                not hold. Each names place and member. LogitsError: others.
            LabelError: a label that is no class. ConfigError: see `check`.
        """
        from softlabels.labels.blocks import blocks
        from softlabels.labels.tail_fit import TailBasis

        shared = basis if basis is None or isinstance(basis, TailBasis) else TailBasis(basis)
        cut = blocks(logits, weights, mask, place, block_bytes, self.check_outputs)
        members, classes = 1 if weights is not None else logits.shape[1], logits.shape[2]
        self.check(members, classes)
        parts = [*map(self.encoder(classes, shared, labels), cut)]
        nothing = {name: np.zeros((0, *shape), dtype) for name, dtype, shape, _ in self.columns(classes, members)}
        found = {name: np.concatenate([none, *(part[0][name] for part in parts)]) for name, none in nothing.items()}
        return found, Lost.total(part[1] for part in parts)

    def encode_arrays(
        self, logits: NDArray[np.floating], *, weights: ArrayLike | None, mask: NDArray[np.uint8] | None,
        place: Callable[[int], str],
    ) -> Encoded:  # fmt: skip
        """The same of logits (R, [P,] M, C) in numpy, of which `mask` (R, P) says which positions count; see `encode`."""
        import torch

        from softlabels.labels.blocks import tensor_of

        counts = None if mask is None else torch.from_numpy(mask.reshape(-1) != 0)
        return self.encode(tensor_of(logits).flatten(0, -3), weights=weights, mask=counts, place=place)

    def check_outputs(self, block: Block) -> None:
        """Raise `LogitsError`, naming place and member, where a block's outputs, not reduced yet, are none of the kind."""
        from softlabels.labels.blocks import softmax_logits

        softmax_logits(block)

    def check_storable(self, block: Block) -> None:
        """The same where no column can hold them, reduced if they are to be."""
        _ = block.below

    @abstractmethod
    def encoder(self, classes: int, basis: TailBasis | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
        """What encodes a block of positions of `encode`, one block after the other."""

    # Words.

    @abstractmethod
    def words(self, classes: int, basis_file: str) -> str:
        """What is kept, in a line of the card; `basis_file`: where the basis lies."""

    @abstractmethod
    def code(self, layout: str, path: str, classes: int, *, positions: bool) -> str:
        """Lines of Python that read the store at `path` (in quotes) with zarr or `datasets` alone."""

    @property
    def measured_at(self) -> tuple[float, ...]:
        """The temperatures at which the fidelity is measured, of those that the kind serves."""
        return TEMPERATURES if self.known_at is UNSET else (self.known_at,)

    def measured_share(self, classes: int) -> int:
        """Of so many positions the fidelity of one is measured."""
        return 1

    def warning(self, fidelity: Mapping[str, Fidelity]) -> str | None:
        """What is to be said of a table of fidelity, in a line; None where it is as expected."""
        return None
