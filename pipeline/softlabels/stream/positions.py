"""Labels and mask of rows of positions, and whether those that the store counts are the rows' own.

A student's rows come from its own copy of the transfer set, so the two are compared row by row: one position's slip would teach
every label to the wrong place, and nothing else would show it. Of rows of tokens each position's label is the row's own next
token, and its tokens say which positions count. Rows of other positions (frames, anchors, nodes) have labels of their own, and
a mask where they differ in length.

B rows, P positions, L = P + 1 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.errors import AlignmentError, ClassMismatch, LabelError, OtherTokenizer
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import DTYPES, NONE, kind_of
from softlabels.labels.targets import Target
from softlabels.store.columns import LABEL, bare, stored_name
from softlabels.store.gather import Block

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer.sequences import SequenceInfo

MASK, DOCUMENT = "position_mask", "document"


@dataclass(frozen=True)
class Positions:
    """How the positions of rows that are no tokens are found.

    Attributes:
        name: of the rows, for messages.
        own: (R, P) uint8, the positions that each row has; None where the rows do not say it.
    """

    name: str
    own: NDArray[np.uint8] | None
    columns = (MASK,)  # of the store

    def of(self, block: Block) -> Block:
        """The block with "mask" bool (B, P) in the place of the store's own column, and no label where the mask is 0.

        Raises:
            AlignmentError: the store, where there is one, counts other positions.
        """
        block = dict(block)
        stored, own = block.pop(MASK, None), None if self.own is None else self.own[block["row"]]
        if own is not None and stored is not None:
            what = "transfer set says"
            _compare(self.name, "mask", stored, own, block["row"], what, "transfer_set.positions")
        mask = np.asarray(own if stored is None else stored) > 0
        if not mask.all():
            for name in (name for name in block if bare(name) == LABEL):
                none = NONE[kind_of(block[name], mask.shape[1])]
                at = mask.reshape(*mask.shape, *[1] * (block[name].ndim - 2))
                block[name] = np.where(at, block[name], block[name].dtype.type(none))
        return block | {"mask": mask}


@dataclass(frozen=True)
class TokenPositions:
    """How the positions of token rows are found.

    Attributes:
        name: of the rows, for messages.
        targets: kind, and number of classes or values, of each target by its name.
        labelled: (R,) bool, rows whose tokens may be used as hard labels; None for all.
        has_tokens: inputs are tokens; else mask and documents are the store's own, and there are no labels.
    """

    name: str
    targets: Mapping[str, tuple[Target, int]]
    labelled: NDArray[np.bool_] | None
    has_tokens: bool = True
    columns = (MASK, DOCUMENT)  # of the store

    def of(self, block: Block) -> Block:
        """The block with "mask" bool (B, P) and the labels of each target (that without a name: "label"), int64 (B, P) of
        distributions, -1 = none; without the store's own columns of positions.

        Raises:
            AlignmentError: the store's mask or documents, where there is a store, are others.
            LabelError: a token outside the vocabulary. TransferSetError: inputs that are no token rows.
        """
        # With the transfer set's own packages, which only tokens need.
        from softlabels.transfer.alignment import alignment

        rest = {name: values for name, values in block.items() if name not in self.columns}
        if not self.has_tokens:
            mask = block[MASK] > 0
            return rest | self._labels(np.full(mask.shape, NO_LABEL)) | {"mask": mask}
        found = alignment(block["input"])
        for name, own in ((MASK, found.mask), (DOCUMENT, found.document)):
            if name in block:
                how = "transfer_set.sequences: tokenizer, length, pack, separator"
                _compare(self.name, name, block[name], own, block["row"], "row's tokens say", how)
        labels = found.next_token
        if self.labelled is not None:
            labels = np.where(self.labelled[block["row"]][:, None], labels, NO_LABEL)
        return rest | self._labels(labels, found.next_token) | {"mask": found.mask > 0}

    def _labels(self, labels: NDArray[np.int64], tokens: NDArray[np.int64] | None = None) -> Block:
        """The columns of labels, of which only distributions over tokens have some."""
        found: Block = {}
        for name, (kind, classes) in self.targets.items():
            if kind != "softmax":
                found[stored_name(name, LABEL)] = np.full((*labels.shape, classes), NONE[kind], DTYPES[kind])
                continue
            if tokens is not None and tokens.size and tokens.max() >= classes:
                raise LabelError(
                    f"a row of {self.name} holds token {tokens.max()}, and the vocabulary has {classes}",
                    remedy="use the tokenizer that the store was made with, and leave texts with tokens beyond out",
                )
            found[stored_name(name, LABEL)] = labels
        return found


def _compare(
    rows_name: str,
    name: str,
    stored: NDArray[np.generic],
    own: NDArray[np.generic],
    rows: NDArray[np.int64],
    who: str,
    how: str,
) -> None:
    """Raise `AlignmentError` where what the store says of positions (B, P) is not what `who` says."""
    if np.array_equal(stored, own):
        return
    row, position = np.argwhere(stored != own)[0]
    raise AlignmentError(
        f"row {rows[row]} of {rows_name}: the store's {name} says {stored[row, position]} at position {position}, the {who} "
        f"{own[row, position]}",
        remedy=f"prepare the rows as they were for the store ({how}), or label them again",
    )


def stored_sequence(store: Store) -> SequenceInfo | None:
    """What the token rows of a store are; None of other rows."""
    if not store.spec.of_tokens:
        return None
    from softlabels.transfer.sequences import SequenceInfo, stored_bos

    space = next(each.label_space for each in store.spec.targets if each.encoding.target == "softmax")
    vocabulary = "" if space.vocabulary is UNSET else space.vocabulary
    bos = stored_bos(store.spec.preprocessing) or ""
    return SequenceInfo((store.positions or 0) + 1, space.classes, vocabulary, bos)


def check_positions(name: str, sequence: SequenceInfo | None, positions: int | None, store: Store) -> None:
    """Raise unless rows and store are both of tokens (`sequence`), or both not, of one vocabulary and one length; rows that say
    how many `positions` they have as many as the store.

    Raises:
        ClassMismatch: another kind of rows. OtherTokenizer: another tokenizer.
        AlignmentError: rows of another length, or that begin otherwise.
    """
    stored = stored_sequence(store)
    ours, theirs = _kind(sequence is not None, positions is not None), _kind(stored is not None, bool(store.positions))
    if ours != theirs and (theirs != _ROWS[2] or ours == _ROWS[1]):
        raise ClassMismatch(
            f"{store.path} holds {theirs}, and {name} is {ours}",
            remedy="give transfer_set.sequences for rows of tokens, transfer_set.positions for rows of other positions, or the "
            "store of this transfer set",
        )
    if sequence is not None and stored is not None:
        _check_sequences(name, sequence, stored, store)
    elif positions is not None and positions != store.positions:
        raise AlignmentError(
            f"rows of {name} have {positions} positions, those of {store.path} {store.positions}",
            remedy=f"set transfer_set.positions to {store.positions} (most: {store.positions} where rows differ)",
        )


def require_positions(mask: NDArray[np.uint8], name: str) -> None:
    """Raise `AlignmentError` where a row has no position that counts."""
    counts = np.asarray(mask).any(axis=1)
    if not counts.all():
        raise AlignmentError(
            f"row {int(np.argmin(counts))} of {name} has no position that counts: its mask is 0 everywhere",
            remedy="leave such rows out of the transfer set",
        )


_ROWS = "one distribution a row", "rows of tokens", "rows of positions"


def _kind(tokens: bool, positions: bool) -> str:
    return _ROWS[1 if tokens else 2 if positions else 0]


def _check_sequences(name: str, sequence: SequenceInfo, stored: SequenceInfo, store: Store) -> None:
    sequence = sequence.below(stored.classes)  # tokens beyond are refused where a row holds one
    if sequence.vocabulary != stored.vocabulary or sequence.classes != stored.classes:
        raise OtherTokenizer(
            f"the tokenizer of {name} has {sequence.classes} tokens with the vocabulary digest {sequence.vocabulary}, and "
            f"{store.path} was labelled over {stored.classes} with {stored.vocabulary}: the classes are not the same",
            remedy="give transfer_set.sequences.tokenizer the teacher's tokenizer; labels of one cannot teach another",
        )
    if sequence.positions != stored.positions:
        raise AlignmentError(
            f"rows of {name} have {sequence.positions} positions, those of {store.path} {stored.positions}",
            remedy=f"set transfer_set.sequences.length to {stored.length}",
        )
    from softlabels.transfer.sequences import stored_bos

    # Where another function made the store's rows, nobody knows how they begin.
    if sequence.bos != stored.bos and stored_bos(store.spec.preprocessing) is not None:
        ours, theirs = (f"with {bos!r}" if bos else "without a bos" for bos in (sequence.bos, stored.bos))
        raise AlignmentError(
            f"texts of {name} begin {ours}, those of {store.path} {theirs}: no row would find its labels",
            remedy=f"set transfer_set.sequences.bos to {stored.bos or 'none'}",
        )
