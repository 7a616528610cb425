"""What torch's `DataLoader` makes of examples and batches of ours, without a `collate_fn`.

A batch is read as arrays of many rows. To hand it over as a list of rows, for the default collate function to stack again,
costs ten times what reading it does. So `Rows` is such a list to whoever looks into it, and knows the batch that it is made of;
the default collate function asks the type of a list's first item what to do (`default_collate_fn_map`), and that gives the
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self, cast, overload

import torch
from torch import Tensor
from torch.serialization import add_safe_globals
from torch.utils._pytree import register_pytree_node
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from softlabels.errors import ConfigError, SeveralTargets, some
from softlabels.labels.soft import SoftLabels
from softlabels.store.gather import Block
from softlabels.stream.examples import Examples
from softlabels.stream.travel import Place, joined, taken_apart


class Row(dict[str, Tensor]):
    """One example, by the names of its columns."""


class Rows(Sequence[Row]):
    """Examples one by one, of a batch of them."""

    def __init__(self, whole: dict[str, Tensor]) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole["row"])

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Row({name: values[index] for name, values in self.whole.items()})


class Columns(dict[str, Tensor]):
    """A batch, by the names of its columns. It travels to another process in one piece, and is not put into batches again."""

    def __copy__(self) -> Self:
        return type(self)(self)

    def __reduce__(self) -> tuple[Any, ...]:
        plain = {name: values for name, values in self.items() if _is_plain(values)}
        return _columns, (*joined(plain), {name: v for name, v in self.items() if name not in plain})


def _is_plain(values: object) -> bool:
    """Whether it is nothing but an array of numbers in this process's memory."""
    return (
        type(values) is Tensor
        and values.layout is torch.strided
        and values.device.type == "cpu"
        and not (values.requires_grad or values.is_quantized or values.is_nested)
    )


def _columns(flat: Tensor, places: Sequence[Place], rest: Mapping[str, Any]) -> Columns:
    return Columns({**taken_apart(flat, places), **rest})


def _collate_rows(batch: Sequence[Row], *, collate_fn_map: object = None) -> Columns:
    return Columns(batch.whole if isinstance(batch, Rows) else default_collate([dict(row) for row in batch]))


def _refuse_batches(batch: Sequence[Columns], *, collate_fn_map: object = None) -> NoReturn:
    raise ConfigError(
        "SoftLabelBatches gives whole batches, and this DataLoader would put them into batches again",
        remedy="give DataLoader(batch_size=None)",
    )


_COLLATE: dict[type, Callable[..., Any]] = {Row: _collate_rows, Columns: _refuse_batches}
cast(dict[type, Callable[..., Any]], default_collate_fn_map).update(_COLLATE)
add_safe_globals([_columns])  # `torch.load` reads what `torch.save` wrote of a batch


def _register(kind: type[dict[str, Any]]) -> None:
    """Let `tree_map` look into it as into a dict, of which torch takes no subclass for one."""
    register_pytree_node(
        kind,
        lambda columns: (list(columns.values()), list(columns)),
        lambda values, names: kind(zip(names, values, strict=True)),
    )


_register(Row)
_register(Columns)


def tensors_of(examples: Examples, block: Block) -> dict[str, Tensor]:
    """What was read of some rows, as tensors of the same bits; unsigned integers as signed ones, which torch can stack."""
    for target in examples.targets.values():
        block = block if target.soft is None else target.soft.stackable(block)
    return {name: torch.from_numpy(values) for name, values in block.items()}


def soft_labels_of(examples: Examples, batch: Mapping[str, Tensor], target: str) -> SoftLabels:
    """The soft labels of such tensors.

    Raises:
        SeveralTargets: no target has this name. ConfigError: there are no soft labels.
    """
    if target not in examples.targets:
        raise SeveralTargets(
            f"this dataset has no target {target!r}", remedy=f"name one of {some(map(repr, examples.targets))}"
        )
    soft = examples.targets[target].soft
    if soft is None:
        raise ConfigError("this dataset has no store, so it holds no soft labels", remedy="give it a store")
    return soft.soft_labels(batch)
