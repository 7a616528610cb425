"""What a layout promises: a shard's chunks in, its files and the place of every chunk in them out.

A layout turns arrays into files that plain Zarr or Arrow readers open, and says where each chunk's encoded bytes stand.
Those places go into the commit record, so that our reader needs neither library: it reads the bytes of a chunk by the
record, checks their digest and decodes them (`decode`). The layouts are `zarr_layout` and `arrow_layout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.spec import Spec, Version
from softlabels.system.files import File, Sink

Places = tuple[tuple[int, int], ...]  # offset and size of each chunk, in order
Array = NDArray[np.generic]


class ShardFiles(Protocol):
    """The files of one shard, filled a chunk after the other."""

    def add(self, arrays: Mapping[str, Array]) -> Iterator[tuple[str, int, bytes | memoryview]]:
        """Write the next chunk, each column (rows of the chunk, ...); of each column where in its file it stands, and how."""

    def end(self) -> None:
        """Write what stands behind the chunks."""


class Layout(Protocol):
    """How columns become files."""

    def path(self, column: Column, shard: int) -> str:
        """The file, relative to the store, that holds this column's part of a shard."""

    def files(self, spec: Spec, shard: int, sinks: Mapping[str, Sink]) -> ShardFiles:
        """Begin the files of a shard; `sinks` has one for each `path`."""

    def decode(
        self, spec: Spec, column: Column, data: memoryview, rows: int, positions: NDArray[np.int32] | None
    ) -> Array:
        """A chunk's encoded bytes back to (rows, ...); `ValueError` unless they decode to exactly the declared size.
        `positions` (rows,): how many each row has, for a ragged column.
        """

    def locate(self, spec: Spec, shard: int, columns: Sequence[Column], file: File) -> dict[str, Places]:
        """Where a plain reader of the file of these columns would find the chunks of each; `ValueError` where it could not.
        What is read into memory is no larger than a chunk.
        """

    def metadata(self, spec: Spec, digest: str, version: Version) -> dict[str, bytes]:
        """The files that make a sealed store of this version of the format readable for others, by relative path."""

    def root_metadata(self, splits: tuple[str, ...], version: Version) -> dict[str, bytes]:
        """The same for a folder of stores, one a split."""


def chunk_rows(spec: Spec, shard: int, chunk: int) -> range:
    """The rows, counted from the shard's first, that its chunk number `chunk` holds."""
    size = spec.cut.rows_per_chunk
    return range(chunk * size, min((chunk + 1) * size, len(spec.shard_rows(shard))))
