"""Out-of-fold answers: what the members of each fold say of its rows, put together as the answers for a batch; and the digest
of weights of which there are several.

B rows of a batch, P positions of a row, N = B x P distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray

from softlabels.errors import ClassMismatch
from softlabels.teacher.outputs import Gathered, Outputs
from softlabels.teacher.shapes import of_target

Ask = Callable[[int, NDArray[np.generic]], Mapping[str, Outputs]]


def out_of_fold(
    ask: Ask, inputs: NDArray[np.generic], fold: NDArray[np.uint16], positions: int | None
) -> dict[str, Outputs]:
    """The answers for inputs (B, ...) of which each row is of a fold (B,).

    Args:
        ask: what the members of a fold say of some rows, by target.

    Raises:
        ClassMismatch: members of two folds differ in their classes; and what `ask` raises.
    """
    each, own = positions or 1, np.repeat(fold.astype(np.int64), positions or 1)
    folds = np.unique(fold).tolist()
    answers = [ask(number, inputs[fold == number]) for number in folds]
    part, inside = np.searchsorted(folds, own), np.zeros(len(inputs) * each, np.int64)
    for number in range(len(folds)):
        inside[part == number] = np.arange((part == number).sum())
    found = {}
    for name, first in answers[0].items():
        if len(classes := {answer[name].classes for answer in answers}) > 1:
            raise ClassMismatch(
                f"the members of the folds have {' and '.join(map(str, sorted(classes)))} classes{of_target(name)}",
                remedy="train them with the classes of all rows",
            )
        where = [torch.from_numpy(places).to(first.device) for places in (part, inside)]
        parts = zip(*(answer[name].members for answer in answers), strict=True)
        found[name] = Outputs(tuple(Gathered(of, *where) for of in parts), first.classes, first.arithmetic)
    return found


def folded_digest(whole: str, folds: Sequence[str]) -> str:
    """blake3 (hex) over the digests (hex) of a member's weights and of those of its folds, in order, each with a line feed."""
    return blake3("".join(f"{digest}\n" for digest in (whole, *folds)).encode()).hexdigest()
