"""Hard labels that number the classes in another order than the store's own: such labels pass every other check.

N examples, P positions of a row that are no tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from softlabels.checks.dependence import spread
from softlabels.errors import OtherLabels
from softlabels.store.gather import Array

if TYPE_CHECKING:
    from softlabels.store import Store

Ints = NDArray[np.int64]
LABEL_SAMPLE = 4096  # rows (or positions) whose hard labels are compared with the store's
LABEL_CHUNKS = 32  # of the store, at most, in which these rows stand: far away each is a request
TEACHER_SAMPLE = 256  # whose two labels are held against the teacher's top class
LABEL_ROWS = 4  # of a class, before it is judged
SAME_MAP = 0.95  # the share of them that one numbering must explain before it is taken for a mistake


def check_label_map(labels: Array, items: Ints, found: Ints, store: Store, *, name: str) -> None:
    """Raise `OtherLabels` where another numbering of the classes, and nothing else, explains how the labels (R, [P]) of some of
    the rows `items` (N,) differ from those that the store of one target holds for them, at its rows `found`.
    """
    sample = _sample(found, max(1, LABEL_SAMPLE // (store.positions or 1)), store.rows_per_chunk)
    at = found[sample]
    stored, own = np.asarray(store.gather("label", at), np.int64), np.asarray(labels[items[sample]], np.int64)
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
        and not _teacher_agrees(store, at, stored, own)
    ):
        raise OtherLabels(
            f"{name} calls class {usual[moved[0]]} what {store.path} calls class {moved[0]} (one of {len(moved)}): "
            "the hard labels are the store's in another numbering",
            remedy="number the classes as the store does (transfer_set.label, classes); its logits are in that order",
        )


def _sample(found: Ints, count: int, rows_per_chunk: int) -> Ints:
    """Numbers of `count` examples, or all, evenly spread over the rows `found` (N,) or over those in `LABEL_CHUNKS` chunks."""
    sample = spread(len(found), count)
    chunks = np.unique(found[sample] // rows_per_chunk)
    if len(chunks) > LABEL_CHUNKS:
        within = np.flatnonzero(np.isin(found // rows_per_chunk, chunks[spread(len(chunks), LABEL_CHUNKS)]))
        sample = within[spread(len(within), count)]
    return sample


def _teacher_agrees(store: Store, at: Ints, stored: Ints, own: Ints) -> bool:
    """Whether the stored teacher's top class is the own label of rows (or positions) more often than the stored one, by more
    than chance (three standard deviations): then the labels were mended since, and the store's are in the other numbering.
    """
    apart = np.argwhere((stored >= 0) & (own >= 0) & (stored != own))  # (n, 1), of positions (n, 2)
    apart = apart[spread(len(apart), TEACHER_SAMPLE)]
    places = tuple(apart.T)
    top = store.log_probs(at[places[0]], temperature=store.encoding.near_1).argmax(axis=-1)
    top = top if len(places) == 1 else top[np.arange(len(apart)), places[1]]
    mine, theirs = int((top == own[places]).sum()), int((top == stored[places]).sum())
    return mine - theirs > 3 * math.sqrt(mine + theirs)
