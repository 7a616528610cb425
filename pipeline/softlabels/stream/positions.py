"""Labels and mask of rows of tokens: each position's label is the row's own next token, and the positions that the store counts
must be those that the tokens say.

A student's tokens may come from its own copy of the transfer set, so the two are compared row by row: one position's slip would
teach every label to the wrong place, and nothing else would show it.

B rows, P positions, L = P + 1 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.errors import AlignmentError, ClassMismatch, LabelError, OtherTokenizer
from softlabels.labels import NO_LABEL
from softlabels.store.gather import Block

if TYPE_CHECKING:
    from softlabels.store import Store
    from softlabels.transfer.sequences import SequenceInfo


@dataclass(frozen=True)
class Positions:
    """How the positions of token rows are found.

    Attributes:
        name: of the rows, for messages.
        classes: C, tokens of the vocabulary.
        labelled: (R,) bool, rows whose tokens may be used as hard labels; None for all.
        has_tokens: inputs are tokens; else mask and documents are the store's own, and there are no labels.
    """

    name: str
    classes: int
    labelled: NDArray[np.bool_] | None
    has_tokens: bool = True

    def of(self, block: Block) -> Block:
        """The block with "label" int64 (B, P) (-1 = none) and "mask" bool (B, P), without the store's own columns of them.

        Raises:
            AlignmentError: the store's mask or documents, where there is a store, are others.
            LabelError: a token outside the vocabulary. TransferSetError: inputs that are no token rows.
        """
        # With the transfer set's own packages, which only tokens need.
        from softlabels.transfer.alignment import alignment

        rest = {name: values for name, values in block.items() if name not in ("position_mask", "document")}
        if not self.has_tokens:
            mask = block["position_mask"] > 0
            return rest | {"label": np.full(mask.shape, NO_LABEL), "mask": mask}
        found = alignment(block["input"])
        for name, own in (("position_mask", found.mask), ("document", found.document)):
            if name in block:
                self._compare(name, block[name], own, block["row"])
        if found.next_token.size and found.next_token.max() >= self.classes:
            raise LabelError(
                f"a row of {self.name} holds token {found.next_token.max()}, and the vocabulary has {self.classes}",
                remedy="use the tokenizer that the store was made with, and leave texts with tokens beyond out",
            )
        labels = found.next_token
        if self.labelled is not None:
            labels = np.where(self.labelled[block["row"]][:, None], labels, NO_LABEL)
        return rest | {"label": labels, "mask": found.mask > 0}

    def _compare(
        self, name: str, stored: NDArray[np.generic], own: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> None:
        if np.array_equal(stored, own):
            return
        row, position = np.argwhere(stored != own)[0]
        raise AlignmentError(
            f"row {rows[row]} of {self.name}: the store's {name} says {stored[row, position]} at position {position}, the "
            f"row's tokens say {own[row, position]}",
            remedy="prepare the rows as they were for the store (tokenizer, length, pack, separator), or label them again",
        )


def stored_sequence(store: Store) -> SequenceInfo | None:
    """What the token rows of a store are; None where a row is one example."""
    if store.positions is None:
        return None
    from softlabels.transfer.sequences import SequenceInfo, stored_bos

    vocabulary = store.spec.label_space.vocabulary
    bos = stored_bos(store.spec.preprocessing) or ""
    return SequenceInfo(store.positions + 1, store.classes, "" if vocabulary is UNSET else vocabulary, bos)


def check_sequences(name: str, sequence: SequenceInfo | None, store: Store) -> None:
    """Raise unless rows and store are both of tokens, or both not, of one vocabulary and one length.

    Raises:
        ClassMismatch: another kind of rows. OtherTokenizer: another tokenizer.
        AlignmentError: rows of another length, or that begin otherwise.
    """
    stored = stored_sequence(store)
    if sequence is None or stored is None:
        if (sequence is None) != (stored is None):
            kinds = "one distribution a row", "rows of tokens"
            raise ClassMismatch(
                f"{store.path} holds {kinds[stored is not None]}, and {name} is {kinds[sequence is not None]}",
                remedy="give transfer_set.sequences for rows of tokens, or the store of this transfer set",
            )
        return
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
    if sequence.bos != stored.bos and not _made_elsewhere(store):
        ours, theirs = (f"with {bos!r}" if bos else "without a bos" for bos in (sequence.bos, stored.bos))
        raise AlignmentError(
            f"texts of {name} begin {ours}, those of {store.path} {theirs}: no row would meet its labels",
            remedy=f"set transfer_set.sequences.bos to {stored.bos or 'none'}",
        )


def _made_elsewhere(store: Store) -> bool:
    """Whether another function made the store's rows, of which nobody knows how they begin."""
    from softlabels.transfer.sequences import stored_bos

    return stored_bos(store.spec.preprocessing) is None
