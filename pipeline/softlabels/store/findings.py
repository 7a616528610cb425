"""What the checks say of labels that are stored: `softlabels.checks`, asked of columns that are read again.

A writer asks before it seals, `encode`, `verify` and students of a sealed store. n rows that are looked at, P positions of a
sequence row, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.contradictions import apart, require_consistent
from softlabels.checks.dependence import spread
from softlabels.checks.order import Agreement, agreement, require_order
from softlabels.checks.probabilities import looks, require_logits
from softlabels.checks.rounding import HALF
from softlabels.errors import LogitsError, OtherClassOrder, SpecMismatch, UserError
from softlabels.labels.decoder import Columns
from softlabels.labels.ensemble import normalised_weights
from softlabels.store.digest import keys_digest
from softlabels.store.gather import RecordedChunks, Stored, gather, read_rows
from softlabels.store.key_index import KeyIndex
from softlabels.store.records import Commit
from softlabels.store.spec import Spec
from softlabels.system.files import Files

MOST_ROWS = 1 << 16  # that are looked at; of more, whole chunks that are evenly spread
_AT_ONCE = 16  # chunks of each column
RELABELLED = {
    "softmax": "label the transfer set again from what the softmax is taken of, or from the logarithm of the probabilities",
    "sigmoid": "label the transfer set again from what the sigmoid is taken of, or from log(p / (1 - p))",
}


def keys_of(stored: Stored) -> NDArray[np.uint8]:
    """(R, 16) content keys."""
    return read_rows(stored, "content_key", 0, stored.spec.rows).astype(np.uint8, copy=False)


def _looked_at(spec: Spec, each: int = 1) -> NDArray[np.int64]:
    """Numbers of the chunks that are looked at, where a row counts as `each`."""
    per_chunk = spec.cut.rows_per_chunk
    return spread(-(-spec.rows // per_chunk), max(1, MOST_ROWS // (per_chunk * each)))


def _where(stored: Stored) -> str:
    """What messages call it."""
    return f"{stored.where}{f', target {stored.name}' * bool(stored.name)}"


def _soft(stored: Stored, chunk: int) -> Columns:
    """A chunk's columns of the labels."""
    return {name: stored.read_chunk(name, chunk) for name in stored.spec.soft_columns}


def _wanted(stored: Stored, columns: Sequence[str], chunks: Sequence[int]) -> Iterator[int]:
    """These chunks, one after the other; a place far away fetches some at the same time."""
    for number, chunk in enumerate(chunks):
        if number % _AT_ONCE == 0:
            stored.ahead(columns, chunks[number : number + _AT_ONCE])
        yield chunk


def _parts(columns: Columns) -> Iterator[Columns]:
    """A chunk in parts, since outputs take more bytes than what is stored of them."""
    rows = len(next(iter(columns.values())))
    step = -(-rows // 8)
    return ({name: values[start : start + step] for name, values in columns.items()} for start in range(0, rows, step))


def _largest(stored: Stored, chunk: int) -> NDArray[np.int64]:
    """The class of the largest mean probability of each row (n,) or position (n, P) of a chunk."""
    spec, columns = stored.spec, _soft(stored, chunk)
    lead = next(iter(columns.values())).shape[: 1 if spec.positions is None else 2]
    flat = {name: values.reshape(-1, *values.shape[len(lead) :]) for name, values in columns.items()}
    weights = normalised_weights(spec.member_weights, spec.stored_members)
    return spec.encoding.largest(flat, spec.label_space.classes, weights).reshape(lead)


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


def check_written(
    store: Files,
    spec: Spec,
    records: Sequence[Commit],
    *,
    checked: bool = False,
    beat: Callable[[], object] = lambda: None,
) -> tuple[str, ...]:
    """Check the committed shards of a store that is about to be sealed, and return what there is to say of their labels. `beat`
    is called often meanwhile.

    Raises:
        SpecMismatch: the content keys are not those of the specification.
        ContradictingOutputs, OtherClassOrder: unless the labels were `checked` before.
    """
    payloads = {record.payload.shard: record.payload for record in records}
    with closing(RecordedChunks(store, spec, payloads, beat=beat)) as stored:
        keys = keys_of(stored)
        if keys_digest(keys) != spec.transfer_set.content_keys:
            raise SpecMismatch(
                f"the content keys written to {store} are not those of the transfer set in its specification",
                remedy="write the keys of the rows that the specification was made from",
            )
        said = []
        for name in stored.targets:
            one, title = stored.only(name), f"{name}: " if name else ""
            if not checked:
                _require_consistent(one, keys)
            if (found := stored_agreement(one, refuse=not checked)) is not None:
                said.append(f"{title}{found.line}")
    return tuple(said)


def ask(stored: Stored, keys: NDArray[np.uint8], *, order: bool = True) -> Iterator[UserError]:
    """What is wrong with the labels of a sealed store, a target after the other: outputs that are no logits, that contradict,
    or whose classes stand in another order than the hard labels (not asked without `order`). `keys` (R, 16).
    """
    questions: list[Callable[[], object]] = []
    for one in map(stored.only, stored.targets):
        questions += [partial(_require_logits, one), partial(_require_consistent, one, keys)]
        questions += [partial(stored_agreement, one, refuse=True)] if order else []
    for question in questions:
        try:
            question()
        except (LogitsError, OtherClassOrder) as error:
            yield error


def stored_agreement(stored: Stored, *, own: Own | None = None, refuse: bool = False) -> Agreement | None:
    """How often the largest output is the hard label, of `own` where they are not the store's; None of sequences, of targets
    that are no distribution over classes, and where no row has a label. With `refuse` raises `OtherClassOrder`.
    """
    spec, classes = stored.spec, stored.spec.label_space.classes
    if spec.encoding.target != "softmax" or spec.of_tokens:
        return None
    outputs, labels = [], []
    chunks = _looked_at(spec, spec.positions or 1).tolist()
    for chunk in _wanted(stored, ("label", *spec.soft_columns), chunks):
        start = chunk * spec.cut.rows_per_chunk
        named = stored.read_chunk("label", chunk).astype(np.int64)
        places = np.arange(len(named), dtype=np.int64)
        if own is not None:
            places, named = own.between(start, start + len(named))
            named = np.where(named < classes, named, -1)  # others are refused where rows are joined
        if (named >= 0).any():
            outputs.append(_largest(stored, chunk)[places].reshape(-1))
            labels.append(named.reshape(-1))
    if not labels:
        return None
    found, given = np.concatenate(outputs), np.concatenate(labels)
    if refuse:
        said = require_order(found, given, classes, names=spec.label_space.names, where=_where(stored))
    else:
        said = agreement(found, given, classes)
    return said if said is None or spec.positions is None else replace(said, of="positions")


def _require_consistent(stored: Stored, keys: NDArray[np.uint8]) -> None:
    spec = stored.spec
    names = (*spec.soft_columns, *(["position_mask"] if spec.positions is not None else []))
    compare = partial(apart, encoding=spec.encoding, classes=spec.label_space.classes, precision=spec.teacher.precision)
    read = partial(gather, stored, names)
    off = spec.encoding.off
    require_consistent(keys, read, compare, row_bytes=spec.row_bytes, where=_where(stored), off=off)


def _require_logits(stored: Stored) -> None:
    """Of labels that leave classes out the outputs themselves are not known, and values are none."""
    spec, target = stored.spec, stored.spec.encoding.target
    if not spec.encoding.keeps_all or target not in RELABELLED:
        return
    ask = partial(require_logits, target=target, total=spec.rows, who=_where(stored), remedy=RELABELLED[target])
    parts = []
    names = (*spec.soft_columns, *(["position_mask"] if spec.positions is not None else []))
    for chunk in _wanted(stored, names, _looked_at(spec).tolist()):
        columns = dict(_soft(stored, chunk))
        if spec.positions is not None:
            columns["position_mask"] = stored.read_chunk("position_mask", chunk)
        found = np.concatenate(
            [
                looks(spec.encoding.outputs(part), target, part.get("position_mask"), rounding=HALF)
                for part in _parts(columns)
            ]
        )
        if target == "softmax":
            ask(found, first_row=chunk * spec.cut.rows_per_chunk)
        else:
            parts.append(found)
    if parts:
        ask(np.concatenate(parts))
