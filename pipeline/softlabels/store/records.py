"""What a store says of what is in it: the commit record of each shard, and the manifest, in strict JSON (see `spec`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from softlabels.errors import UserError
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.labels.lost import Lost, LostTable
from softlabels.store.spec import MAX_CHUNK_BYTES, About, Count, Hex, Natural, Record, Spec, Version

HASH_BYTES = 32


class Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Where one chunk's encoded bytes stand in its file, and their blake3."""

    offset: Natural
    size: Annotated[int, Meta(ge=1, le=MAX_CHUNK_BYTES)]
    blake3: Hex


class FileRecord(Record, kw_only=True, frozen=True):
    """Size and blake3 of one file of a shard."""

    size: Natural
    blake3: Hex


class Payload(Record, kw_only=True, frozen=True):
    """What a commit record says of a shard's content; the part that enters the store's digest."""

    shard: Natural
    rows: Count
    content_keys: Hex
    files: dict[str, FileRecord]
    chunks: dict[str, tuple[Chunk, ...]]
    blocks: tuple[Hex, ...]


class Commit(Record, kw_only=True, frozen=True):
    """commits/00042.json: from the moment it exists, shard 42 is the one that write `write_id` staged.

    What storing lost stands in `fidelity` where the store has one target without a name, of distributions over classes; else by
    target in `targets`, and `fidelity` is empty.
    """

    write_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    payload: Payload
    fidelity: tuple[FidelitySums, ...]
    environment: dict[str, str]
    targets: dict[str, Lost] | UnsetType = UNSET

    @property
    def lost(self) -> dict[str, Lost]:
        """What storing lost, by the target's name."""
        return {"": Lost(fidelity=self.fidelity)} if self.targets is UNSET else self.targets


def without_blocks(record: Commit) -> tuple[Commit, bytes]:
    """A record without the hashes of its blocks, and these: they are most of a large one, and no chunk is read by them."""
    slim = msgspec.structs.replace(record.payload, blocks=())
    return msgspec.structs.replace(record, payload=slim), bytes.fromhex("".join(record.payload.blocks))


def with_blocks(record: Commit, hashes: bytes) -> Commit:
    """The record that `without_blocks` took apart."""
    blocks = tuple(hashes[at : at + HASH_BYTES].hex() for at in range(0, len(hashes), HASH_BYTES))
    return msgspec.structs.replace(record, payload=msgspec.structs.replace(record.payload, blocks=blocks))


class Manifest(Record, kw_only=True, frozen=True):
    """manifest.json: written last. `payloads` holds the digest of each shard's payload, from which `digest` follows,
    `commits` the blake3 of each commit record, `seal` that of this manifest's other fields. `fidelity` and `targets` as in
    `Commit`.
    """

    format: Version = 2
    spec: Spec
    about: About
    bytes: Natural
    bytes_per_position: float
    fidelity: dict[str, Fidelity]
    targets: dict[str, LostTable] | UnsetType = UNSET
    digest: Hex
    content_digest: Hex
    payloads: tuple[Hex, ...]
    commits: tuple[Hex, ...]
    seal: str = ""

    @property
    def lost(self) -> dict[str, LostTable]:
        """What storing lost, by the target's name."""
        return {"": LostTable(fidelity=self.fidelity)} if self.targets is UNSET else self.targets

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the sealed stores whose labels these are: its own, or those that are read as one and were never written."""
        return (self.digest,) if self.seal or self.spec.parents is UNSET else tuple(p.digest for p in self.spec.parents)

    def only(self, name: str) -> Manifest:
        """The same of one target, as `Spec.only`, with its table as `fidelity`."""
        spec = self.spec.only(name)
        if self.targets is UNSET:
            return self
        table = self.targets[name]
        return msgspec.structs.replace(self, spec=spec, fidelity=table.fidelity, targets={"": table})


def is_by_target(spec: Spec) -> bool:
    """Whether what storing lost stands in `targets`."""
    return spec.several is not UNSET or spec.encoding.target != "softmax"


def fits_targets(spec: Spec, lost: Mapping[str, Lost | LostTable]) -> bool:
    """Whether this says of each target what its kind loses, or nothing."""
    kinds = {target.name: target.encoding.target for target in spec.targets}
    return lost.keys() == kinds.keys() and not any(
        each.fidelity if kinds[name] == "values" else each.errors for name, each in lost.items()
    )


def by_name_of(spec: Spec, lost: Any) -> dict[str, Lost]:
    """What storing lost, by the target's name. Raises `UserError` where it is not what the targets' kinds lose."""
    given = lost if isinstance(lost, Mapping) else {"": lost}
    if not all(isinstance(each, Lost) for each in given.values()) or not fits_targets(spec, given):
        said = ", ".join(f"{target.name} {target.encoding.kind}".strip() for target in spec.targets)
        raise UserError(
            f"the measures of what storing lost are not for its targets and their kinds ({said})",
            remedy="give what encoding gave, of each target (Lost() where it is unknown)",
        )
    return dict(given)


def record_of(
    spec: Spec, write_id: str, payload: Payload, by_name: Mapping[str, Lost], environment: Mapping[str, str]
) -> Commit:
    """The commit record of a shard, with what storing lost where it stands."""
    own: dict[str, Any] = (
        {"fidelity": (), "targets": dict(by_name)} if is_by_target(spec) else {"fidelity": by_name[""].fidelity}
    )
    return Commit(write_id=write_id, payload=payload, environment=dict(environment), **own)
