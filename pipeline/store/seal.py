"""From commit records to the manifest: what a store is, once all its shards are there."""

from __future__ import annotations

import math

import msgspec

from pipeline.errors import DamagedManifest
from pipeline.labels.fidelity import table
from pipeline.store.columns import Column
from pipeline.store.digest import blake3_hex, content_digest, manifest_seal, payload_digest, store_digest
from pipeline.store.layouts import layout_of
from pipeline.store.rules import check_spec
from pipeline.store.spec import BLOCK_ROWS, RESTORE, Commit, Manifest, Payload, Plan, Spec


def make_manifest(plan: Plan, records: list[Commit], raw: list[bytes]) -> Manifest:
    """The manifest that follows from a plan and all commit records in order (`raw`: the records' files)."""
    payloads = [record.payload for record in records]
    digests = tuple(payload_digest(payload) for payload in payloads)
    manifest = Manifest(
        format=plan.format,
        spec=plan.spec,
        about=plan.about,
        bytes=sum(file.size for payload in payloads for file in payload.files.values())
        + 2 * math.prod(plan.spec.basis_shape or (0,)),
        bytes_per_position=_label_bytes(plan.spec, payloads),
        fidelity=table(record.fidelity for record in records),
        digest=store_digest(plan, digests),
        content_digest=content_digest(plan.spec, [block for payload in payloads for block in payload.blocks]),
        payloads=digests,
        commits=tuple(blake3_hex(data) for data in raw),
    )
    return msgspec.structs.replace(manifest, seal=manifest_seal(manifest))


def _label_bytes(spec: Spec, payloads: list[Payload]) -> float:
    """Stored bytes a position of what a distribution needs: the encoding's columns, of sequences also mask and document; not
    keys, hard labels, inputs or the basis that all share. Rows that only fill up the last chunk count where compression
    leaves no other figure.
    """
    columns = [column for column in spec.columns if column.name in spec.soft_columns or column.by_position]
    if spec.compression == "none" and not spec.ragged:
        return sum(column.row_bytes for column in columns) / (spec.positions or 1)
    sizes = {
        column.name: sum(chunk.size for payload in payloads for chunk in payload.chunks[column.name])
        for column in columns
    }
    positions = sizes["position_mask"] if spec.ragged else spec.rows * (spec.positions or 1)
    return sum(sizes.values()) / positions


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raise `DamagedManifest` unless a manifest agrees with itself: its seal, its rules, its lists and its digest."""
    if manifest_seal(manifest) != manifest.seal:
        raise DamagedManifest(f"{where} was changed after it was sealed", remedy=RESTORE)
    check_spec(manifest.spec, version=manifest.format)
    for listed in (manifest.commits, manifest.payloads):
        if len(listed) != manifest.spec.shards:
            raise DamagedManifest(f"{where} lists {len(listed)} shards, not {manifest.spec.shards}", remedy=RESTORE)
    if store_digest(manifest, manifest.payloads) != manifest.digest:
        raise DamagedManifest(f"{where} holds a digest that is not that of its shards", remedy=RESTORE)


def _largest_chunk(spec: Spec, column: Column) -> int:
    """No encoding of a chunk is longer: zstd adds at most a 256th and a little, the checksum 4 bytes."""
    size = column.row_bytes * spec.cut.rows_per_chunk
    return size + size // 256 + 128


def check_record(spec: Spec, shard: int, record: Commit, where: str) -> None:
    """Raise `DamagedManifest` unless a commit record describes exactly the files and chunks that the plan cuts."""
    layout, payload = layout_of(spec), record.payload
    paths = {column.name: layout.path(column, shard) for column in spec.columns}
    blocks = -(-len(spec.shard_rows(shard)) // BLOCK_ROWS)
    largest = {column.name: _largest_chunk(spec, column) for column in spec.columns}
    inside = all(
        chunk.offset + chunk.size <= payload.files[paths[name]].size and chunk.size <= largest[name]
        for name, chunks in payload.chunks.items()
        if name in paths and paths[name] in payload.files
        for chunk in chunks
    )
    if (
        payload.shard != shard
        or payload.rows != len(spec.shard_rows(shard))
        or set(payload.files) != set(paths.values())
        or set(payload.chunks) != set(paths)
        or any(len(chunks) != spec.shard_chunks(shard) for chunks in payload.chunks.values())
        or len(payload.blocks) != blocks
        or not inside
    ):
        raise DamagedManifest(
            f"{where} does not describe shard {shard} as the plan cuts it",
            remedy="get this file again from whoever made the store, or run `softlabels repair`",
        )
