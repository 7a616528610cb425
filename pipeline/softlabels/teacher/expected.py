"""What a teacher is asked: for which targets, of what rows; and of its rows, which positions count and what hard labels they
have.

A row is one distribution or vector, or has P positions of them: those of its tokens, or others (frames, anchors, pixels,
nodes). B rows of a batch, N = B x P distributions, row behind row (P is 1 where rows have no positions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.encoding import DenseEncoding, Encoding
from softlabels.labels.hard import kind_of, no_labels
from softlabels.labels.targets import Target
from softlabels.store.columns import LABEL, stored_name
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows
from softlabels.transfer.sequences import SequenceInfo

Array = NDArray[np.generic]


def softmax() -> Mapping[str, Encoding]:
    """One target without a name, of logits that are all kept."""
    return {"": DenseEncoding()}


@dataclass(frozen=True)
class Expected:
    """What a teacher is asked.

    Attributes:
        targets: how each target is kept, by its name; "" is the one of a teacher whose models give a tensor.
        sequence: of rows of tokens, what they are.
        row_positions: P, of rows of positions that are no tokens.
    """

    targets: Mapping[str, Encoding] = field(default_factory=softmax)
    sequence: SequenceInfo | None = None
    row_positions: int | None = None

    @property
    def positions(self) -> int | None:
        """P; None where a row is one distribution and has no such axis."""
        return self.row_positions if self.sequence is None else self.sequence.positions

    def place(self, rows: Sequence[int], number: int) -> str:
        """How distribution `number` of a batch of these rows is called."""
        if self.positions is None:
            return f"row {rows[number]}"
        row, position = divmod(number, self.positions)
        return f"row {rows[row]}, position {position}"

    def count(self, rows: TransferRows, at: slice | NDArray[np.int64], inputs: Array) -> Counted:
        """What counts of the rows `at`, whose inputs are these (B, ...)."""
        kinds = {name: encoding.target for name, encoding in self.targets.items()}
        hard = {name: labels[at] for name, labels in hard_of(rows, kinds).items()}
        columns = {stored_name(name, LABEL): labels for name, labels in hard.items()}
        classes = {name: labels for name, labels in hard.items() if kinds[name] == "softmax"}
        if self.sequence is not None:
            found = alignment(inputs)
            columns |= {"position_mask": found.mask, "document": found.document}
            return Counted(found.mask, dict.fromkeys(classes, found.next_token), columns)
        if self.row_positions is None:
            return Counted(None, classes, columns)
        mask = np.asarray(mask_of(rows)[at])
        return Counted(mask, classes, columns | {"position_mask": mask})


@dataclass(frozen=True, eq=False)
class Counted:
    """What counts of some rows.

    Attributes:
        mask: (B, P) uint8, 1 where a position counts; None where rows have none.
        classes: (B, [P]) int64, the hard label or next token of each distribution over classes, -1 for none, by target.
        columns: what the store holds of it, by the column's name.
    """

    mask: NDArray[np.uint8] | None
    classes: Mapping[str, Array]
    columns: dict[str, Array]

    @property
    def flat(self) -> NDArray[np.bool_] | None:
        """The mask of all N distributions; None for all."""
        return None if self.mask is None else self.mask.reshape(-1) == 1


def mask_of(rows: TransferRows) -> NDArray[np.uint8]:
    """(R, P), of rows of positions that are no tokens."""
    if rows.mask is not None:
        return rows.mask
    return np.broadcast_to(np.uint8(1), (len(rows.keys), rows.positions or 1))


def hard_of(rows: TransferRows, kinds: Mapping[str, Target]) -> dict[str, Array]:
    """The hard labels (R, ...) of each target, by its name. A softmax has some always, -1 for none; others have those of their
    own kind, where there are any.
    """
    positions = rows.positions
    none = no_labels("softmax", (len(rows.keys), *(() if positions is None else (positions,))))
    found: dict[str, Array] = {}
    for name, kind in kinds.items():
        labels = rows.hard.get(name)
        if kind == "softmax":
            found[name] = none if labels is None else labels
        elif labels is not None and kind_of(labels, positions) == kind:
            found[name] = labels
    return found
