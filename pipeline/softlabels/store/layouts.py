"""What the two layouts have in common: one shard in, its files and the place of every chunk in them out.

A layout turns arrays into files that plain Zarr or Arrow readers open, and says where each chunk's encoded bytes stand.
Those places go into the commit record, so that our reader needs neither library: it reads the bytes of a chunk by the
record, checks their digest and decodes them (`decode`). The layouts are `zarr_layout` and `arrow_layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.spec import Spec, Version

Places = tuple[tuple[int, int], ...]  # offset and size of each chunk, in order


@dataclass(frozen=True)
class EncodedShard:
    """A shard's files by their path in the store, and each column's chunks in them."""

    files: dict[str, bytes]
    places: dict[str, Places]


class Layout(Protocol):
    """How columns become files."""

    def path(self, column: Column, shard: int) -> str:
        """The file, relative to the store, that holds this column's part of a shard."""

    def encode(self, spec: Spec, shard: int, arrays: dict[str, NDArray[np.generic]]) -> EncodedShard:
        """All columns of a shard, each (rows of the shard, ...), as files."""

    def decode(
        self,
        spec: Spec,
        column: Column,
        data: bytes | memoryview,
        rows: int,
        positions: NDArray[np.int32] | None = None,
    ) -> NDArray[np.generic]:
        """A chunk's encoded bytes back to (rows, ...); `ValueError` unless they decode to exactly the declared size.
        `positions` (rows,): how many each row has, for a ragged column.
        """

    def locate(self, spec: Spec, shard: int, column: Column, data: memoryview) -> Places:
        """Where a plain reader of this file would find the column's chunks; `ValueError` where it could not."""

    def metadata(self, spec: Spec, digest: str, version: Version) -> dict[str, bytes]:
        """The files that make a sealed store of this version of the format readable for others, by relative path."""

    def root_metadata(self, splits: tuple[str, ...], version: Version) -> dict[str, bytes]:
        """The same for a folder of stores, one a split."""


def chunk_rows(spec: Spec, shard: int, chunk: int) -> range:
    """The rows, counted from the shard's first, that its chunk number `chunk` holds."""
    size = spec.cut.rows_per_chunk
    return range(chunk * size, min((chunk + 1) * size, len(spec.shard_rows(shard))))


def layout_of(spec: Spec) -> Layout:
    """The layout that a specification names."""
    if spec.layout == "zarr":
        from softlabels.store.zarr_layout import ZarrLayout

        return ZarrLayout()
    from softlabels.store.arrow_layout import ArrowLayout

    return ArrowLayout()
