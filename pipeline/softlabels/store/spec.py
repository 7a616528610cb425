"""What a store says about itself: the specification, and the plan made from it. Each shard's commit record and the manifest are
in `records`.

All four are strict JSON, which `json_files` decodes into these classes: an unknown key, a wrong type or a number beyond
the limits is refused before anything is allocated for it. Nothing in them names code to run or a file outside the store.
docs/format.md is the specification.

The digests cover `Spec` and `Cut`; `About` (source paths, licences) and `environment` stand outside them, so that a store
written again elsewhere keeps its digest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from softlabels.errors import SeveralTargets, some
from softlabels.labels.encoding import Encoding
from softlabels.labels.targets import MOST_TARGETS, NAME, titled
from softlabels.store.columns import SHARED, Column, bare, is_soft, stored_name

Version = Literal[1, 2, 3]
FORMAT: Version = 3  # the latest that is read; what is written is the earliest from 2 on that holds the specification
BLOCK_ROWS = 16  # rows that share one hash of the content digest; chunks hold whole blocks
MAX_CHUNK_BYTES = 1 << 31
MAX_POSITIONS = 1 << 20
MAX_COLUMNS = 512
MOST_FOLDS = 1 << 16
MOST_TEXT = 4096  # characters

Count = Annotated[int, Meta(ge=1, le=1 << 40)]
Natural = Annotated[int, Meta(ge=0, le=1 << 62)]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(max_length=MOST_TEXT)]
TargetName = Annotated[str, Meta(pattern=rf"^{NAME}\Z")]
How = Literal["merged", "concatenated", "selected", "extended", "re-encoded", "imported"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, strict, keyword-only."""


class MemberSpec(Record, kw_only=True, frozen=True):
    """One model of the teacher: its class, the digest of its weights ("" where outputs were imported), its weight."""

    model: Text
    weights: Text = ""
    weight: Annotated[float, Meta(ge=0)] = 1.0


class TeacherSpec(Record, kw_only=True, frozen=True):
    """Who produced the logits, and in which arithmetic. Format 3: `floor`, the least probability that a teacher of
    probabilities was given, see `softlabels.checks.floor`.
    """

    name: Text
    precision: Text
    members: Annotated[tuple[MemberSpec, ...], Meta(min_length=1, max_length=1 << 12)]
    floor: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class TransferSpec(Record, kw_only=True, frozen=True):
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


class LabelSpace(Record, kw_only=True, frozen=True):
    """The classes in order, or the numbers of a vector; their names where they have any; of tokens the digest of the
    tokenizer's vocabulary.
    """

    classes: Annotated[int, Meta(ge=1, le=1 << 24)]
    names: tuple[Text, ...] | None = None
    vocabulary: Hex | UnsetType = UNSET


class TargetSpec(Record, kw_only=True, frozen=True):
    """One of the targets that a store holds: over which classes, and how it is kept. Its kind is the encoding's."""

    name: TargetName
    label_space: LabelSpace
    encoding: Encoding

    @property
    def titled(self) -> str:
        """What messages put before its columns: nothing where it has no name."""
        return titled(self.name)


class SequenceSpec(Record, kw_only=True, frozen=True):
    """Rows of tokens: `positions` is how many a row has (P), with `ragged` the most."""

    positions: Annotated[int, Meta(ge=1, le=MAX_POSITIONS)]
    ragged: bool = False


class PositionSpec(Record, kw_only=True, frozen=True):
    """Rows of positions that are no tokens: `most` is how many a row has (P), with `ragged` the most. Format 3."""

    most: Annotated[int, Meta(ge=1, le=MAX_POSITIONS)]
    ragged: bool = False


class Parent(Record, kw_only=True, frozen=True):
    """The digest of a store that this one was made from, and how. Format 3."""

    digest: Hex
    how: How


class Preprocessing(Record, kw_only=True, frozen=True):
    """How raw inputs became what the teacher saw: a function's name and arguments (words, never imported) and the digest
    of the first prepared rows.
    """

    function: Text
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    sample: Text = ""


class Cut(Record, kw_only=True, frozen=True):
    """How rows are cut: shard s holds rows s * rows_per_shard and on, in chunks of `rows_per_chunk`; the teacher saw them
    in batches of `teacher_batch` that never cross a shard (0 where outputs were imported).
    """

    rows_per_shard: Count
    rows_per_chunk: Annotated[int, Meta(ge=BLOCK_ROWS, le=1 << 31, multiple_of=BLOCK_ROWS)]
    teacher_batch: Natural = 0


class Spec(Record, kw_only=True, frozen=True):
    """Everything that decides a store's bytes.

    A store holds one target without a name (`one_label_space`, `one_encoding`) or, in format 3, one or more with names
    (`several`); `targets` are all of either. Code that handles labels looks at one at a time, through `only`.
    """

    teacher: TeacherSpec
    transfer_set: TransferSpec
    one_label_space: LabelSpace | UnsetType = msgspec.field(default=UNSET, name="label_space")
    preprocessing: Preprocessing
    one_encoding: Encoding | UnsetType = msgspec.field(default=UNSET, name="encoding")
    several: Annotated[tuple[TargetSpec, ...], Meta(min_length=1, max_length=MOST_TARGETS)] | UnsetType = msgspec.field(
        default=UNSET, name="targets"
    )
    sequence: SequenceSpec | UnsetType = UNSET
    row_positions: PositionSpec | UnsetType = msgspec.field(default=UNSET, name="positions")
    layout: Literal["zarr", "arrow"]
    compression: Literal["none", "zstd"] = "none"
    cut: Cut
    columns: Annotated[tuple[Column, ...], Meta(min_length=2, max_length=MAX_COLUMNS)]
    parents: Annotated[tuple[Parent, ...], Meta(min_length=1, max_length=1 << 12)] | UnsetType = UNSET
    folds: Annotated[int, Meta(ge=2, le=MOST_FOLDS)] | UnsetType = UNSET
    views: Literal[1] | UnsetType = UNSET

    def __post_init__(self) -> None:
        given = [each is not UNSET for each in (self.one_label_space, self.one_encoding, self.several)]
        if given not in ([True, True, False], [False, False, True]):
            raise ValueError("it needs `label_space` and `encoding`, or else `targets`")

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """What is stored of each row or position; one without a name, or some with names."""
        if self.several is not UNSET:
            return self.several
        assert self.one_label_space is not UNSET
        assert self.one_encoding is not UNSET
        return (TargetSpec(name="", label_space=self.one_label_space, encoding=self.one_encoding),)

    @property
    def target(self) -> TargetSpec:
        """The one target without a name. Raises `SeveralTargets`."""
        if self.several is not UNSET:
            names = [target.name for target in self.several]
            raise SeveralTargets(
                f"the store holds {len(names)} target{'s' * (len(names) > 1)} by name ({some(names)})",
                remedy=f"ask for one of them: only({names[0]!r})",
            )
        return self.targets[0]

    @property
    def label_space(self) -> LabelSpace:
        """Of the one target. Raises `SeveralTargets`."""
        return self.target.label_space

    @property
    def encoding(self) -> Encoding:
        """Of the one target. Raises `SeveralTargets`."""
        return self.target.encoding

    @property
    def inputs(self) -> str:
        """Whether inputs are embedded, which all targets say alike."""
        return self.targets[0].encoding.inputs

    def with_targets(self, targets: tuple[TargetSpec, ...]) -> Spec:
        """The same with other targets."""
        one = targets[0] if len(targets) == 1 and not targets[0].name else None
        return msgspec.structs.replace(
            self,
            one_label_space=UNSET if one is None else one.label_space,
            one_encoding=UNSET if one is None else one.encoding,
            several=targets if one is None else UNSET,
        )

    def only(self, name: str) -> Spec:
        """The same with this target alone, without its name, and its own columns beside those that all share. Raises
        `SeveralTargets` where there is none of this name.
        """
        found = next((target for target in self.targets if target.name == name), None)
        if found is None:
            names = [target.name for target in self.targets if target.name]
            raise SeveralTargets(
                f"the store has no target {name!r}",
                remedy=f"ask for one of {', '.join(names)}" if names else "ask for its labels without a name",
            )
        if not name:
            return self
        columns = tuple(
            msgspec.structs.replace(column, name=bare(column.name))
            for column in self.columns
            if column.name in SHARED or column.name == stored_name(name, bare(column.name))
        )
        one = msgspec.structs.replace(found, name="")
        return msgspec.structs.replace(self.with_targets((one,)), columns=columns)

    def owner(self, column: str) -> TargetSpec | None:
        """The target whose column this is; None of those that all targets share."""
        if column in SHARED:
            return None
        name = column.rpartition(".")[0]
        return next((target for target in self.targets if target.name == name), None)

    @property
    def rows(self) -> int:
        """R, the rows of the transfer set."""
        return self.transfer_set.rows

    @property
    def stored_members(self) -> int:
        """Axis M of the labels: 1 where the members were reduced."""
        return 1 if self.encoding.is_reduced else len(self.teacher.members)

    @property
    def of_tokens(self) -> bool:
        """Whether rows are tokens, of which each position is the next one's distribution."""
        return self.sequence is not UNSET

    @property
    def positions(self) -> int | None:
        """P, the (most) positions of a row; None where a row is one distribution and has no such axis."""
        if self.sequence is not UNSET:
            return self.sequence.positions
        return None if self.row_positions is UNSET else self.row_positions.most

    @property
    def ragged(self) -> bool:
        """Whether each row stores its own number of positions."""
        if self.sequence is not UNSET:
            return self.sequence.ragged
        return self.row_positions is not UNSET and self.row_positions.ragged

    @property
    def soft_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the distributions or values."""
        return tuple(column.name for column in self.columns if is_soft(column.name))

    @property
    def with_basis(self) -> TargetSpec | None:
        """The target whose tails have a prior and a basis; None where none has."""
        return next((target for target in self.targets if target.encoding.basis_rank is not None), None)

    @property
    def basis_shape(self) -> tuple[int, int] | None:
        """(1 + r, C) of the prior and the basis of the tails, None where there is none."""
        target = self.with_basis
        return None if target is None else target.encoding.basis_shape(target.label_space.classes)

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


class About(Record, kw_only=True, frozen=True):
    """For people, and of a served teacher `sentinels`, by which its model is known again: the log-probabilities that it gave
    tokens of some rows. Outside the digests.
    """

    source: Text = ""
    teacher_licence: Text = ""
    transfer_licence: Text = ""
    sentinels: Annotated[tuple[float, ...], Meta(min_length=1, max_length=1 << 12)] | UnsetType = UNSET


class Plan(Record, kw_only=True, frozen=True):
    """plan.json: written first, once, and never changed. `plan_of` makes one."""

    format: Version = 2
    spec: Spec
    about: About = About()


def plan_of(spec: Spec, about: About | None = None) -> Plan:
    """The plan of a new store, in the earliest format, from 2 on, that holds its specification."""
    return Plan(format=3 if fields_of_3(spec) else 2, spec=spec, about=about or About())


def fields_of_3(spec: Spec) -> list[str]:
    """Which of the fields that format 3 added a specification has."""
    given = {
        "transfer_set.key_rule": spec.transfer_set.key_rule, "teacher.floor": spec.teacher.floor,
        "targets": spec.several, "positions": spec.row_positions, "parents": spec.parents, "folds": spec.folds,
        "views": spec.views,
    }  # fmt: skip
    found = [name for name, value in given.items() if value is not UNSET]
    if spec.several is UNSET:
        kind = spec.encoding
        found += ["encoding.known_at"] * (kind.known_at is not UNSET) + [f"{kind.kind} labels"] * (
            kind.first_format > 2
        )
    return found
