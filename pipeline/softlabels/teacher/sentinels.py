"""Sentinel rows: a few rows through the teacher several times, before anything is stored.

They are run in batches as the recipe cuts them, in smaller ones, and one at a time: rows of tokens alone also without their
padding, as the model was trained. Where the answers differ by more than rounding, labels would say more of a row's company
than of the row. The verdict is `softlabels.checks.dependence`'s. What this cannot see: a model that cannot take rows of another
length is asked with their padding only; and rows that differ from the sentinels.

B distributions of the rows, P positions of a row of tokens, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.checks.dependence import Dependence, of_all_lengths, spread
from softlabels.checks.order import largest as largest_class
from softlabels.checks.order import require_order
from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.errors import ConfigError, SoftLabelsError, TeacherError
from softlabels.labels.ensemble import normalised_weights
from softlabels.models.alone import PADDING, apart, largest, lengths, unpadded
from softlabels.teacher.encode import probabilities_among, require_storable
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.outputs import BLOCK_BYTES, Outputs
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import SequenceInfo

ROWS, SEQUENCES = 64, 8
_LOOKED_AT = 1024  # rows of tokens among which short and long ones are chosen
_EVAL = "its forward must not drop out, sample or use batch statistics in evaluation mode"


def sentinel_count(sequence: SequenceInfo | None) -> int:
    """How many rows are asked of the teacher again, to see whether it can be trusted."""
    return ROWS if sequence is None else SEQUENCES


def check_sentinels(
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    *,
    reduce: str = "none",
    labels: NDArray[np.int64] | None = None,
    names: Sequence[str] | None = None,
    padded: bool = False,
) -> int:
    """The number of classes, once a few rows have shown that the teacher's outputs for a row are logits, and its own.

    Args:
        inputs: (R, ...) all prepared rows.
        reduce: what becomes of members, as in the store's encoding.
        labels: (R,) the rows' hard labels, where they have any. names: the classes', in order.
        padded: rows are those of `softlabels.transfer.tokenize`. Rows of tokens (see `Ensemble.expect`) always are.

    Raises:
        OtherClassOrder: the classes stand in another order than the labels say.
        TeacherError: a row's logits depend on the batch it stands in, as under dropout or batch statistics, or on padding.
        LogitsError: outputs that are no logits, or logits that no store can hold, of members that are not reduced; names row
            (position) and member.
        ConfigError: the models cannot take these inputs.
    """
    padded = padded or ensemble.sequence is not None
    numbers = _chosen(inputs, sentinel_count(ensemble.sequence), padded=padded)
    rows = np.array(inputs[numbers])
    size = min(ensemble.batch_size, len(rows))
    try:
        whole, parts = ensemble.in_batches(rows, size), ensemble.in_batches(rows, max(1, size * 3 // 8))
    except RuntimeError as error:  # what torch raises where shapes or dtypes do not fit
        raise ConfigError(
            f"the teacher cannot take inputs of {rows.dtype} and shape {[size, *rows.shape[1:]]}: {error}",
            remedy="change init_args of teacher.members, or transfer_set.prepare",
        ) from error
    counts = np.ones(len(rows), np.bool_)
    if ensemble.sequence is not None:
        counts = alignment(rows).mask.reshape(-1).astype(np.bool_)
    _require_logits(ensemble, rows, whole, total=len(inputs))
    cuts = Dependence(len(ensemble.models), ensemble.spec.precision)
    each = len(counts) // len(rows)
    for at, first in whole.blocks():
        real = torch.from_numpy(counts[at]).to(ensemble.device)
        first, second = first[real], parts.logits(at)[real]
        if len(first):
            places = at.start + np.flatnonzero(counts[at])
            cuts.add(places // each, apart(first, second).numpy(), largest(first).numpy())
            place = partial(ensemble.place, numbers.tolist(), places.tolist())
            require_storable(first, ensemble.weights, reduce=reduce, place=place)
    for member, _, most in cuts.found():
        raise TeacherError(
            f"{ensemble.who(member)} gives the same row logits that differ by {most:.3g} in two batches",
            remedy=f"{_EVAL}; {PADDING}" if padded else _EVAL,
        )
    _check_alone(ensemble, rows, whole, counts.reshape(len(rows), -1), padded=padded)
    if labels is not None and ensemble.sequence is None:
        best = largest_class(
            whole.logits().float().cpu().numpy(), normalised_weights(ensemble.weights, len(ensemble.models))
        )
        require_order(best, np.asarray(labels[numbers]), whole.classes, names=names, where="the teacher's first rows")
    return whole.classes


def require_ensemble_logits(ensemble: Ensemble, inputs: NDArray[np.generic]) -> None:
    """Raise `LogitsError` where a member's outputs for the first rows look like probabilities."""
    rows = inputs[: sentinel_count(ensemble.sequence)]
    outputs = ensemble.in_batches(rows, min(ensemble.batch_size, len(rows)))
    _require_logits(ensemble, rows, outputs, total=len(inputs))


def _require_logits(ensemble: Ensemble, rows: NDArray[np.generic], outputs: Outputs, *, total: int) -> None:
    found = np.concatenate([probabilities_among(block) for _, block in outputs.blocks()])
    if ensemble.sequence is not None:
        found = rows_of_positions(found.reshape(len(rows), -1, found.shape[1]), alignment(rows).mask)
    who = f"the teacher ({ensemble.spec.name})"
    remedy = "leave out the softmax at its end, or return its logarithm (log-probabilities are logits)"
    require_logits(found, total=total, who=who, remedy=remedy)


def _chosen(inputs: NDArray[np.generic], count: int, *, padded: bool) -> NDArray[np.int64]:
    """Numbers of the sentinels, spread over all rows; of rows of tokens short ones and long ones."""
    if not padded:
        return spread(len(inputs), count)
    some = spread(len(inputs), _LOOKED_AT)
    return some[of_all_lengths(lengths(np.asarray(inputs[some])), count)]


def _check_alone(
    ensemble: Ensemble, rows: NDArray[np.generic], whole: Outputs, counts: NDArray[np.bool_], *, padded: bool
) -> None:
    """Raise `TeacherError` where a row alone gives other logits; `counts` (R, P) are the distributions that count."""
    found, each, shorter = Dependence(len(ensemble.models), ensemble.spec.precision), counts.shape[1], padded
    for number, row in enumerate(rows):
        if not counts[number].any():
            continue
        alone = None
        if shorter:
            alone = _shorter(ensemble, row)
            shorter = alone is not None
        if alone is None:
            alone = ensemble.outputs(row[None])
        places = np.flatnonzero(counts[number])
        for start in range(0, len(places), _step(alone)):
            part = torch.from_numpy(places[start : start + _step(alone)]).to(ensemble.device)
            one, other = whole.logits(part + number * each), alone.logits(part)
            found.add(np.full(len(part), number), apart(one, other).numpy(), largest(one).numpy())
    for member, count, most in found.found():
        without = ", without padding," if shorter else ""
        raise TeacherError(
            f"{ensemble.who(member)} gives {count} of {len(rows)} rows other logits alone{without} than in a batch: they "
            f"differ by up to {most:.3g}",
            remedy=PADDING if padded else _EVAL,
        )


def _shorter(ensemble: Ensemble, row: NDArray[np.generic]) -> Outputs | None:
    """The outputs for a row without its padding; None where a member cannot take rows of another length."""
    try:
        return ensemble.outputs(unpadded(row))
    except (RuntimeError, ValueError, IndexError, SoftLabelsError):
        return None


def _step(outputs: Outputs) -> int:
    """Distributions at a time: as many as `Outputs.blocks` makes."""
    return max(1, BLOCK_BYTES // (4 * len(outputs.members) * outputs.classes))
