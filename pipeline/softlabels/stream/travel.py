"""What travels between a process and its workers. To a spawned one go examples: of arrays that are mapped from a file, the
file's name and not its content; of labels that are none in every row, one value. Back come batches, each in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.store.gather import Array
from softlabels.stream.examples import Examples
from softlabels.stream.positions import Positions


@dataclass(frozen=True)
class _Mapped:
    """Where a file holds an array."""

    filename: str
    dtype: np.dtype[np.generic]
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Repeated:
    """An array of one value."""

    value: Array
    shape: tuple[int, ...]


def packed(examples: Examples) -> Examples:
    """As they travel."""
    return _changed(examples, _pack)


def unpacked(examples: Examples) -> Examples:
    """As they are used."""
    return _changed(examples, _unpack)


def _changed(examples: Examples, change: Callable[[Any], Any]) -> Examples:
    targets = {name: replace(each, labels=change(each.labels)) for name, each in examples.targets.items()}
    positions = examples.positions
    if isinstance(positions, Positions):
        positions = replace(positions, own=change(positions.own))
    return replace(examples, inputs=change(examples.inputs), targets=targets, positions=positions)


def _pack(array: Any) -> Any:
    if isinstance(array, np.memmap) and isinstance(array.base, mmap) and array.flags.c_contiguous:
        return _Mapped(str(array.filename), array.dtype, array.offset, array.shape)
    if isinstance(array, np.ndarray) and array.size and not any(array.strides):
        return _Repeated(array.reshape(-1)[:1].copy(), array.shape)
    return array


def _unpack(given: Any) -> Any:
    if isinstance(given, _Mapped):
        return np.memmap(given.filename, given.dtype, "r", given.offset, given.shape)
    return np.broadcast_to(given.value[0], given.shape) if isinstance(given, _Repeated) else given


Place = tuple[str, int, torch.dtype, torch.Size]  # of a column: its name, where it begins, and what it is


def joined(columns: Mapping[str, Tensor]) -> tuple[Tensor, list[Place]]:
    """Tensors one behind the other in one of bytes, each at a multiple of 64: another process pays for each tensor that it is
    given, about as much as for 300 KB.
    """
    places: list[Place] = []
    at = 0
    for name, values in columns.items():
        places.append((name, at, values.dtype, values.shape))
        at += -(-values.nbytes // 64) * 64
    flat = torch.empty(at, dtype=torch.uint8)
    for name, values in taken_apart(flat, places).items():
        values.copy_(columns[name])
    return flat, places


def taken_apart(flat: Tensor, places: Sequence[Place]) -> dict[str, Tensor]:
    """The tensors of `joined`, as views."""
    return {
        name: flat[at : at + shape.numel() * dtype.itemsize].view(dtype).view(shape)
        for name, at, dtype, shape in places
    }
