"""From commit records to the manifest: what a store is, once all its shards are there; and what room it will take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from softlabels.errors import DamagedManifest, some
from softlabels.labels.fidelity import is_temperature
from softlabels.labels.lost import LostTable
from softlabels.store.columns import is_soft
from softlabels.store.digest import content_digest, manifest_seal, payload_digest, store_digest
from softlabels.store.json_files import RESTORE, pretty_json
from softlabels.store.layouts import layout_of
from softlabels.store.paths import COMMITS, MANIFEST, SET_ASIDE
from softlabels.store.records import Commit, Manifest, Payload, fits_targets, is_by_target
from softlabels.store.rules import check_spec
from softlabels.store.spec import BLOCK_ROWS, FORMAT, Plan, Spec
from softlabels.system.files import Files
from softlabels.system.places import each_of

_FOR_READERS = 1 << 16  # bytes of card, fidelity table and the files for other readers
_IN_MANIFEST, _NAME = 256, 64  # bytes of a shard in the manifest and in state.json, of a file in its folder
_RECORD = 2048  # bytes of a commit record but for what is listed: what storing each target lost
_ARROW = 192  # at most, of a column in the schema and in each record batch, and of the schema and the batch themselves


def make_manifest(plan: Plan, records: list[Commit], commits: tuple[str, ...]) -> Manifest:
    """The manifest that follows from a plan and all commit records in order (`commits`: the digests of their files)."""
    payloads = [record.payload for record in records]
    digests = tuple(payload_digest(payload) for payload in payloads)
    manifest = Manifest(
        format=plan.format,
        spec=plan.spec,
        about=plan.about,
        bytes=sum(file.size for payload in payloads for file in payload.files.values())
        + 2 * math.prod(plan.spec.basis_shape or (0,)),
        bytes_per_position=_label_bytes(plan.spec, payloads),
        **_tables(plan.spec, records),
        digest=store_digest(plan, digests),
        content_digest=content_digest(plan.spec, [block for payload in payloads for block in payload.blocks]),
        payloads=digests,
        commits=commits,
    )
    return msgspec.structs.replace(manifest, seal=manifest_seal(manifest))


def _tables(spec: Spec, records: Sequence[Commit]) -> dict[str, Any]:
    """The fields of a manifest that say what storing lost."""
    found = {name: LostTable.of(record.lost[name] for record in records) for name in (t.name for t in spec.targets)}
    return {"fidelity": {}, "targets": found} if is_by_target(spec) else {"fidelity": found[""].fidelity}


def _label_bytes(spec: Spec, payloads: list[Payload]) -> float:
    """Stored bytes a position of what its labels need: the encodings' columns, of rows of positions also mask and document; not
    keys, hard labels, inputs or the basis that all share. Rows that only fill up the last chunk count where compression
    leaves no other figure.
    """
    columns = [
        column for column in spec.columns if is_soft(column.name) or column.name in ("position_mask", "document")
    ]
    if spec.compression == "none" and not spec.ragged:
        return sum(column.row_bytes for column in columns) / (spec.positions or 1)
    sizes = {
        column.name: sum(chunk.size for payload in payloads for chunk in payload.chunks[column.name])
        for column in columns
    }
    positions = sizes["position_mask"] if spec.ragged else spec.rows * (spec.positions or 1)
    return sum(sizes.values()) / positions


def was_sealed(store: Files, spec: Spec) -> bool:
    """Whether a store was sealed once, and so is not asked again what its labels are: only sealing writes these files, and
    `repair` sets manifests aside.
    """
    names = (MANIFEST, *layout_of(spec).metadata(spec, "", FORMAT))
    aside = any(store.exists(f"{SET_ASIDE}/{name}/{MANIFEST}") for name in store.names(SET_ASIDE))
    return aside or any(each_of(store, store.exists, names))


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raise `DamagedManifest` unless a manifest agrees with itself: its seal, its rules, its lists and its digest."""
    if manifest_seal(manifest) != manifest.seal:
        raise DamagedManifest(f"{where} was changed after it was sealed", remedy=RESTORE)
    check_spec(manifest.spec, version=manifest.format)
    for listed in (manifest.commits, manifest.payloads):
        if len(listed) != manifest.spec.shards:
            raise DamagedManifest(f"{where} lists {len(listed)} shards, not {manifest.spec.shards}", remedy=RESTORE)
    _check_lost(manifest.spec, manifest, where)
    for key in {key for table in manifest.lost.values() for key in table.fidelity}:
        if not is_temperature(key):
            raise DamagedManifest(f"{where} has the fidelity of {key[:40]!r}, which is no temperature", remedy=RESTORE)
    if store_digest(manifest, manifest.payloads) != manifest.digest:
        raise DamagedManifest(f"{where} holds a digest that is not that of its shards", remedy=RESTORE)


def _check_lost(spec: Spec, found: Commit | Manifest, where: str) -> None:
    """Raise `DamagedManifest` unless what storing lost stands where it belongs: of each target what its kind has."""
    here = is_by_target(spec)
    fits = here == (found.targets is not UNSET) and not (here and found.fidelity) and fits_targets(spec, found.lost)
    if not fits:
        names = some(target.name for target in spec.targets)
        raise DamagedManifest(f"{where} does not say what storing cost for {names or 'its labels'}", remedy=RESTORE)


def check_record(spec: Spec, shard: int, record: Commit, where: str) -> None:
    """Raise `DamagedManifest` unless a commit record describes exactly the files and chunks that the plan cuts."""
    _check_lost(spec, record, where)
    layout, payload = layout_of(spec), record.payload
    paths = {column.name: layout.path(column, shard) for column in spec.columns}
    blocks = -(-len(spec.shard_rows(shard)) // BLOCK_ROWS)
    sizes = {column.name: column.row_bytes * spec.cut.rows_per_chunk for column in spec.columns}
    inside = all(
        chunk.offset + chunk.size <= payload.files[paths[name]].size
        and chunk.size <= sizes[name] + sizes[name] // 256 + 128  # what zstd adds at most, and the checksum
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
            remedy="get this file again from the store's maker, or run `softlabels repair`",
        )


def store_bytes(plan: Plan, shards: Sequence[int], environment: Mapping[str, str], *, block: int) -> int:
    """Bytes that writing these shards, and then sealing, will take of a disk that gives files whole blocks of so many bytes:
    no less, but for what compression and ragged rows save.
    """
    if not shards:
        return 0
    spec, total = plan.spec, _FOR_READERS
    for chunks in {spec.shard_chunks(shard) for shard in shards}:
        sizes = [*_file_sizes(spec, chunks).values(), _record_size(spec, chunks, environment)]
        one = sum(-(-size // block) * block + _NAME for size in sizes)
        total += one * sum(spec.shard_chunks(shard) == chunks for shard in shards)
    folders = len({path.rpartition("/")[0] for path in _file_sizes(spec, 1)} | {COMMITS})
    return total + 2 * folders * block + 3 * len(pretty_json(plan)) + spec.shards * _IN_MANIFEST


def _file_sizes(spec: Spec, chunks: int) -> dict[str, int]:
    """Size of each file of a shard of so many chunks, before compression; of the Arrow layout a little more."""
    layout, sizes = layout_of(spec), dict[str, int]()
    for column in spec.columns:
        values = chunks * spec.cut.rows_per_chunk * column.row_bytes
        index = 16 * spec.cut.rows_per_shard // spec.cut.rows_per_chunk
        around = _ARROW * (chunks + 1) if spec.layout == "arrow" else 4 * chunks + index + 4
        path = layout.path(column, 0)
        sizes[path] = sizes.get(path, _ARROW * (chunks + 1) if spec.layout == "arrow" else 0) + values + around
    return sizes


def _record_size(spec: Spec, chunks: int, environment: Mapping[str, str]) -> int:
    """At most, of the commit record of a shard of so many chunks: digests of 64 digits, with names and numbers around them."""
    files = sum(128 + len(path) for path in _file_sizes(spec, chunks))
    blocks = chunks * spec.cut.rows_per_chunk // BLOCK_ROWS
    return (
        _RECORD * len(spec.targets)
        + files
        + 71 * blocks
        + 120 * chunks * len(spec.columns)
        + len(pretty_json(dict(environment)))
    )
