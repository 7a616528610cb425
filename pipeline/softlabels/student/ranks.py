"""The processes that train together, as all code sees them: `Ranks`; one process alone is `ALONE`, which costs nothing.

Every process (rank, from 0) is given its part of the rows of each batch and holds the same weights: the gradients of the parts
are added up before each step. Rank 0 alone writes and speaks. `distributed` joins processes by torch.distributed; who starts
them, and what is done when one dies, stands there.

Values that pass between ranks are plain ones (numbers, text, lists, mappings by name) and tensors. What a rank is asked for is
asked of all of them, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor, nn

from softlabels.errors import SpecMismatch
from softlabels.store.differences import differences
from softlabels.stream.parts import Part


class Ranks(Protocol):
    """The processes of a run, seen from one of them.

    Attributes:
        rank: its number.
        world: how many there are.
        part: which rows of each batch it is given, for a `Loader`.
    """

    rank: int
    world: int
    part: Part

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks, the same ones in every bit on each: they are taken in the order of the ranks."""

    def gather(self, value: Any) -> list[Any]:
        """On rank 0 the values of all ranks in their order, on the others nothing."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Write rank 0's tensors into those of the others."""

    def wrap(self, step: nn.Module, *, shard: bool) -> nn.Module:
        """A module that does as `step`, whose backward pass adds up the gradients of all ranks; `shard`: each rank then holds a
        piece of its weights.
        """

    def apart(self, step: nn.Module) -> AbstractContextManager[None]:
        """A block in which gradients of a wrapped step are kept, to be added up with those of a later backward pass."""


class Alone:
    """One process."""

    rank, world, part = 0, 1, Part()

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """The numbers themselves."""
        return list(numbers)

    def gather(self, value: Any) -> list[Any]:
        """The value itself."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def share(self, tensors: Iterable[Tensor]) -> None:
        """There is nobody to share with."""

    def wrap(self, step: nn.Module, *, shard: bool) -> nn.Module:
        """The step itself."""
        return step

    def apart(self, step: nn.Module) -> AbstractContextManager[None]:
        """Gradients are always kept."""
        return nullcontext()


ALONE = Alone()


def require_same(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Raise SpecMismatch on every rank where one has other `facts` (JSON values) than rank 0, naming it and the fields."""
    every = ranks.gather(dict(facts))
    said = [
        f"rank {rank} of {ranks.world} would train something else than rank 0: "
        + "; ".join(leaf.said("on rank 0", f"on rank {rank}") for leaf in found[:5])
        for rank, theirs in enumerate(every)
        if (found := differences(every[0], theirs))
    ]
    if said := ranks.broadcast(said):
        raise SpecMismatch(
            said[0], remedy="give every process the same recipe, stores, transfer set and version of the code"
        )
