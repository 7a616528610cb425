"""Which token each position of a row predicts, and which positions predict nothing. numpy only.

A row of L tokens has P = L - 1 positions: position p stands for the distribution over token p + 1 that a model gives once it
has read tokens 0 to p. It counts where both tokens are real and of the same document: the last token of a document (its
separator) and padding predict nothing. B rows of a batch.

    token         the  cat  sat  <|endoftext|>  a  dog  (padding)
    document       1    1    1    1             2   2    0
    next token    cat  sat  <|e>  -            dog  -              P = 6 positions
    mask           1    1    1    0             1   0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softlabels.errors import TransferSetError
from softlabels.labels import NO_LABEL

MOST_DOCUMENTS = (1 << 16) - 1  # document numbers are stored as uint16


@dataclass(frozen=True)
class Alignment:
    """Of each position of a batch.

    Attributes:
        next_token: (B, P) int64, the token that it predicts, -1 where `mask` is 0.
        mask: (B, P) uint8, 1 where it counts.
        document: (B, P) uint16, the document of the token before it, 1 and up inside its row; 0 in padding.
    """

    next_token: npt.NDArray[np.int64]
    mask: npt.NDArray[np.uint8]
    document: npt.NDArray[np.uint16]


def alignment(inputs: npt.NDArray[np.generic]) -> Alignment:
    """The alignment of prepared token rows (B, 2, L): token ids, and document numbers (0 = padding).

    Raises:
        TransferSetError: another shape or dtype, or document numbers that are not 1, 2, 3, ... with padding at the end.

    Example:
        >>> from softlabels.transfer.alignment import alignment
        >>> of = alignment(np.array([[[7, 8, 9, 5, 0], [1, 1, 1, 2, 0]]]))  # two documents of 3 and 1 tokens, and padding
        >>> of.next_token.tolist(), of.mask.tolist()
        ([[8, 9, -1, -1]], [[1, 1, 0, 0]])
    """
    if inputs.ndim != 3 or inputs.shape[1] != 2 or inputs.shape[2] < 2 or inputs.dtype.kind not in "iu":
        raise TransferSetError(
            f"token rows are integers (rows, 2, tokens), not {inputs.dtype} of shape {list(inputs.shape)}",
            remedy="prepare them with transfer_set.sequences",
        )
    tokens, documents = inputs[:, 0].astype(np.int64), inputs[:, 1].astype(np.int64)
    _check(documents)
    before, after = documents[:, :-1], documents[:, 1:]
    counts = (before > 0) & (before == after)
    return Alignment(
        next_token=np.where(counts, tokens[:, 1:], NO_LABEL),
        mask=counts.astype(np.uint8),
        document=before.astype(np.uint16),
    )


def _check(documents: npt.NDArray[np.int64]) -> None:
    """Refuse document numbers (B, L) that no row of ours has."""
    before, after = documents[:, :-1], documents[:, 1:]
    follows = (after == before) | ((before > 0) & ((after == before + 1) | (after == 0)))
    wrong = ~follows.all(axis=1) | (documents[:, 0] != 1) | (documents.max(axis=1) > MOST_DOCUMENTS)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise TransferSetError(
            f"the document numbers of row {row} of a batch are not 1, 2, ... and 0 for padding at its end",
            remedy="prepare the rows with transfer_set.sequences; a store with such inputs was not made by it",
        )
