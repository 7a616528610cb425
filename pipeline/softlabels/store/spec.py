"""What a store says about itself: the specification, the plan made from it, each shard's commit record and the manifest.

All four are strict JSON, which `json_files` decodes into the classes here: an unknown key, a wrong type or a number beyond
the limits is refused before anything is allocated for it. Nothing in them names code to run or a file outside the store.
docs/format.md is the specification.

The digests cover `Spec` and `Cut`; `About` (source paths, licences) and `environment` stand outside them, so that a store
written again elsewhere keeps its digest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.store.columns import Column, is_soft

Version = Literal[1, 2, 3]
FORMAT: Version = 3  # the latest that is read; what is written is the earliest from 2 on that holds the specification
BLOCK_ROWS = 16  # rows that share one hash of the content digest; chunks hold whole blocks
MAX_CHUNK_BYTES = 1 << 31
MAX_POSITIONS = 1 << 20

Count = Annotated[int, Meta(ge=1, le=1 << 40)]
Natural = Annotated[int, Meta(ge=0, le=1 << 62)]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(max_length=4096)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, strict, keyword-only."""


class MemberSpec(_Record, kw_only=True, frozen=True):
    """One model of the teacher: its class, the digest of its weights ("" where outputs were imported), its weight."""

    model: Text
    weights: Text = ""
    weight: Annotated[float, Meta(ge=0)] = 1.0


class TeacherSpec(_Record, kw_only=True, frozen=True):
    """Who produced the logits, and in which arithmetic. Format 3: `floor`, the least probability that a teacher of
    probabilities was given, see `softlabels.checks.floor`.
    """

    name: Text
    precision: Text
    members: Annotated[tuple[MemberSpec, ...], Meta(min_length=1, max_length=1 << 12)]
    floor: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class TransferSpec(_Record, kw_only=True, frozen=True):
    """What was labelled. `content_keys` is the digest of all rows' keys in order; `key` how they are made. Format 3:
    `key_rule`, the version of the key rule where it is not the first.
    """

    name: Text
    split: Text
    rows: Count
    content_keys: Hex
    revision: Text | None = None
    key: Text = "content"
    key_rule: Literal[2, 3] | UnsetType = UNSET


class LabelSpace(_Record, kw_only=True, frozen=True):
    """The classes in order; their names where they have any; of tokens the digest of the tokenizer's vocabulary."""

    classes: Annotated[int, Meta(ge=2, le=1 << 24)]
    names: tuple[Text, ...] | None = None
    vocabulary: Hex | UnsetType = UNSET


class SequenceSpec(_Record, kw_only=True, frozen=True):
    """Rows of several positions: `positions` is how many (P), with `ragged` the most that a row may have."""

    positions: Annotated[int, Meta(ge=1, le=MAX_POSITIONS)]
    ragged: bool = False


class Preprocessing(_Record, kw_only=True, frozen=True):
    """How raw inputs became what the teacher saw: a function's name and arguments (words, never imported) and the digest
    of the first prepared rows.
    """

    function: Text
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    sample: Text = ""


class Cut(_Record, kw_only=True, frozen=True):
    """How rows are cut: shard s holds rows s * rows_per_shard and on, in chunks of `rows_per_chunk`; the teacher saw them
    in batches of `teacher_batch` that never cross a shard (0 where outputs were imported).
    """

    rows_per_shard: Count
    rows_per_chunk: Annotated[int, Meta(ge=BLOCK_ROWS, le=1 << 31, multiple_of=BLOCK_ROWS)]
    teacher_batch: Natural = 0


class Spec(_Record, kw_only=True, frozen=True):
    """Everything that decides a store's bytes."""

    teacher: TeacherSpec
    transfer_set: TransferSpec
    label_space: LabelSpace
    preprocessing: Preprocessing
    encoding: Encoding
    sequence: SequenceSpec | UnsetType = UNSET
    layout: Literal["zarr", "arrow"]
    compression: Literal["none", "zstd"] = "none"
    cut: Cut
    columns: Annotated[tuple[Column, ...], Meta(min_length=4, max_length=16)]

    @property
    def rows(self) -> int:
        """R, the rows of the transfer set."""
        return self.transfer_set.rows

    @property
    def stored_members(self) -> int:
        """Axis M of the labels: 1 where the members were reduced."""
        return 1 if self.encoding.is_reduced else len(self.teacher.members)

    @property
    def positions(self) -> int | None:
        """P, the (most) positions of a row; None where a row is one distribution and has no such axis."""
        return None if self.sequence is UNSET else self.sequence.positions

    @property
    def ragged(self) -> bool:
        """Whether each row stores its own number of positions."""
        return self.sequence is not UNSET and self.sequence.ragged

    @property
    def soft_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the distributions."""
        return tuple(column.name for column in self.columns if is_soft(column.name))

    @property
    def basis_shape(self) -> tuple[int, int] | None:
        """(1 + r, C) of the prior and the basis of the tails, None where there is none."""
        return self.encoding.basis_shape(self.label_space.classes)

    @property
    def member_weights(self) -> tuple[float, ...]:
        """The stored members' weights, as given."""
        return (1.0,) if self.encoding.is_reduced else tuple(m.weight for m in self.teacher.members)

    @property
    def shards(self) -> int:
        """How many shards the rows are cut into."""
        return -(-self.rows // self.cut.rows_per_shard)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all columns, not compressed."""
        return sum(column.row_bytes for column in self.columns)

    def shard_rows(self, shard: int) -> range:
        """The rows of the transfer set that shard `shard` holds."""
        start = shard * self.cut.rows_per_shard
        return range(start, min(start + self.cut.rows_per_shard, self.rows))

    def shard_chunks(self, shard: int) -> int:
        """How many chunks shard `shard` holds."""
        return -(-len(self.shard_rows(shard)) // self.cut.rows_per_chunk)


class About(_Record, kw_only=True, frozen=True):
    """For people; outside the digests."""

    source: Text = ""
    teacher_licence: Text = ""
    transfer_licence: Text = ""


class Plan(_Record, kw_only=True, frozen=True):
    """plan.json: written first, once, and never changed. `plan_of` makes one."""

    format: Version = 2
    spec: Spec
    about: About = About()


def plan_of(spec: Spec, about: About | None = None) -> Plan:
    """The plan of a new store, in the earliest format, from 2 on, that holds its specification."""
    return Plan(format=3 if fields_of_3(spec) else 2, spec=spec, about=about or About())


def fields_of_3(spec: Spec) -> list[str]:
    """Which of the fields that format 3 added a specification has."""
    found = {"transfer_set.key_rule": spec.transfer_set.key_rule, "teacher.floor": spec.teacher.floor}
    return [name for name, value in found.items() if value is not UNSET]


class Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Where one chunk's encoded bytes stand in its file, and their blake3."""

    offset: Natural
    size: Annotated[int, Meta(ge=1, le=MAX_CHUNK_BYTES)]
    blake3: Hex


class FileRecord(_Record, kw_only=True, frozen=True):
    """Size and blake3 of one file of a shard."""

    size: Natural
    blake3: Hex


class Payload(_Record, kw_only=True, frozen=True):
    """What a commit record says of a shard's content; the part that enters the store's digest."""

    shard: Natural
    rows: Count
    content_keys: Hex
    files: dict[str, FileRecord]
    chunks: dict[str, tuple[Chunk, ...]]
    blocks: tuple[Hex, ...]


class Commit(_Record, kw_only=True, frozen=True):
    """commits/00042.json: from the moment it exists, shard 42 is the one that write `write_id` staged."""

    write_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    payload: Payload
    fidelity: tuple[FidelitySums, ...]
    environment: dict[str, str]


class Manifest(_Record, kw_only=True, frozen=True):
    """manifest.json: written last. `payloads` holds the digest of each shard's payload, from which `digest` follows,
    `commits` the blake3 of each commit record, `seal` that of this manifest's other fields.
    """

    format: Version = 2
    spec: Spec
    about: About
    bytes: Natural
    bytes_per_position: float
    fidelity: dict[str, Fidelity]
    digest: Hex
    content_digest: Hex
    payloads: tuple[Hex, ...]
    commits: tuple[Hex, ...]
    seal: str = ""
