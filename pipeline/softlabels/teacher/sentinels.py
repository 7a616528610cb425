"""Sentinel rows: a few rows through the teacher several times, before anything is stored.

They are run in batches as the recipe cuts them, in smaller ones, and one at a time: rows of tokens alone also without their
padding, as the model was trained. Where the answers differ by more than rounding, labels would say more of a row's company
than of the row. The verdict is `softlabels.checks.dependence`'s. A model that cannot take rows of another length, or says
that it was trained on rows with padding, sees them with their padding only. Neighbour: `softlabels.student.trial`.

B distributions of the rows, P positions of a row of tokens, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.dependence import Dependence, of_all_lengths, spread
from softlabels.checks.order import require_order
from softlabels.checks.probabilities import require_logits, rows_of_positions
from softlabels.errors import ConfigError, TeacherError
from softlabels.labels.encoding import DenseEncoding, Encoding
from softlabels.labels.ensemble import largest_class, normalised_weights
from softlabels.labels.targets import Target
from softlabels.models.alone import EVALUATION, PADDING, TRAINED_WITH, apart, largest, lengths, takes_shorter, unpadded
from softlabels.teacher.encode import looks_among, require_storable
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.outputs import BLOCK_BYTES, Outputs
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import SequenceInfo

ROWS, SEQUENCES = 64, 8
_NOT_ALONE = 8  # one row in so many is asked alone where no padding can count: batches cut otherwise show the rest
DENSE = DenseEncoding()
_REMEDIES = {
    "softmax": "leave out the softmax at its end, or return its logarithm (log-probabilities are logits)",
    "sigmoid": "leave out the sigmoid at its end, or return log(p / (1 - p))",
}
_LOOKED_AT = 1024  # rows of tokens among which short and long ones are chosen


def sentinel_count(sequence: SequenceInfo | None) -> int:
    """How many rows are asked of the teacher again, to see whether it can be trusted."""
    return ROWS if sequence is None else SEQUENCES


def check_sentinels(
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    *,
    encoding: Encoding = DENSE,
    labels: NDArray[np.int64] | None = None,
    names: Sequence[str] | None = None,
    padded: bool = False,
) -> int:
    """The number of classes, once a few rows have shown that the teacher's outputs for a row are logits, and its own.

    Args:
        inputs: (R, ...) all prepared rows.
        encoding: of the store.
        labels: (R,) the rows' hard labels, where they have any. names: the classes', in order.
        padded: rows are those of `softlabels.transfer.tokenize`. Rows of tokens (see `Ensemble.expect`) always are.

    Raises:
        OtherClassOrder: the classes stand in another order than the labels say.
        TeacherError: a row's logits depend on the batch it stands in, as under dropout or batch statistics, or on padding.
        LogitsError: outputs that are no logits, or logits that no store can hold, of members that are not reduced; names row
            (position) and member.
        ConfigError: the models cannot take these inputs.
    """
    asked = _Sentinels(ensemble, inputs, padded=padded)
    whole, parts = asked.outputs()
    asked.require_logits(whole, encoding.target, total=len(inputs))
    asked.require_storable(whole, encoding)
    asked.require_same_in_batches(whole, parts)
    asked.require_same_alone(whole)
    if labels is not None and ensemble.sequence is None and encoding.target == "softmax":
        best = largest_class(
            whole.logits().float().cpu().numpy(), normalised_weights(ensemble.weights, len(ensemble.models))
        )
        where = f"{len(asked.rows)} rows of the teacher"
        require_order(best, np.asarray(labels[asked.numbers]), whole.classes, names=names, where=where)
    return whole.classes


def token_classes(ensemble: Ensemble, inputs: NDArray[np.generic]) -> int:
    """C, of a teacher of rows of tokens (R, 2, L): asked of a row of token 0, which all models have. Raises `ConfigError`."""
    row = np.array(inputs[:1])
    row[:, 0] = 0
    with taking(row):
        return ensemble.outputs(row).classes


def require_ensemble_logits(ensemble: Ensemble, inputs: NDArray[np.generic], target: Target = "softmax") -> None:
    """Raise `LogitsError` where a member's outputs for a few of all prepared rows look like probabilities."""
    asked = _Sentinels(ensemble, inputs)
    asked.require_logits(asked.outputs()[0], target, total=len(inputs))


class _Sentinels:
    """Rows of the transfer set, and what is asked of the teacher's outputs for them.

    Attributes:
        numbers: (R,) theirs in the transfer set.
        rows: (R, ...) prepared.
        counts: (R, P) bool, the distributions that count; P is 1 but of rows of tokens.
        padded: their last array says where they have tokens.
    """

    def __init__(self, ensemble: Ensemble, inputs: NDArray[np.generic], *, padded: bool = False) -> None:
        self.ensemble, self.padded = ensemble, padded or ensemble.sequence is not None
        self.numbers = _chosen(inputs, sentinel_count(ensemble.sequence), padded=self.padded)
        self.rows = np.array(inputs[self.numbers])
        self.counts = np.ones((len(self.rows), 1), np.bool_)
        if ensemble.sequence is not None:
            self.counts = alignment(self.rows).mask.astype(np.bool_)

    def outputs(self) -> tuple[Outputs, Outputs]:
        """The outputs in batches as the recipe cuts them, and in smaller ones. Raises `ConfigError`."""
        size = min(self.ensemble.batch_size, len(self.rows))
        with taking(self.rows[:size]):
            return tuple(self.ensemble.in_batches(self.rows, each) for each in (size, max(1, size * 3 // 8)))  # type: ignore[return-value]

    def require_logits(self, whole: Outputs, target: Target, *, total: int) -> None:
        """Raise `LogitsError` where a member's outputs look like probabilities."""
        found = np.concatenate([looks_among(block, target) for _, block in whole.blocks()])
        if self.ensemble.sequence is not None:
            found = rows_of_positions(found.reshape(*self.counts.shape, -1), self.counts, target)
        who = f"the teacher ({self.ensemble.spec.name})"
        remedy = _REMEDIES.get(target, "")
        require_logits(found, target=target, total=total, numbers=self.numbers, who=who, remedy=remedy)

    def require_storable(self, whole: Outputs, encoding: Encoding) -> None:
        """Raise `LogitsError` where no store of this encoding can hold the members' logits."""
        for places in self._blocks(whole):
            place = partial(self.ensemble.place, self.numbers.tolist(), places.tolist())
            require_storable(self._logits(whole, places), self.ensemble.weights, encoding=encoding, place=place)

    def require_same_in_batches(self, whole: Outputs, parts: Outputs) -> None:
        """Raise `TeacherError` where the two cuts give a row other logits."""
        found = Dependence(len(self.ensemble.models), self.ensemble.spec.precision)
        for places in self._blocks(whole):
            self._compare(found, places, self._logits(whole, places), self._logits(parts, places))
        self._require_none(found, len(self.rows), "in batches of another size", self._remedy)

    def require_same_alone(self, whole: Outputs) -> None:
        """Raise `TeacherError` where a row alone, without padding if the models can take it so, gets other logits."""
        found = Dependence(len(self.ensemble.models), self.ensemble.spec.precision)
        shorter = self.padded and takes_shorter(self.ensemble.models)
        asked = range(0, len(self.rows), 1 if self.padded else _NOT_ALONE)
        for number in asked:
            row = self.rows[number]
            if not self.counts[number].any():
                continue
            alone = None
            if shorter and row[-1].any():
                alone = _shorter(self.ensemble, row)
                shorter = alone is not None
            if alone is None:
                alone = self.ensemble.outputs(row[None])
            first = number * self.counts.shape[1]
            for places in self._blocks(whole, [number]):
                self._compare(found, places, self._logits(whole, places), self._logits(alone, places - first))
        if shorter:
            remedy = f"{PADDING}; a model that was trained on rows with padding has an attribute {TRAINED_WITH} = True"
            self._require_none(found, len(asked), "alone, without padding, than in a batch", remedy)
        self._require_none(found, len(asked), "alone than in a batch", self._remedy)

    @property
    def _remedy(self) -> str:
        return f"{EVALUATION}; {PADDING}" if self.padded else EVALUATION

    def _require_none(self, found: Dependence, asked: int, where: str, remedy: str) -> None:
        """Raise `TeacherError` for a member that gave other logits."""
        for member, count, most in found.found():
            raise TeacherError(
                f"{self.ensemble.who(member)} gives {count} of {asked} rows other logits {where}: they differ by up to "
                f"{most:.3g}",
                remedy=remedy,
            )

    def _blocks(self, whole: Outputs, rows: Sequence[int] | None = None) -> Iterator[NDArray[np.int64]]:
        """Places among all R * P of the distributions of `rows` (all) that count, as many at a time as `Outputs.blocks` has."""
        chosen = range(len(self.rows)) if rows is None else rows
        each = self.counts.shape[1]
        places = np.concatenate([number * each + np.flatnonzero(self.counts[number]) for number in chosen])
        step = max(1, BLOCK_BYTES // (4 * len(whole.members) * whole.classes))
        for start in range(0, len(places), step):
            yield places[start : start + step]

    def _logits(self, outputs: Outputs, places: NDArray[np.int64]) -> Tensor:
        """Logits (n, M, C)."""
        return outputs.logits(torch.from_numpy(places).to(outputs.device))

    def _compare(self, found: Dependence, places: NDArray[np.int64], one: Tensor, other: Tensor) -> None:
        found.add(places // self.counts.shape[1], apart(one, other).numpy(), largest(one).numpy())


@contextmanager
def taking(rows: NDArray[np.generic]) -> Iterator[None]:
    """What torch raises where the shapes or dtypes of `rows` do not fit, as `ConfigError`."""
    try:
        yield
    except RuntimeError as error:
        raise ConfigError(
            f"the teacher cannot take inputs of {rows.dtype} and shape {list(rows.shape)}: {error}",
            remedy="change init_args of teacher.members, or transfer_set.prepare",
        ) from error


def _chosen(inputs: NDArray[np.generic], count: int, *, padded: bool) -> NDArray[np.int64]:
    """Numbers of the sentinels, spread over all rows; of rows of tokens short ones and long ones."""
    if not padded:
        return spread(len(inputs), count)
    some = spread(len(inputs), _LOOKED_AT)
    return some[of_all_lengths(lengths(np.asarray(inputs[some])), count)]


def _shorter(ensemble: Ensemble, row: NDArray[np.generic]) -> Outputs | None:
    """The outputs for a row without its padding; None where a member cannot take rows of another length."""
    try:
        return ensemble.outputs(unpadded(row))
    except Exception:  # whatever the user's own model says of it; it is asked with the padding next
        return None
