"""What a store says about itself: the specification, the plan made from it, each shard's commit record and the manifest.

All four are strict JSON, decoded into the classes here and nowhere else: an unknown key, a wrong type or a number beyond
the limits is refused before anything is allocated for it. Nothing in them names code to run or a file outside the store.
docs/format.md is the specification.

The digests cover `Spec` and `Cut`; `About` (source paths, licences) and `environment` stand outside them, so that a store
written again elsewhere keeps its digest.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from pipeline.errors import DamagedManifest, SpecMismatch, StorageError, StorePathError, UserError
from pipeline.labels.fidelity import Fidelity, FidelitySums
from pipeline.store.columns import Column, dense_columns

FORMAT = 1
BLOCK_ROWS = 16  # rows that share one hash of the content digest; chunks hold whole blocks
MAX_CHUNK_BYTES = 1 << 31
MAX_SHARDS = 1 << 17
MAX_SHARD_ROWS = 1 << 23
MAX_SHARD_CHUNKS = 1 << 16
MAX_SPEC_BYTES = 1 << 23
MAX_JSON_BYTES = 1 << 25  # plan and manifest; a specification and 138 bytes a shard
MAX_RECORD_BYTES = 1 << 27  # a commit record; about 71 bytes a block and 120 a chunk of a column

Count = Annotated[int, Meta(ge=1, le=1 << 40)]
Natural = Annotated[int, Meta(ge=0, le=1 << 62)]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(max_length=4096)]
T = TypeVar("T")


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, strict, keyword-only."""


class MemberSpec(_Record, kw_only=True, frozen=True):
    """One model of the teacher: its class, the digest of its weights ("" where outputs were imported), its weight."""

    model: Text
    weights: Text = ""
    weight: Annotated[float, Meta(ge=0)] = 1.0


class TeacherSpec(_Record, kw_only=True, frozen=True):
    """Who produced the logits, and in which arithmetic."""

    name: Text
    precision: Text
    members: Annotated[tuple[MemberSpec, ...], Meta(min_length=1, max_length=1 << 12)]


class TransferSpec(_Record, kw_only=True, frozen=True):
    """What was labelled. `content_keys` is the digest of all rows' keys in order; `key` how they are made."""

    name: Text
    split: Text
    rows: Count
    content_keys: Hex
    revision: Text | None = None
    key: Text = "content"


class LabelSpace(_Record, kw_only=True, frozen=True):
    """The classes in order; their names where they have any."""

    classes: Annotated[int, Meta(ge=2, le=1 << 24)]
    names: tuple[Text, ...] | None = None


class Preprocessing(_Record, kw_only=True, frozen=True):
    """How raw inputs became what the teacher saw: a function's name and arguments (words, never imported) and the digest
    of the first prepared rows.
    """

    function: Text
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    sample: Text = ""


class Encoding(_Record, kw_only=True, frozen=True):
    """How a distribution is kept. `reduce`: "none" keeps every member, "geometric" the members' mean logits."""

    kind: Literal["dense"] = "dense"
    reduce: Literal["none", "geometric"] = "none"
    inputs: Literal["reference", "embed"] = "reference"


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
        """Axis M of `logits`: 1 where the members were reduced."""
        return 1 if self.encoding.reduce == "geometric" else len(self.teacher.members)

    @property
    def member_weights(self) -> tuple[float, ...]:
        """The stored members' weights, as given."""
        return (1.0,) if self.encoding.reduce == "geometric" else tuple(m.weight for m in self.teacher.members)

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
    """plan.json: written first, once, and never changed."""

    format: Literal[1] = 1
    spec: Spec
    about: About = About()


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

    format: Literal[1] = 1
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


def encode_json(record: msgspec.Struct | dict[str, Any]) -> bytes:
    """Canonical JSON: keys sorted, no spaces, UTF-8."""
    return msgspec.json.encode(record, order="sorted")


def pretty_json(record: msgspec.Struct | dict[str, Any]) -> bytes:
    """The same for people, with a line break at the end."""
    return msgspec.json.format(encode_json(record), indent=1) + b"\n"


def decode_json(data: bytes, kind: type[T], where: str) -> T:
    """Strict JSON into `kind`; `DamagedManifest` naming file and field otherwise, `StorePathError` for a later format."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_later_format(data, where)
        raise DamagedManifest(f"{where} does not fit the format: {error}", remedy=_RESTORE) from error


class _Version(msgspec.Struct):
    format: int


def _refuse_later_format(data: bytes, where: str) -> None:
    try:
        version = msgspec.json.decode(data, type=_Version).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version > FORMAT:
        raise StorePathError(
            f"{where} is of store format {version}, and this version of softlabels reads up to {FORMAT}",
            remedy="install a newer softlabels",
        )


_RESTORE = "get this file again from whoever made the store, or label the transfer set again"


def check_spec(spec: Spec, *, error: type[UserError] | type[DamagedManifest] = DamagedManifest) -> Spec:
    """`spec` as it is read back from JSON. Raises `error` where a field has the wrong type or exceeds its limits, or where
    fields that are well-formed one by one contradict each other.
    """
    try:  # classes built in Python are not checked by msgspec until they are decoded
        data = encode_json(spec)
        spec = decode_json(data, Spec, "the specification")
    except (DamagedManifest, TypeError) as fault:
        raise error(getattr(fault, "what", str(fault)), remedy=_remedy(error)) from fault
    for wrong, what in _contradictions(spec, len(data)):
        if wrong:
            raise error(what, remedy=_remedy(error))
    return spec


def _contradictions(spec: Spec, size: int) -> list[tuple[object, str]]:
    """Each rule between fields: whether it is broken, and how."""
    cut, space = spec.cut, spec.label_space
    inputs = spec.columns[4] if len(spec.columns) > 4 else None
    embeds = inputs is not None and inputs.name == "input" and len(inputs.axes) == len(inputs.shape)
    columns = dense_columns(members=spec.stored_members, classes=space.classes, inputs=inputs)
    chunk = max(column.row_bytes for column in spec.columns) * cut.rows_per_chunk
    weight = sum(member.weight for member in spec.teacher.members)
    return [
        (cut.rows_per_shard % cut.rows_per_chunk, f"rows_per_shard={cut.rows_per_shard} is no multiple of "
         f"rows_per_chunk={cut.rows_per_chunk}"),
        (space.names is not None and len(space.names) != space.classes, f"{space.classes} classes have "
         f"{len(space.names or ())} names"),
        (spec.columns != columns or embeds != (spec.encoding.inputs == "embed"), f"the columns are not those of dense "
         f"labels of {spec.stored_members} members x {space.classes} classes, inputs: {spec.encoding.inputs}"),
        (not 0 < weight < math.inf, f"the members' weights add up to {weight}"),
        (chunk > MAX_CHUNK_BYTES, f"a chunk of {chunk} bytes exceeds {MAX_CHUNK_BYTES}"),
        (spec.compression != "none" and spec.layout == "arrow", "compression: zstd needs layout: zarr (Arrow shards are "
         "read in place)"),
        (spec.shards > MAX_SHARDS, f"{spec.shards} shards exceed {MAX_SHARDS}"),
        (len(spec.shard_rows(0)) > MAX_SHARD_ROWS, f"a shard of {len(spec.shard_rows(0))} rows exceeds {MAX_SHARD_ROWS}"),
        (cut.rows_per_shard > cut.rows_per_chunk * MAX_SHARD_CHUNKS, f"a shard of "
         f"{cut.rows_per_shard // cut.rows_per_chunk} chunks exceeds {MAX_SHARD_CHUNKS}"),
        (size > MAX_SPEC_BYTES, f"a specification of {size} bytes exceeds {MAX_SPEC_BYTES}"),
    ]  # fmt: skip


def _remedy(error: type[UserError] | type[DamagedManifest]) -> str:
    return (
        _RESTORE if error is DamagedManifest else "change the recipe's `labels` section, or what the store is made from"
    )


def differing_fields(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Each leaf in which two JSON values differ, as "path: ours, not theirs"."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(ours.keys() | theirs.keys())
        return [
            line
            for key in keys
            for line in differing_fields(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            line for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
            for line in differing_fields(a, b, f"{where}[{i}]")
        ]  # fmt: skip
    return [] if ours == theirs else [f"{where}: {_short(theirs)} here, {_short(ours)} in this run"]


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def plain_json(record: msgspec.Struct) -> dict[str, Any]:
    """A record as JSON's own values."""
    values: dict[str, Any] = msgspec.json.decode(encode_json(record))
    return values


def require_same_plan(ours: Plan, theirs: Plan, where: str) -> None:
    """Raise `SpecMismatch` naming each field in which this run's specification differs from the store's."""
    lines = differing_fields(plain_json(ours.spec), plain_json(theirs.spec))
    if lines:
        raise SpecMismatch(
            f"{where} was begun with another specification ({'; '.join(lines)})",
            remedy="give another store path, or go on with the recipe that began it",
        )


def read_json(path: Path, kind: type[T]) -> T:
    """Read and decode one of the store's JSON files, as `read_small_file` does."""
    return decode_json(read_small_file(path, MAX_RECORD_BYTES if kind is Commit else MAX_JSON_BYTES), kind, str(path))


def read_small_file(path: Path, limit: int = MAX_RECORD_BYTES) -> bytes:
    """The bytes of a plain file (no link) of at most `limit`; `FileNotFoundError` where there is none."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise DamagedManifest(f"{path} is a link or no file; a store never refers outside itself", remedy=_RESTORE)
        if status.st_size > limit:
            raise DamagedManifest(f"{path} is larger than {limit} bytes", remedy=_RESTORE)
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", remedy="check the path and permissions") from error
