"""The store's digests, and the hashes that they are roots over. All are blake3 in lower-case hex.

`digest` is the identity: plan and payloads, layout included. `content_digest` is what the labels say: keys, hard labels and
distributions in row order, whatever the layout and the sizes of shards and chunks; embedded inputs stand outside it (their
keys do not), so a store with inputs holds the same content as one without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.store.columns import Column
from softlabels.store.json_files import encode_json
from softlabels.store.positions import kept
from softlabels.store.records import Manifest, Payload
from softlabels.store.spec import BLOCK_ROWS, Plan, Spec


def blake3_hex(data: bytes | memoryview | NDArray[np.generic]) -> str:
    """blake3 of some bytes (a contiguous array counts as its bytes)."""
    return blake3(
        np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data
    ).hexdigest()


def keys_digest(keys: NDArray[np.uint8]) -> str:
    """The digest of content keys (R, 16) in row order."""
    return blake3_hex(keys)


def content_columns(spec: Spec) -> tuple[Column, ...]:
    """The columns that say what the labels are: all but embedded inputs."""
    return tuple(column for column in spec.columns if column.name != "input")


def block_hashes(spec: Spec, arrays: Mapping[str, NDArray[np.generic]]) -> tuple[str, ...]:
    """A hash for each run of `BLOCK_ROWS` rows, counted from the first: over the content columns' bytes in column order; of
    ragged rows over those of the positions that are kept.
    """
    columns = content_columns(spec)
    parts = [column.encode(arrays[column.name]) for column in columns]
    hashes = []
    for start in range(0, len(parts[0]), BLOCK_ROWS):
        hasher, rows = blake3(), slice(start, start + BLOCK_ROWS)
        for column, part in zip(columns, parts, strict=True):
            ragged = spec.ragged and column.by_position
            here = kept(part[rows], arrays["positions"][rows]) if ragged else part[rows]  # type: ignore[arg-type]
            hasher.update(here.tobytes())
        hashes.append(hasher.hexdigest())
    return tuple(hashes)


def content_digest(spec: Spec, blocks: list[str]) -> str:
    """The digest over all blocks of a store in row order, and over what it takes to decode them."""
    head: dict[str, Any] = {
        "columns": [[c.name, c.dtype, list(c.shape)] for c in content_columns(spec)], "rows": spec.rows,
    }  # fmt: skip
    decoding = {target.name: how for target in spec.targets if (how := target.encoding.decoding())}
    if decoding:
        head |= {"targets": decoding} if spec.several is not UNSET else {"encoding": decoding[""]}
    hasher = blake3(encode_json(head))
    for block in blocks:
        hasher.update(bytes.fromhex(block))
    return hasher.hexdigest()


def payload_digest(payload: Payload) -> str:
    """The digest of what a commit record says of its shard's content."""
    return blake3_hex(encode_json(payload))


def store_digest(plan: Plan | Manifest, payloads: Iterable[str]) -> str:
    """The digest of a store: format and specification, then the digest of each shard's payload in order."""
    hasher = blake3(encode_json({"format": plan.format, "spec": plan.spec}))
    for payload in payloads:
        hasher.update(bytes.fromhex(payload))
    return hasher.hexdigest()


def manifest_seal(manifest: Manifest) -> str:
    """The blake3 over a manifest's fields, its `seal` left empty."""
    return blake3_hex(encode_json(msgspec.structs.replace(manifest, seal="")))
