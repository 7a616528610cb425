"""`Decoder`: how the columns of any kind of encoding become distributions again, at which temperatures they are known, and what
else is asked of stored labels. `base` has the other half of an encoding: its columns, and how logits become them.

R rows or positions (any number of leading axes), M members, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import ArrayLike, NDArray

from softlabels.errors import ConfigError
from softlabels.labels.asked import Gap, KeptProbabilities, Summary
from softlabels.labels.ensemble import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    check_known,
    check_mean,
    check_temperature,
    log_probs,
)
from softlabels.labels.targets import Target, require_target

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.members import Members

Reduce = Literal["none", "geometric", "arithmetic"]
Inputs = Literal["reference", "embed"]
Columns = Mapping[str, NDArray[Any]]  # arrays of one length, by the column's name
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Basis = NDArray[np.float16] | None


class Decoder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every kind of encoding answers about stored labels.

    Attributes:
        reduce: "none" keeps every member; "geometric" the members' mean logits, "arithmetic" their mean values.
        inputs: whether they are embedded.
        known_at: the one temperature at which the labels are known, as those of somebody who gave probabilities taken at it;
            in format 3. Where it is not set they are known at any, or as the kind says.

    Class attributes:
        target: what is kept.
        keeps_all: every class's logit is kept, so that the teacher's `outputs` are known.
        off: what is said of the `p` of a `Gap`.
    """

    reduce: Reduce = "none"
    inputs: Inputs = "reference"
    known_at: Annotated[float, Meta(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)] | UnsetType = UNSET

    target: ClassVar[Target] = "softmax"
    keeps_all: ClassVar[bool]
    off: ClassVar[str] = "a probability off by {:.3g}"

    @property
    def kind(self) -> str:
        """Its name in specifications."""
        return str(self.__struct_config__.tag)

    @property
    def is_reduced(self) -> bool:
        """Whether the one stored member is the members' mean."""
        return self.reduce != "none"

    @property
    def only_at(self) -> float | None:
        """`known_at`, None where the labels are known at any temperature."""
        return None if self.known_at is UNSET else self.known_at

    def tail_of(self, classes: int) -> str | None:
        """What is known of the classes that are not stored; None where all are."""
        return None

    @property
    def lowest_temperature(self) -> float:
        """Down to which the labels are known, 0 for any."""
        return 0.0

    def nearest(self, temperature: float) -> float:
        """The temperature next to this one at which they are known."""
        return max(temperature, self.lowest_temperature) if self.known_at is UNSET else self.known_at

    @property
    def near_1(self) -> float:
        """The temperature next to 1 at which they are known."""
        return self.nearest(1.0)

    def bounded(self) -> Self:
        """The same, which gives a bound where it is known at one temperature alone, and is as it was at that one.

        Raises:
            ConfigError: known at one temperature, and of such a kind that nothing is known of others.
        """
        if self.known_at is UNSET:
            return self
        raise ConfigError(
            f"{self.kind} labels that are known at temperature {self.known_at:g} only have no bound at other temperatures",
            remedy=f"leave out tail_bound, and use temperature {self.known_at:g}",
        )

    def check_temperature(self, temperature: float) -> None:
        """Raise `ConfigError` where `temperature` is impossible, one that the labels are not known at, or where they have
        none.
        """
        check_temperature(temperature)
        check_known(temperature, self.only_at)

    def check_mean(self, mean: str, classes: int, members: int) -> None:
        """Raise `ConfigError` for an unknown mean, or where the labels have none to choose; `MeanUnavailable` for one that
        labels cannot give of so many members that have a weight above 0.
        """
        check_mean(mean, self.reduce, tail=self.tail_of(classes), members=members)
        if mean == "tempered" and members > 1 and self.only_at not in (None, 1.0):
            raise ConfigError(
                f"the tempered mean is that of temperature 1, and the labels are known at {self.only_at:g} only",
                remedy="take the arithmetic or the geometric mean",
            )

    def log_probs(
        self, columns: Columns, classes: int, basis: Basis, *, temperature: float, mean: str, weights: ArrayLike
    ) -> Floats:
        """The log-probabilities (..., C) of an ensemble with `weights` (M,) in float64 numpy, of columns (..., M, ...).

        Raises:
            ConfigError: a temperature that the labels do not know.
            NoPossibleClass: a geometric mean of members that have no possible class in common.
        """
        require_target(self.target, "log-probabilities", "softmax")
        self.check_temperature(temperature)
        # of one member all means are its own distribution
        tempered = mean == "tempered" and np.count_nonzero(weights) > 1
        inner, outer = (1.0, temperature) if tempered else (temperature, 1.0)
        return log_probs(self.member_logits(columns, classes, basis, inner), outer, mean, weights)

    def largest_log_probs(
        self, columns: Columns, classes: int, basis: Basis, *, temperature: float, mean: str, weights: ArrayLike, k: int
    ) -> tuple[Ints, Floats]:
        """Ids and log-probabilities (n, k) of the `k` most probable classes of columns (n, M, ...), the most probable first."""
        log_p = self.log_probs(columns, classes, basis, temperature=temperature, mean=mean, weights=weights)
        ids = np.argpartition(-log_p, k - 1, axis=-1)[:, :k].astype(np.int64)
        found = np.take_along_axis(log_p, ids, axis=-1)
        order = np.lexsort((ids, -found), axis=-1)
        return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(found, order, axis=-1)

    def summary(
        self, columns: Columns, classes: int, basis: Basis, *, weights: Floats, temperatures: Sequence[float], ids: Ints,
        others: Sequence[NDArray[np.floating]] = (),
    ) -> Summary:  # fmt: skip
        """What is asked of a softmax's columns (N, M, ...) at temperatures (J,), without all its distributions: of members with
        `weights` that sum to 1, of classes `ids` (N, k), -1 for none, and against others' finite logits (N, C).
        """
        raise NotImplementedError(self.kind)

    def summary_numbers(self, classes: int, members: int) -> int:
        """How many numbers a `summary` computes of a position at a temperature."""
        return classes * members

    def kept_probabilities(
        self, columns: Columns, classes: int, weights: Floats, *, temperature: float, labels: Ints | None = None
    ) -> KeptProbabilities | None:
        """Mean probabilities of classes that columns (n, M, ...) keep, hard labels (n,) first; None where every class is."""
        return None

    def probabilities(
        self, columns: Columns, classes: int, basis: Basis, *, temperature: float, mean: str, weights: ArrayLike
    ) -> Floats:
        """The probabilities (..., C) of the same: of a softmax over the classes, of a sigmoid each class's own."""
        found = self.log_probs(columns, classes, basis, temperature=temperature, mean=mean, weights=weights)
        return np.asarray(np.exp(found))

    def values(self, columns: Columns, weights: ArrayLike) -> NDArray[np.float64]:
        """The members' weighted mean values (..., D) in float64 numpy, of columns (..., M, D)."""
        require_target(self.target, "values", "values")
        raise NotImplementedError(self.kind)

    @abstractmethod
    def member_logits(self, columns: Columns, classes: int, basis: Basis, temperature: float) -> Floats:
        """Numbers (..., M, C) float64 whose softmax, or sigmoid, is each member's at a temperature: the reference."""

    @abstractmethod
    def members(self, columns: Mapping[str, Tensor], classes: int, basis: Tensor | None = None) -> Members:
        """The same columns (N, M, ...) in torch, to be decoded on their device; `basis` (1 + r, C) on it."""

    # What is asked of stored labels.

    def largest(self, columns: Columns, classes: int, weights: Floats) -> Ints:
        """The class (n,) of the largest mean probability of a softmax's rows (n, M, ...), with `weights` that sum to 1."""
        raise NotImplementedError(self.kind)

    @abstractmethod
    def gaps(self, one: Columns, other: Columns, classes: int) -> list[Gap]:
        """How far n pairs of rows (n, [P,] M, ...) are apart; where a kind does not know a class, by what it knows of it."""

    def outputs(self, columns: Columns) -> NDArray[np.float32]:
        """The teacher's own logits (..., M, C), where the encoding `keeps_all`."""
        raise NotImplementedError(self.kind)

    def exact(self, outputs: NDArray[np.floating]) -> Columns:
        """Columns of outputs (..., M, C), of which nothing is rounded away, as `gaps` takes them; where it `keeps_all`."""
        raise NotImplementedError(self.kind)

    def reordered(self, columns: Columns, order: NDArray[np.int64], classes: int) -> Columns:
        """The same columns (..., M, ...) where class i is what was class `order[i]`; exact, but for tails with a basis."""
        raise NotImplementedError(self.kind)

    def kept(self, classes: int) -> int:
        """Of how many classes the logits are kept."""
        return classes
