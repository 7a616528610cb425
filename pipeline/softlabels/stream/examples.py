"""A student's examples: its own inputs and hard labels, joined to the teacher's soft labels, read by number.

`Examples` is the one place where inputs and labels are read: `loader.py` asks for a window of labels and for a bounded
part of its inputs at a time, `dataset.py` for a few rows through a cache, `store/gather.py` reads chunks. The hard labels of
token rows are their own next tokens (`positions`).

Shape letters: R rows of the transfer set, N selected items, B rows asked for, P positions, M members, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.errors import ConfigError, LabelError, OtherLabels
from softlabels.store.gather import Array, Block, ChunkSource, gather
from softlabels.stream.columns import SoftColumns
from softlabels.stream.join import Ints, Missing, find_labels
from softlabels.stream.positions import Positions, check_sequences, stored_sequence

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer import TransferRows

LABEL_SAMPLE = 4096  # rows whose hard labels are compared with the store's
TEACHER_SAMPLE = 256  # rows whose two labels are held against the teacher's top class
LABEL_ROWS = 4  # of a class, before it is judged
SAME_MAP = 0.95  # the share of them that one numbering must explain before it is taken for a mistake


class StoredRows:
    """The rows of a store whose inputs are not at hand, for judging the stored teacher: their inputs are their keys. Of token
    rows nobody knows the tokens, and so no label.

    Attributes:
        keys: (R, 16) uint8 content keys.
        labels: (R,) int64, -1 = none.
        class_names: ordered, or None.
        sequence: what rows of tokens are; None for other rows.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.name, self.class_names = store, str(store.path), store.class_names
        self.sequence = stored_sequence(store)
        self.keys = np.asarray(store.column("content_key"), np.uint8)
        self.labels: Ints = np.asarray(store.column("label"), np.int64)
        self.inputs: Array | ChunkSource = self.keys


class EmbeddedRows(StoredRows):
    """The rows that a store holds itself (`inputs: embed`), in the place of a transfer set."""

    def __init__(self, store: Store) -> None:
        if "input" not in store.columns:
            raise ConfigError(f"the store {store.path} holds no inputs", remedy="name the transfer set that it labels")
        super().__init__(store)
        self.inputs = store


@dataclass(frozen=True)
class Examples:
    """N examples, as `join_examples` makes them.

    Attributes:
        items: (N,) int64, the row of each in the transfer rows.
        labels: (N,) int64 hard labels, -1 = none.
        inputs: (R, ...) prepared inputs, or the store that holds them.
        reader: what reads the columns of the store with the soft labels, or None.
        soft: what its columns are, or None.
        positions: what labels and mask of token rows are; None where a row is one example.
        labelled_by: (N,) int64, the row of the store that labels each.
        relabelled: (N,) bool, whose hard label is not the one whose logit sparse labels keep; None where that cannot be.
    """

    items: Ints
    labels: Ints
    inputs: Array | ChunkSource
    reader: ChunkSource | None
    soft: SoftColumns | None
    positions: Positions | None
    labelled_by: Ints
    relabelled: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mapped_bytes(self) -> int:
        """Bytes of one row's input that `with_inputs` copies from an array; 0 where a store holds the inputs."""
        return self.inputs.nbytes // len(self.inputs) if isinstance(self.inputs, np.ndarray) else 0

    @property
    def stored_bytes(self) -> int:
        """Bytes of one row that `take` reads of stores."""
        inputs = () if isinstance(self.inputs, np.ndarray) else (self.inputs.columns["input"],)
        reader, names = self.reader, () if self.soft is None else self.soft.names
        labels = () if reader is None else (reader.columns[name] for name in names)
        return sum(column.row_bytes for column in (*inputs, *labels))

    def take(self, numbers: Ints, *, lead: Block | None = None, pool: Executor | None = None) -> Block:
        """What is kept in memory or in stores of the examples `numbers` (B,), in that order, behind those of `lead`; `pool`
        reads chunks side by side.

        Returns arrays of one length by name: "row", "label", with a store its columns of soft labels (and of positions), and
        "input" where a store holds the inputs; `with_inputs` adds what is missing.

        Raises:
            DamagedShard: what was stored is not what was committed, or what the format forbids.
        """
        items = self.items[numbers]
        block = {"row": _behind(lead, "row", items), "label": _behind(lead, "label", self.labels[numbers])}
        if not isinstance(self.inputs, np.ndarray):
            block |= gather(self.inputs, ("input",), items, lead=lead, pool=pool)
        if self.reader is not None and self.soft is not None:
            block |= gather(self.reader, self.soft.names, self.labelled_by[numbers], lead=lead, pool=pool)
            if self.relabelled is not None and len(numbers):
                block["label_logit"][-len(numbers) :][self.relabelled[numbers]] = np.nan
        return block

    def with_inputs(self, block: Block) -> Block:
        """A block of `take`, or a part of one, with "input", and of token rows with "label" and "mask" (B, P).

        Raises:
            AlignmentError: the store counts other positions than the rows' tokens have.
        """
        if isinstance(self.inputs, np.ndarray):
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
) -> Examples:
    """Join the selected rows to the labels that `store` holds for them.

    Args:
        rows: R rows of the student's data.
        store: soft labels; None for training on hard labels only.
        selection: distinct row numbers, in the order in which the examples are numbered; all rows by default.
        missing: "error", or "skip" to leave out rows that the store does not label.
        weights: (M,) member weights; by default those of the store.
        members: numbers of the members to take, whose `weights` those are; by default all.
        labelled: (R,) rows whose hard label may be used; that of the others becomes -1.

    Raises:
        UnlabelledRows: see `join.find_labels`.
        LabelError: a hard label outside the store's classes.
        OtherLabels: hard labels that number the classes in another order than the store's own, and than its teacher.
        ClassMismatch, AlignmentError: rows of tokens and a store of another tokenizer, or of other positions.
        ConfigError: a selection, mask or weights that do not fit.
    """
    total = len(rows.keys)
    items = np.arange(total) if selection is None else _checked_selection(selection, total)
    if labelled is not None and (labelled.shape != (total,) or labelled.dtype != np.bool_):
        raise ConfigError(
            f"labelled is a {labelled.dtype} array of shape {labelled.shape}, not bool of shape ({total},)",
            remedy="give one bool a row",
        )
    has_tokens, sequence = not isinstance(rows, StoredRows) or isinstance(rows, EmbeddedRows), rows.sequence
    soft, found = None, items
    if store is not None:
        check_sequences(rows.name, sequence, store)
        items, found = find_labels(rows.keys, store, items=items, missing=missing, names=(rows.name, str(store.path)))
        soft = SoftColumns.of(store, weights, members)
    labels = rows.labels[items].astype(np.int64, copy=False)
    _check_labels(labels, items, classes=None if store is None else store.classes, name=rows.name)
    if store is not None and sequence is None and not isinstance(rows, StoredRows):
        _check_label_map(labels, found, store, name=rows.name)
    if labelled is not None:
        labels = np.where(labelled[items], labels, -1)
    classes = 0 if sequence is None else sequence.classes if store is None else store.classes
    positions = None if sequence is None else Positions(rows.name, classes, labelled, has_tokens)
    relabelled = None
    if store is not None and positions is None and "label_logit" in store.columns:
        relabelled = (labels >= 0) & (np.asarray(store.column("label"), np.int64)[found] != labels)
    return Examples(items, labels, rows.inputs, store, soft, positions, found, relabelled)


def _behind(lead: Block | None, name: str, values: Array) -> Array:
    return values if lead is None else np.concatenate([lead[name], values])


def _checked_selection(selection: Ints, total: int) -> Ints:
    selection = np.asarray(selection)
    if selection.ndim != 1 or not np.issubdtype(selection.dtype, np.integer):
        raise ConfigError(
            f"a selection is a list of row numbers, not {selection.dtype} of shape {selection.shape}",
            remedy="of a mask, give np.flatnonzero(mask)",
        )
    if len(selection) == 0 or selection.min() < 0 or selection.max() >= total:
        raise ConfigError(
            f"the selection is empty or leaves the rows 0 to {total - 1}", remedy="select rows in that range"
        )
    if len(np.unique(selection)) != len(selection):
        raise ConfigError("the selection names a row twice", remedy="give each row once")
    return selection.astype(np.int64, copy=False)


def _check_labels(labels: Ints, items: Ints, *, classes: int | None, name: str) -> None:
    """Raise `LabelError` on the first hard label that is neither -1 nor one of the store's classes."""
    wrong = labels < -1 if classes is None else (labels < -1) | (labels >= classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise LabelError(
            f"row {items[first]} of {name} has the hard label {labels[first]} ({wrong.sum()} rows are like it), "
            f"but labels run from 0{'' if classes is None else f' to {classes - 1}'}, -1 being none",
            remedy="check `label` and `classes` of the transfer set, or use a store of this label space",
        )


def _check_label_map(labels: Ints, found: Ints, store: Store, *, name: str) -> None:
    """Raise `OtherLabels` where another numbering of the classes, and nothing else, explains how the labels of a sample of rows
    differ from those that the store holds for them (`found`): such labels pass every other check.
    """
    sample = spread(len(found), LABEL_SAMPLE)
    stored, own = np.asarray(store.gather("label", found[sample]), np.int64), labels[sample]
    # Of each stored class the most frequent own one, how many rows have it, and of how many.
    usual, as_usual, rows = dict[int, int](), 0, 0
    for there in np.unique(stored[(stored >= 0) & (own >= 0)]).tolist():
        here, counts = np.unique(own[(stored == there) & (own >= 0)], return_counts=True)
        if counts.sum() >= LABEL_ROWS:
            usual[there] = int(here[counts.argmax()])
            as_usual, rows = as_usual + int(counts.max()), rows + int(counts.sum())
    moved = [there for there, here in usual.items() if there != here]
    if (
        len(moved) > 1
        and len({*usual.values()}) == len(usual)
        and as_usual > SAME_MAP * rows
        and not _teacher_agrees(store, found[sample], stored, own)
    ):
        raise OtherLabels(
            f"{name} calls class {usual[moved[0]]} what {store.path} calls class {moved[0]} (one of {len(moved)}): "
            "the hard labels are the store's in another numbering",
            remedy="number the classes as the store does (transfer_set.label, classes); its logits stand in that order",
        )


def _teacher_agrees(store: Store, at: Ints, stored: Ints, own: Ints) -> bool:
    """Whether the stored teacher's top class is the own label of rows more often than the stored one, by more than chance
    (three standard deviations): then the labels were mended since, and the store's are in the other numbering.
    """
    apart = np.flatnonzero((stored >= 0) & (own >= 0) & (stored != own))
    apart = apart[spread(len(apart), TEACHER_SAMPLE)]
    top = store.log_probs(at[apart], temperature=store.encoding.near_1).argmax(axis=-1)
    mine, theirs = int((top == own[apart]).sum()), int((top == stored[apart]).sum())
    return mine - theirs > 3 * math.sqrt(mine + theirs)
