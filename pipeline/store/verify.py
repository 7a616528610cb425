"""`verify`: re-read everything that a sealed store holds and say, for each thing that is wrong, which shard, which file and
what to do. Every byte is covered: shard files and chunks by the commit records, those by the manifest, the manifest by its
seal and by the digests computed again, and the files for other readers by what they should say. Only the card is free: people
may add to it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DamagedBasis, DamagedManifest, DamagedShard, DamagedStore, SoftLabelsError
from pipeline.store.arrays import check_values
from pipeline.store.basis import BASIS_FILE, read_basis
from pipeline.store.chunks import RELABEL, ChunkReader, open_plain
from pipeline.store.columns import Column
from pipeline.store.commit import STAGING, record_path
from pipeline.store.digest import blake3_hex, block_hashes, content_columns, keys_digest
from pipeline.store.layouts import layout_of
from pipeline.store.reader import MANIFEST, Store, open_store
from pipeline.store.seal import make_manifest
from pipeline.store.spec import Commit, Payload, Plan, pretty_json, read_json, read_small_file

RESTORE = "get this file again from whoever made the store"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `shard` is None where it concerns the whole store."""

    file: str
    what: str
    remedy: str
    shard: int | None = None

    def __str__(self) -> str:
        where = "store" if self.shard is None else f"shard {self.shard}"
        return f"{where}: {self.file}: {self.what}; {self.remedy}"


def verify(path: str | Path, *, progress: Callable[[int], object] = lambda shards: None) -> list[Problem]:
    """Check one sealed store; an empty list means that every byte is as it was sealed.

    Args:
        path: the store of one split.
        progress: called with 1 after each shard.

    Raises:
        StorePathError, UnsealedStore: there is nothing to verify.
        DamagedManifest: what says what the store should hold is itself damaged.
    """
    store = open_store(path, check="never")
    problems = [*_strangers(store), *_basis(store)]
    records: list[Commit | None] = []
    for shard in range(store.spec.shards):
        try:
            records.append(store.record(shard))
        except DamagedManifest as error:
            records.append(None)
            problems.append(Problem(str(record_path(Path(), shard)), error.what, RESTORE, shard))
        else:
            problems += _shard(store, shard)
        progress(1)
    whole = [record for record in records if record is not None]
    if len(whole) == len(records):
        problems += _totals(store, whole)
    return problems


def _basis(store: Store) -> Iterator[Problem]:
    try:
        read_basis(store.path, store.spec)
    except DamagedBasis as error:
        yield Problem(BASIS_FILE, error.what, RESTORE)


def require_files(store: Store) -> None:
    """Raise `DamagedStore` unless every commit record and every shard file is there with its recorded size: what can be
    seen without reading the labels again. The basis is read.
    """
    read_basis(store.path, store.spec)
    layout = layout_of(store.spec)
    for shard in range(store.spec.shards):
        payload = store.payload(shard)
        for name in sorted({layout.path(column, shard) for column in store.spec.columns}):
            handle = open_plain(store.path, name, shard)
            size = os.fstat(handle).st_size
            os.close(handle)
            if size != payload.files[name].size:
                raise DamagedShard(
                    f"shard {shard} is damaged: {store.path / name} has {size} bytes, not the recorded "
                    f"{payload.files[name].size}",
                    remedy=RELABEL,
                )


def _strangers(store: Store) -> Iterator[Problem]:
    """Files that a sealed store of this plan does not have, and those for other readers that are not as they should be."""
    layout = layout_of(store.spec)
    metadata = layout.metadata(store.spec, store.digest, store.manifest.format)
    shards = range(store.spec.shards)
    known = {layout.path(column, shard) for column in store.spec.columns for shard in shards}
    known |= {str(record_path(Path(), shard)) for shard in shards} | {*metadata, MANIFEST, "plan.json", "README.md"}
    known |= set() if store.spec.basis_shape is None else {BASIS_FILE}
    for found in _files(store.path):
        if found not in known and not found.startswith(f"{STAGING}/"):
            yield Problem(found, "does not belong to the store", "delete it, or find out who put it there")
    written = {
        "plan.json": pretty_json(read_json(store.path / "plan.json", Plan)),
        MANIFEST: pretty_json(store.manifest),
    }
    for name, data in (written | metadata).items():
        try:
            same = read_small_file(store.path / name) == data
        except (OSError, SoftLabelsError):
            same = False
        if not same:
            yield Problem(name, "is not byte for byte what was sealed", RESTORE)


def _files(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield str((Path(folder) / name).relative_to(root))


def _shard(store: Store, shard: int) -> Iterator[Problem]:
    """One shard: each file's size and digest, the place of its chunks, each chunk's digest, and what the chunks hold."""
    payload, layout = store.payload(shard), layout_of(store.spec)
    broken = set()
    for name in sorted(payload.files):
        columns = [column for column in store.spec.columns if layout.path(column, shard) == name]
        for what in _file(store, payload, name, columns):
            broken.add(name)
            yield Problem(name, what, RELABEL, shard)
    if not broken:
        yield from _content(store, payload)


def _file(store: Store, payload: Payload, name: str, columns: list[Column]) -> Iterator[str]:
    """What is wrong with one file of a shard."""
    try:
        handle = open_plain(store.path, name, payload.shard)
    except SoftLabelsError as error:
        yield error.what
        return
    try:
        size, recorded = os.fstat(handle).st_size, payload.files[name]
        if size != recorded.size:
            yield f"has {size} bytes, not the recorded {recorded.size}"
            return
        with mmap.mmap(handle, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
            yield from _bytes(store, payload, data, recorded.blake3, columns)
    finally:
        os.close(handle)


def _bytes(store: Store, payload: Payload, data: memoryview, digest: str, columns: list[Column]) -> list[str]:
    """What is wrong with a file's bytes: which chunks, or the file around them, or its own index."""
    wrong = [
        f"chunk {number} of column {column.name} differs from its digest"
        for column in columns
        for number, chunk in enumerate(payload.chunks[column.name])
        if blake3_hex(data[chunk.offset : chunk.offset + chunk.size]) != chunk.blake3
    ]
    if wrong:
        return wrong
    if blake3_hex(data) != digest:
        return ["differs from its digest outside the chunks"]
    for column in columns:
        try:
            places = layout_of(store.spec).locate(store.spec, payload.shard, column, data)
        except ValueError as error:
            return [str(error)]
        if places != tuple((chunk.offset, chunk.size) for chunk in payload.chunks[column.name]):
            return [f"plain readers find column {column.name} elsewhere than the commit record says"]
    return []


def _content(store: Store, payload: Payload) -> Iterator[Problem]:
    """Whether the decoded values are those that the content digest was taken of, and can be true."""
    reader = ChunkReader(store.path, store.spec)
    where = str(record_path(Path(), payload.shard))
    try:
        arrays = {column.name: _column(reader, payload, column) for column in content_columns(store.spec)}
    except DamagedStore as error:
        yield Problem(where, error.what, RELABEL, payload.shard)
        return
    finally:
        reader.close()
    if keys_digest(arrays["content_key"]) != payload.content_keys:  # type: ignore[arg-type]  # uint8 by the column
        yield Problem(where, "the content keys are not those recorded", RELABEL, payload.shard)
    if block_hashes(store.spec, arrays) != payload.blocks:
        yield Problem(where, "the values are not those that the content digest was taken of", RELABEL, payload.shard)
    try:
        check_values(store.spec, arrays, first_row=store.spec.shard_rows(payload.shard).start)
    except ValueError as error:
        yield Problem(where, f"the shard holds labels that cannot be: {error}", RELABEL, payload.shard)


def _column(reader: ChunkReader, payload: Payload, column: Column) -> NDArray[np.generic]:
    chunks = range(reader.spec.shard_chunks(payload.shard))
    return np.concatenate([reader.read(payload, column, chunk, check=False) for chunk in chunks])


def _totals(store: Store, records: list[Commit]) -> Iterator[Problem]:
    """Whether the manifest follows from plan and records, and the keys from the specification."""
    plan = read_json(store.path / "plan.json", Plan)
    raw = [read_small_file(record_path(store.path, shard)) for shard in range(store.spec.shards)]
    again = make_manifest(plan, records, raw)
    for field in ("digest", "content_digest", "fidelity", "bytes", "bytes_per_position", "about"):
        if getattr(again, field) != getattr(store.manifest, field):
            yield Problem(MANIFEST, f"its {field} does not follow from the plan and the commit records", RESTORE)
    try:
        keys = store.column("content_key")
    except DamagedStore:
        return  # said above, with shard and file
    if keys_digest(keys) != store.spec.transfer_set.content_keys:  # type: ignore[arg-type]  # uint8 by the column
        yield Problem(MANIFEST, "the content keys are not those of the transfer set that it names", RESTORE)
