"""What the checks say of labels that are stored: `softlabels.checks`, asked of columns that are read again.

A writer asks before it seals, `encode`, `verify` and students of a sealed store. n rows that are looked at, P positions of a
sequence row, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.contradictions import apart, require_consistent
from softlabels.checks.dependence import spread
from softlabels.checks.order import Agreement, agreement, require_order
from softlabels.checks.probabilities import looks, require_logits, rows_of_positions
from softlabels.checks.rounding import HALF
from softlabels.errors import LogitsError, OtherClassOrder, SpecMismatch, UserError
from softlabels.labels.base import Columns
from softlabels.labels.ensemble import normalised_weights
from softlabels.store.digest import keys_digest
from softlabels.store.gather import RecordedChunks, gather, read_rows
from softlabels.store.key_index import KeyIndex
from softlabels.store.reader import Store
from softlabels.store.spec import Commit, Spec
from softlabels.system.files import Files

Stored = Store | RecordedChunks  # the columns of one split, sealed or about to be
MOST_ROWS = 1 << 16  # that are looked at; of more, whole chunks that are evenly spread
RELABELLED = {
    "softmax": "label the transfer set again from what the softmax is taken of, or from the logarithm of the probabilities",
    "sigmoid": "label the transfer set again from what the sigmoid is taken of, or from log(p / (1 - p))",
}


def keys_of(stored: Stored) -> NDArray[np.uint8]:
    """(R, 16) content keys."""
    return read_rows(stored, "content_key", 0, stored.spec.rows).astype(np.uint8, copy=False)


def _looked_at(spec: Spec) -> NDArray[np.int64]:
    """Numbers of the chunks that are looked at."""
    per_chunk = spec.cut.rows_per_chunk
    return spread(-(-spec.rows // per_chunk), max(1, MOST_ROWS // per_chunk))


def _soft(stored: Stored, chunk: int) -> Columns:
    """A chunk's columns of the distributions."""
    return {name: stored.read_chunk(name, chunk) for name in stored.spec.soft_columns}


class Own:
    """Hard labels of rows that meet a store's by key: of a key that several rows have, each keeps its own label, and the first
    stored row's outputs are those of all.
    """

    def __init__(self, stored: NDArray[np.uint8], keys: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """`stored` (R, 16): the store's keys; `keys` (n, 16) and `labels` (n,): the rows'."""
        same = np.array_equal(stored, keys)
        rows = np.arange(len(keys)) if same else KeyIndex(stored).find(keys)
        order = np.argsort(rows, kind="stable")
        self._rows, self._labels = rows[order], labels[order]

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that meet stored rows `start` to `stop`: which, counted from `start`, and their labels."""
        found = slice(*np.searchsorted(self._rows, [start, stop]))
        return self._rows[found] - start, self._labels[found]


def check_written(store: Files, spec: Spec, records: Sequence[Commit], *, checked: bool = False) -> tuple[str, ...]:
    """Check the committed shards of a store that is about to be sealed, and return what there is to say of their labels.

    Raises:
        SpecMismatch: the content keys are not those of the specification.
        ContradictingOutputs, OtherClassOrder: unless the labels were `checked` before.
    """
    payloads = {record.payload.shard: record.payload for record in records}
    with closing(RecordedChunks(store, spec, payloads)) as stored:
        keys = keys_of(stored)
        if keys_digest(keys) != spec.transfer_set.content_keys:
            raise SpecMismatch(
                f"the content keys written to {store} are not those of the transfer set in its specification",
                remedy="write the keys of the rows that the specification was made from",
            )
        if not checked:
            _require_consistent(stored, keys)
        found = stored_agreement(stored, refuse=not checked)
    return () if found is None else (found.line,)


def ask(stored: Stored, keys: NDArray[np.uint8], *, order: bool = True) -> Iterator[UserError]:
    """What is wrong with the labels of a sealed store, a kind after the other: outputs that are no logits, that contradict, or
    whose classes stand in another order than the hard labels (not asked without `order`). `keys` (R, 16).
    """
    questions: list[Callable[[], object]] = [
        partial(_require_logits, stored),
        partial(_require_consistent, stored, keys),
    ]
    questions += [partial(stored_agreement, stored, refuse=True)] if order else []
    for question in questions:
        try:
            question()
        except (LogitsError, OtherClassOrder) as error:
            yield error


def stored_agreement(stored: Stored, *, own: Own | None = None, refuse: bool = False) -> Agreement | None:
    """How often the largest output is the hard label, of `own` where they are not the store's; None of sequences, where no
    row has one, and of targets that are no softmax. With `refuse` raises `OtherClassOrder`.
    """
    if stored.spec.positions is not None or stored.spec.encoding.target != "softmax":
        return None
    spec, encoding, classes = stored.spec, stored.spec.encoding, stored.spec.label_space.classes
    weights = normalised_weights(spec.member_weights, spec.stored_members)
    outputs, labels = [], []
    for chunk in _looked_at(spec).tolist():
        start = chunk * spec.cut.rows_per_chunk
        named = stored.read_chunk("label", chunk).astype(np.int64)
        places = np.arange(len(named), dtype=np.int64)
        if own is not None:
            places, named = own.between(start, start + len(named))
            named = np.where(named < classes, named, -1)  # others are refused where rows are joined
        if (named >= 0).any():
            outputs.append(encoding.largest(_soft(stored, chunk), classes, weights)[places])
            labels.append(named)
    if not labels:
        return None
    found, given = np.concatenate(outputs), np.concatenate(labels)
    if refuse:
        return require_order(found, given, classes, names=spec.label_space.names, where=str(stored.folder))
    return agreement(found, given, classes)


def _require_consistent(stored: Stored, keys: NDArray[np.uint8]) -> None:
    spec = stored.spec
    names = (*spec.soft_columns, *(["position_mask"] if spec.positions is not None else []))
    compare = partial(apart, encoding=spec.encoding, classes=spec.label_space.classes, precision=spec.teacher.precision)
    require_consistent(
        keys,
        partial(gather, stored, names),
        compare,
        row_bytes=spec.row_bytes,
        where=str(stored.folder),
        off=spec.encoding.off,
    )


def _require_logits(stored: Stored) -> None:
    """Of labels that leave classes out the outputs themselves are not known."""
    spec, target = stored.spec, stored.spec.encoding.target
    if not spec.encoding.keeps_all or target not in RELABELLED:
        return
    ask = partial(require_logits, target=target, total=spec.rows, who=str(stored.folder), remedy=RELABELLED[target])
    parts = []
    for chunk in _looked_at(spec).tolist():
        found = looks(spec.encoding.outputs(_soft(stored, chunk)), target, rounding=HALF)
        if spec.positions is not None:
            found = rows_of_positions(found, stored.read_chunk("position_mask", chunk), target)
        if target == "softmax":
            ask(found, first_row=chunk * spec.cut.rows_per_chunk)
        else:
            parts.append(found)
    if parts:
        ask(np.concatenate(parts))
