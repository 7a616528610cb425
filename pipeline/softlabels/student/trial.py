"""A student before it is trained: whether it can be, and whether what it says of a row is the row's own.

In training it must give logits as in evaluation mode, also of the smallest batch of an epoch. In evaluation mode the same rows
are asked together and one at a time, with their padding: a student may learn from padding where it always sees it. That verdict
is `softlabels.checks.dependence`'s. Neighbour: `softlabels.teacher.sentinels` asks teachers.

R rows, P positions of a row of tokens, V outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.checks.dependence import Dependence, of_all_lengths
from softlabels.errors import ClassMismatch, ConfigError
from softlabels.models.alone import EVALUATION, PADDING, apart, largest, lengths
from softlabels.models.build import answer_of
from softlabels.models.weights import require_savable
from softlabels.student.outputs import LOGITS_ALONE

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
            f"{who} gives {count} of {len(inputs)} rows other logits one at a time than in a batch: "
            f"they differ by up to {most:.3g}",
            remedy=f"{EVALUATION}; {PADDING}" if padded else EVALUATION,
        )
    return together


def require_trainable(
    model: nn.Module, inputs: Tensor, *, who: str, section: str, rows: int, batch_size: int, micro_batch: int | None
) -> None:
    """Try a model, which is thrown away afterwards, as training will use it.

    Args:
        inputs: (B, ...) some prepared rows.
        who, section: the model, and where in the recipe it stands.
        rows: in an epoch, which is cut into batches of `batch_size`, and those into parts of `micro_batch`.

    Raises:
        ClassMismatch: in training it gives something else than in evaluation mode, such as a tuple.
        ConfigError: it cannot take the rows in training, or not the single row that an epoch's batches leave.
        WeightsError: its state cannot be saved.
    """
    require_savable(model)
    expected = answer_of(model, inputs, who=who, section=section)
    found = answer_of(model, inputs, who=who, section=section, training=len(inputs) > 1)
    if _shapes(found) != _shapes(expected):
        raise ClassMismatch(
            f"{who} gives {_shown(found)} in training, and {_shown(expected)} in evaluation mode", remedy=LOGITS_ALONE
        )
    if not leaves_one(rows, batch_size, micro_batch):
        return
    try:
        answer_of(model, inputs[:1], who=who, section=section, training=True)
    except ConfigError as error:
        if "more than 1 value per channel" not in str(error.__cause__):
            raise
        parts = "" if micro_batch is None else f", micro_batch {micro_batch}"
        raise ConfigError(
            f"an epoch of {rows:,} rows ends in a batch of a single row (batch_size {batch_size}{parts}), "
            "and batch norm cannot take its variance",
            remedy=f"give {_other_size(rows, batch_size, micro_batch)}, or a model without batch norm",
        ) from error


def _shapes(answer: object) -> object:
    """What training must have in common with evaluation: the shape of a tensor, or of each by name."""
    if isinstance(answer, Mapping):
        return {name: _shapes(each) for name, each in answer.items()}
    return answer.shape if isinstance(answer, Tensor) else type(answer)


def _shown(answer: object) -> str:
    if isinstance(answer, Mapping):
        return f"outputs {', '.join(f'{name} ({_shown(each)})' for name, each in answer.items())}"
    return f"outputs of shape {list(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__


def leaves_one(rows: int, batch_size: int, micro_batch: int | None = None) -> bool:
    """Whether a batch of an epoch, or a part of one, is a single row."""
    batches = {min(rows, batch_size), rows % batch_size} - {0}
    return 1 in (
        batches if micro_batch is None else {part for b in batches for part in (min(b, micro_batch), b % micro_batch)}
    )


def _other_size(rows: int, batch_size: int, micro_batch: int | None) -> str:
    for more in range(1, 100):
        if micro_batch is None and not leaves_one(rows, batch_size + more):
            return f"another batch_size, such as {batch_size + more}"
        if micro_batch is not None and not leaves_one(rows, batch_size, micro_batch + more):
            return f"another micro_batch, such as {micro_batch + more}"
    return "other rows"
