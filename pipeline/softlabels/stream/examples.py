"""A student's examples: its own inputs and hard labels, joined to the teacher's soft labels, read by number.

`Examples` is the one place where inputs and labels are read: `loader.py` asks for a window of labels and for a bounded
part of its inputs at a time, `dataset.py` for a few rows through a cache, `store/gather.py` reads chunks. What is read has the
names of a store's columns; those of a target that has a name begin with it: `box.label`, `box.values`.

Shape letters: R rows of the transfer set, N selected items, B rows asked for, P positions, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError, SeveralTargets, some
from softlabels.labels.hard import DTYPES, NONE, kind_of
from softlabels.labels.targets import Target
from softlabels.store.columns import LABEL, stored_name
from softlabels.store.gather import Array, Block, ChunkSource, gather
from softlabels.store.key_index import Missing
from softlabels.stream.columns import SoftColumns
from softlabels.stream.exchange import Exchange, Share
from softlabels.stream.hard_labels import check_labels, own_labels, require_names
from softlabels.stream.join import Ints, find_labels
from softlabels.stream.label_map import check_label_map
from softlabels.stream.positions import Positions, TokenPositions, check_positions, require_positions
from softlabels.stream.stored_rows import EmbeddedRows, StoredRows
from softlabels.system.buffers import Buffers

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows


@dataclass(frozen=True)
class TargetRows:
    """What is known of one target of the rows.

    Attributes:
        kind: of the labels.
        labels: (R, ...) hard labels, by row; None where `Examples.own` holds them, and of tokens, which are their own.
        soft: what its columns in the store are, or None.
        classes: C of tokens, beyond which outputs pad a vocabulary; else None.
        keeps_label: the store keeps the logit of the hard label that it knew, which is not that of another label.
    """

    kind: Target
    labels: Array | None
    soft: SoftColumns | None = None
    classes: int | None = None
    keeps_label: bool = False


@dataclass(frozen=True)
class Examples:
    """N examples, as `join_examples` makes them.

    Attributes:
        items: (N,) int64, the row of each in the transfer rows.
        labelled_by: (N,) int64, the row of the store that labels each.
        targets: by name; "" is one without a name.
        inputs: (R, ...) prepared inputs; None where `own` holds them.
        own: the store whose own rows these are, or None.
        own_columns: what is read of it, by item.
        reader: what reads the columns of the store with the soft labels, or None.
        columns: what is read of it.
        positions: what labels and mask of rows of positions are; None where a row is one example.
        labelled: (R,) bool, the rows whose hard label may be used; None for all.
    """

    items: Ints
    labelled_by: Ints
    targets: Mapping[str, TargetRows]
    inputs: Array | None
    own: ChunkSource | None
    own_columns: tuple[str, ...]
    reader: ChunkSource | None
    columns: tuple[str, ...]
    positions: Positions | TokenPositions | None
    labelled: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mapped_bytes(self) -> int:
        """Bytes of one row's input that `with_inputs` copies from an array; 0 where a store holds the inputs."""
        return 0 if self.inputs is None else self.inputs.nbytes // len(self.inputs)

    @property
    def stored_bytes(self) -> int:
        """Bytes of one row that `take` reads of stores."""
        sources = (self.own, self.own_columns), (self.reader, self.columns)
        return sum(source.columns[name].row_bytes for source, names in sources if source is not None for name in names)

    @property
    def near(self) -> bool:
        """Whether nothing is gained by `ahead`: no store lies far away."""
        return all(source.near for source in (self.own, self.reader) if source is not None)

    def ahead(self, numbers: Ints, *, exchange: Exchange | None = None) -> None:
        """Say which examples are taken next: of an `exchange` those whose chunks this process is to read."""
        known = [stored_name(name, LABEL) for name, target in self.targets.items() if target.keeps_label]
        of_reader = tuple(dict.fromkeys((*self.columns, *known)))
        wanted = (self.own, self.own_columns, self.items), (self.reader, of_reader, self.labelled_by)
        for source, columns, rows in wanted:
            if source is None or not columns:
                continue
            chunks = np.unique(rows[numbers] // source.rows_per_chunk)
            if exchange is not None:
                chunks = chunks[exchange.readers(source, chunks) == exchange.part.rank]
            source.ahead(columns, chunks.tolist())

    def take(
        self,
        numbers: Ints,
        *,
        lead: Block | None = None,
        pool: Executor | None = None,
        share: Share | None = None,
        memory: Buffers | None = None,
    ) -> Block:
        """What is kept in memory or in stores of the examples `numbers` (B,), in that order, behind those of `lead`; `pool`
        reads chunks side by side. Of a `share`: of those among them that this process is given. What stores hold is put in
        `memory`.

        Returns arrays of one length by name: "row", "label", with a store its columns of soft labels (and of positions), and
        "input" where a store holds the inputs; `with_inputs` adds what is missing.

        Raises:
            DamagedShard: what was stored is not what was committed, or what the format forbids.
        """
        read = gather if share is None else share.gather
        items = self.items[numbers if share is None else numbers[share.own]]
        block: Block = {"row": _behind(lead, "row", items)}
        if self.own is not None and self.own_columns:
            block |= read(self.own, self.own_columns, self.items[numbers], lead=lead, pool=pool, memory=memory)
        for name, target in self.targets.items():
            if target.labels is not None:
                column, dtype = stored_name(name, LABEL), DTYPES[target.kind]
                block[column] = _behind(lead, column, target.labels[items].astype(dtype, copy=False))
        if self.reader is not None and self.columns:
            at = self.labelled_by[numbers]
            block |= read(self.reader, self.columns, at, lead=lead, pool=pool, memory=memory)
        new = {name: values[len(values) - len(items) :] for name, values in block.items()}
        self._hide_labels(new, items)
        self._forget_other_labels(new, self.labelled_by[numbers], read)
        return block

    def _hide_labels(self, block: Block, items: Ints) -> None:
        """Take the hard labels that may not be used out of a block."""
        if self.labelled is None or self.labelled[items].all():
            return
        for name, target in self.targets.items():
            if (column := stored_name(name, LABEL)) in block:
                block[column][~self.labelled[items]] = NONE[target.kind]

    def _forget_other_labels(self, block: Block, at: Ints, read: Callable[..., Block]) -> None:
        """Make the stored logit of a hard label unknown where the row (or position) has another label than the store knew."""
        for name, target in self.targets.items():
            if target.keeps_label and self.reader is not None:
                column = stored_name(name, LABEL)
                own, stored = block[column], read(self.reader, (column,), at)[column]
                block[stored_name(name, "label_logit")][(own >= 0) & (stored != own)] = np.nan

    def with_inputs(self, block: Block) -> Block:
        """A block of `take`, or a part of one, with "input", of rows of positions "mask" (B, P), and of tokens their labels.

        Raises:
            AlignmentError: the store counts other positions than the rows have.
        """
        if self.inputs is not None:
            inputs = np.empty((len(block["row"]), *self.inputs.shape[1:]), self.inputs.dtype)
            np.take(self.inputs, block["row"], axis=0, out=inputs, mode="clip")  # "raise" would copy twice
            block = block | {"input": inputs}
        return block if self.positions is None else self.positions.of(block)


def join_examples(
    rows: TransferRows | EmbeddedRows | StoredRows,
    store: Store | None,
    *,
    selection: Ints | None = None,
    missing: Missing = "error",
    weights: Sequence[float] | None = None,
    members: Sequence[int] | None = None,
    labelled: NDArray[np.bool_] | None = None,
    targets: Collection[str] | None = None,
) -> Examples:
    """Join the selected rows to the labels that `store` holds for them.

    Args:
        rows: R rows of the student's data.
        store: soft labels; None for training on hard labels only.
        selection: distinct row numbers, in the order in which the examples are numbered; all rows by default.
        missing: "error", or "skip" to leave out rows that the store does not label.
        weights: (M,) member weights; by default those of the store.
        members: numbers of the members to take, whose `weights` those are; by default all.
        labelled: (R,) rows whose hard label may be used; that of the others becomes none.
        targets: names of the store's targets that are read; by default all.

    Raises:
        UnlabelledRows: see `join.find_labels`.
        LabelError: a hard label that cannot be true, as one outside the store's classes.
        OtherLabels: hard labels that number the classes in another order than the store's own, and than its teacher.
        ClassMismatch, AlignmentError: rows of tokens and a store of another tokenizer, or of other positions; hard labels of
            another kind than the store's, or of targets that it lacks.
        ConfigError: a selection, mask or weights that do not fit.
    """
    items = found = _checked_selection(selection, len(rows.keys))
    _check_labelled(labelled, len(rows.keys))
    if store is not None:
        check_positions(rows.name, rows.sequence, rows.positions, store)
        items, found = find_labels(rows.keys, store, items=items, missing=missing, names=(rows.name, str(store.path)))
        if not isinstance(rows, StoredRows):
            require_names(rows, store.targets, str(store.path))
    names = _chosen(tuple(rows.hard) if store is None else store.targets, targets)
    made = {name: _target(rows, name, store, items, found, (weights, members)) for name in names}
    positions = _positions(rows, store, made, labelled)
    soft = [column for target in made.values() if target.soft is not None for column in target.soft.names]
    own_columns = ["input"] if rows.inputs is None else []
    own_columns += [
        stored_name(name, LABEL) for name, each in made.items() if each.labels is None and not rows.sequence
    ]
    return Examples(
        items=items,
        labelled_by=found,
        targets=made,
        inputs=rows.inputs,
        own=rows.store if isinstance(rows, StoredRows) else None,
        own_columns=tuple(own_columns),
        reader=store,
        columns=(*(() if store is None or positions is None else positions.columns), *soft),
        positions=positions,
        labelled=labelled,
    )


def _chosen(names: Sequence[str], targets: Collection[str] | None) -> Sequence[str]:
    if targets is None:
        return names
    if strangers := [name for name in targets if name not in names]:
        raise SeveralTargets(
            f"there is no target {some(map(repr, strangers))}", remedy=f"name some of {some(map(repr, names))}"
        )
    return [name for name in names if name in targets]


def _target(
    rows: TransferRows | StoredRows,
    name: str,
    whole: Store | None,
    items: Ints,
    found: Ints,
    chosen: tuple[Sequence[float] | None, Sequence[int] | None],
) -> TargetRows:
    """What is known of the target `name` of the rows `items` (N,), which rows `found` of a store label."""
    store = None if whole is None else whole.only(name)
    soft = None if store is None else SoftColumns.of(store, *chosen)
    keeps_label = store is not None and "label_logit" in store.columns
    if rows.sequence is not None:
        classes = rows.sequence.classes if store is None else store.classes
        kind = "softmax" if store is None else store.encoding.target
        return TargetRows(kind, None, soft, classes if kind == "softmax" else None)
    if isinstance(rows, StoredRows):
        own = rows.store.only(name)
        if LABEL in own.columns and own.columns[LABEL].shape:  # one number a row is kept in memory, others are read
            same = whole is not None and rows.store.folder is whole.folder and np.array_equal(items, found)
            return TargetRows(own.encoding.target, None, soft, keeps_label=keeps_label and not same)
        return TargetRows(own.encoding.target, rows.hard[name] if name else rows.labels, soft, keeps_label=keeps_label)
    labels = rows.hard[name] if store is None else own_labels(rows, store)
    kind = kind_of(labels, rows.positions) if store is None else store.encoding.target
    of = f"{rows.name} (target {name})" if name else rows.name
    check_labels(labels, items, kind, classes=None if store is None else store.classes, name=of)
    if store is not None and kind == "softmax":
        check_label_map(labels, items, found, store, name=of)
    return TargetRows(kind, labels, soft, keeps_label=keeps_label)


def _positions(
    rows: TransferRows | StoredRows,
    store: Store | None,
    targets: Mapping[str, TargetRows],
    labelled: NDArray[np.bool_] | None,
) -> Positions | TokenPositions | None:
    if rows.sequence is not None:
        kinds = {name: (each.kind, each.classes or 0) for name, each in targets.items()}
        kinds |= {name: (each.kind, each.soft.classes) for name, each in targets.items() if each.soft is not None}
        return TokenPositions(rows.name, kinds, labelled, not isinstance(rows, StoredRows) or rows.inputs is None)
    own = rows.mask if store is None or rows.ragged else None  # where all rows have as many, the store says which count
    if own is not None:
        require_positions(own, rows.name)
    if own is None and (store is None or store.positions is None):
        return None
    return Positions(rows.name, own)


def _behind(lead: Block | None, name: str, values: Array) -> Array:
    return values if lead is None else np.concatenate([lead[name], values])


def _checked_selection(selection: Ints | None, total: int) -> Ints:
    if selection is None:
        return np.arange(total)
    selection = np.asarray(selection)
    if selection.ndim != 1 or not np.issubdtype(selection.dtype, np.integer):
        raise ConfigError(
            f"a selection is a list of row numbers, not {selection.dtype} of shape {selection.shape}",
            remedy="for a mask, give np.flatnonzero(mask)",
        )
    if len(selection) == 0 or selection.min() < 0 or selection.max() >= total:
        raise ConfigError(
            f"the selection is empty or leaves the rows 0 to {total - 1}", remedy="select rows in that range"
        )
    if len(np.unique(selection)) != len(selection):
        raise ConfigError("the selection names a row twice", remedy="give each row once")
    return selection.astype(np.int64, copy=False)


def _check_labelled(labelled: NDArray[np.bool_] | None, total: int) -> None:
    if labelled is not None and (labelled.shape != (total,) or labelled.dtype != np.bool_):
        raise ConfigError(
            f"labelled is a {labelled.dtype} array of shape {labelled.shape}, not bool of shape ({total},)",
            remedy="give one bool a row",
        )
