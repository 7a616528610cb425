"""A student before it is trained: whether what it says of a row is the row's own, or depends on its batch or on its padding.

The same rows are asked together and one at a time, with their padding: a student may learn from it where it always sees it.
The verdict is `softlabels.checks.dependence`'s. Neighbour: `softlabels.teacher.sentinels` asks teachers.

R rows, P positions of a row of tokens, V outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from softlabels.checks.dependence import Dependence, of_all_lengths
from softlabels.errors import ConfigError
from softlabels.models.alone import EVALUATION, PADDING, apart, largest, lengths

ROWS, SEQUENCES = 16, 2  # rows that are asked, and rows of tokens with a vocabulary of outputs for each


def trial_rows(inputs: Tensor, *, padded: bool, sequences: bool) -> Tensor:
    """Numbers of the rows to ask, among some (R, ...); where they are padded short and long ones."""
    count = min(SEQUENCES if sequences else ROWS, len(inputs))
    if not padded:
        return torch.arange(count)
    return torch.from_numpy(of_all_lengths(lengths(inputs.numpy()), count))


def require_own_rows(
    ask: Callable[[Tensor], Tensor], inputs: Tensor, mask: Tensor | None, *, who: str, padded: bool
) -> Tensor:
    """What a model says of rows (R, ...): (R, [P,] V), once it has said the same of each of them alone.

    Args:
        ask: what the model says of a batch, in evaluation mode.
        mask: (R, P) bool, the positions that count; None where rows have none.
        who: the model, for the message. padded: the rows are padded.

    Raises:
        ConfigError: it does not say the same.
    """
    together, found = ask(inputs), Dependence(1, "float32")
    for number in range(len(inputs)):
        one, other = together[number], ask(inputs[number : number + 1])[0]
        one, other = (each[None] if mask is None else each[mask[number]] for each in (one, other))
        places = np.full(len(one), number)
        found.add(places, apart(one[:, None], other[:, None]).numpy(), largest(one[:, None]).numpy())
    for _, count, most in found.found():
        raise ConfigError(
            f"{who} gives {count} of {len(inputs)} rows other logits alone than in a batch: they differ by up to {most:.3g}",
            remedy=f"{EVALUATION}; {PADDING}" if padded else EVALUATION,
        )
    return together
