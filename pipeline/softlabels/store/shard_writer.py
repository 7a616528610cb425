"""One shard on its way into a store: rows in, a chunk of them at a time in memory; committed once all are there."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version
from types import TracebackType
from typing import Self

import numpy as np
from blake3 import blake3

from softlabels import __version__
from softlabels.errors import UserError
from softlabels.labels.lost import Lost
from softlabels.store.arrays import Arrays, check_arrays
from softlabels.store.commit import commit, discard
from softlabels.store.digest import blake3_hex, block_hashes
from softlabels.store.layouts import layout_of
from softlabels.store.paths import staged
from softlabels.store.records import Chunk, FileRecord, Payload, by_name_of, record_of
from softlabels.store.spec import Spec
from softlabels.system.files import Folder, Sink
from softlabels.system.places import each_of


def environment_here() -> dict[str, str]:
    """What may change a store's bytes though the specification is the same."""
    return {
        "softlabels": __version__, "numpy": version("numpy"), "pyarrow": version("pyarrow"),
        "python": platform.python_version(), "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip


class ShardWriter:
    """Made by `StoreWriter.shard`. Nothing of it is visible before `commit`; leaving the block without one discards it.

    ::

        with writer.shard(3) as shard:
            for columns in parts:
                shard.add(columns, len(columns["content_key"]))
            shard.commit(lost)
    """

    def __init__(self, folder: Folder, spec: Spec, shard: int, environment: Mapping[str, str]) -> None:
        self._folder, self._spec, self._shard, self._environment = folder, spec, shard, environment
        self._write_id = uuid.uuid4().hex
        layout, self._open = layout_of(spec), list[ExitStack]()  # a file each
        self._path = {column.name: layout.path(column, shard) for column in spec.columns}
        self._sinks: dict[str, _Digested] = {}
        self._left: list[Arrays] = []  # less than a chunk, `_held` rows of it
        self._rows, self._held, self._blocks, self._keys = 0, 0, list[str](), blake3()
        self.committed = self.won = False
        self._chunks: dict[str, list[Chunk]] = {column.name: [] for column in spec.columns}
        try:
            for number, name in enumerate(sorted(set(self._path.values()))):
                self._open.append(ExitStack())
                sink = self._open[-1].enter_context(folder.filled(staged(self._write_id, number)))
                self._sinks[name] = _Digested(sink)
        except BaseException:
            self._drop()
            raise
        self._files = layout.files(spec, shard, self._sinks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sinks:
            self._drop()

    def _drop(self) -> None:
        """Close what is open, without a flush, and remove it."""
        try:
            for each in self._open:
                with suppress(_Dropped):
                    each.__exit__(_Dropped, _Dropped(), None)
        finally:
            discard(self._folder, self._write_id)

    def add(self, arrays: Mapping[str, np.ndarray], rows: int) -> None:
        """Add the shard's next rows: every column of the store, each (rows, ...).

        Raises:
            UserError, LabelError, ClassIdOverflow: columns that are not the specification's, or that the format forbids.
            DiskFull, StorageError: the place does not take them.
        """
        spec, given = self._spec, dict(arrays)
        whole, step = spec.shard_rows(self._shard), spec.cut.rows_per_chunk
        begun, total = self._rows + self._held, self._held + rows
        check_arrays(spec, self._shard, given, whole[begun : begun + rows])
        ready = total if begun + rows == len(whole) else total - total % step
        if ready and self._left:
            parts, self._left = [*self._left, given], []
            given = {name: np.concatenate([part[name] for part in parts]) for name in given}
        for start in range(0, ready, step):
            self._add({name: values[start : min(start + step, ready)] for name, values in given.items()})
        self._held = total - ready
        if self._held:  # joined once a chunk: a teacher may give a row at a time
            self._left.append({name: values[ready:].copy() for name, values in given.items()})

    def _add(self, chunk: Arrays) -> None:
        for name, offset, data in self._files.add(chunk):
            self._chunks[name].append(Chunk(offset, len(data), blake3_hex(data)))
        self._blocks += block_hashes(self._spec, chunk)
        self._keys.update(np.ascontiguousarray(chunk["content_key"]).reshape(-1).data)
        self._rows += len(chunk["content_key"])

    def commit(self, lost: Lost | Mapping[str, Lost]) -> bool:
        """Commit the shard, with what encoding its labels lost (by target where they have names); False where another writer
        was quicker.

        Raises:
            UserError: rows are missing, or what was lost is not what the targets' kinds lose.
            DiskFull, StorageError: nothing of the shard is visible.
        """
        rows = len(self._spec.shard_rows(self._shard))
        if self._rows != rows:
            raise UserError(f"shard {self._shard} has {self._rows} of {rows} rows", remedy="add all, then commit")
        by_name = by_name_of(self._spec, lost)
        self._files.end()
        each_of(self._folder, ExitStack.close, self._open)
        self._folder.settle([staged(self._write_id, 0)])
        payload = Payload(
            shard=self._shard,
            rows=rows,
            content_keys=self._keys.hexdigest(),
            files={name: FileRecord(size=sink.size, blake3=sink.hexdigest()) for name, sink in self._sinks.items()},
            chunks={name: tuple(chunks) for name, chunks in self._chunks.items()},
            blocks=tuple(self._blocks),
        )
        self._sinks = {}  # from here on `commit` says what becomes of the staged files
        record = record_of(self._spec, self._write_id, payload, by_name, self._environment)
        self.won = commit(self._folder, record)
        self.committed = True
        return self.won


class _Digested:
    """A sink that knows size and digest of what went into it."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._hasher, self.size = sink, blake3(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self._hasher.update(data)
        self.size += len(data)

    def hexdigest(self) -> str:
        digest: str = self._hasher.hexdigest()
        return digest


class _Dropped(Exception):
    """Ends the blocks of files that nobody will need."""
