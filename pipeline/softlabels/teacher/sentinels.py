"""Sentinel rows: a few rows through the teacher several times, before anything is stored.

They are run in batches as the recipe cuts them, in smaller ones, and one at a time: rows of tokens alone also without their
padding, as the model was trained. Where the answers differ by more than rounding, labels would say more of a row's company
than of the row. The verdict is `softlabels.checks.dependence`'s. A model that cannot take rows of another length, or says
that it was trained on rows with padding, sees them with their padding only. Neighbour: `softlabels.student.trial`.

B distributions of the rows, P positions of a row, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.dependence import Dependence, of_all_lengths, spread
from softlabels.checks.order import require_order
from softlabels.checks.probabilities import BLOCK, require_logits, rows_of_positions
from softlabels.errors import ClassMismatch, ConfigError, TeacherError, some
from softlabels.labels.ensemble import largest_class, normalised_weights
from softlabels.labels.targets import titled
from softlabels.models.alone import EVALUATION, PADDING, TRAINED_WITH, apart, largest, lengths, takes_shorter, unpadded
from softlabels.teacher.deviation import LEAST
from softlabels.teacher.encode import looks_among, require_storable
from softlabels.teacher.ensemble import Answers, Ensemble
from softlabels.teacher.expected import Expected
from softlabels.teacher.outputs import BLOCK_BYTES, Outputs
from softlabels.transfer.alignment import alignment

ROWS, SEQUENCES = 64, 8
_NOT_ALONE = 8  # one row in so many is asked alone where no padding can count: batches cut otherwise show the rest
_REMEDIES = {
    "softmax": "leave out the softmax at its end, or return its logarithm (log-probabilities are logits)",
    "sigmoid": "leave out the sigmoid at its end, or return log(p / (1 - p))",
}
_LOOKED_AT = 1024  # rows of tokens among which short and long ones are chosen


def sentinel_count(expected: Expected) -> int:
    """How many rows are asked of the teacher again, to see whether it can be trusted: fewer that have many positions."""
    if expected.sequence is not None:
        return SEQUENCES
    return max(BLOCK, ROWS // (expected.positions or 1))


def check_sentinels(
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    *,
    labels: Mapping[str, NDArray[np.generic]] | None = None,
    names: Mapping[str, Sequence[str] | None] | None = None,
    mask: NDArray[np.uint8] | None = None,
    padded: bool = False,
) -> dict[str, int]:
    """The number of classes of each target that is expected (`Ensemble.expect`), by its name, once a few rows have shown that
    the teacher's outputs for a row are logits, and its own.

    Args:
        inputs: (R, ...) all prepared rows.
        labels: hard labels (R, [P]) of targets that are distributions over classes, where rows have any. names: their classes',
            in order.
        mask: (R, P) of rows of positions that are no tokens, where not all count.
        padded: rows are those of `softlabels.transfer.tokenize`. Rows of tokens (see `Ensemble.expect`) always are.

    Raises:
        OtherClassOrder: the classes stand in another order than the labels say.
        TeacherError: a row's logits depend on the batch it stands in, as under dropout or batch statistics, or on padding.
        LogitsError: outputs that are no logits, or logits that no store can hold, of members that are not reduced; names row
            (position) and member.
        ConfigError: the models cannot take these inputs.
    """
    asked = _Sentinels(ensemble, inputs, mask, padded=padded)
    whole, parts = asked.outputs()
    for name, outputs in whole.items():
        asked.require_logits(name, outputs, total=len(inputs))
        asked.require_storable(name, outputs)
    asked.require_same_in_batches(whole, parts)
    asked.require_same_alone(whole)
    for name, given in (labels or {}).items() if ensemble.sequence is None else ():
        outputs, classes = whole[name], None if names is None else names.get(name)
        if classes is not None and len(classes) != outputs.classes:
            classes = None  # whoever asked says so
        share = normalised_weights(ensemble.weights, len(ensemble.models))
        best = largest_class(outputs.logits().float().cpu().numpy(), share)
        where = f"{titled(name)}{len(asked.rows)} rows of the teacher"
        own = np.asarray(given[asked.numbers], np.int64).reshape(-1)
        require_order(best, own, outputs.classes, names=classes, where=where)
    return {name: outputs.classes for name, outputs in whole.items()}


def token_classes(ensemble: Ensemble, inputs: NDArray[np.generic]) -> int:
    """C, of a teacher of rows of tokens (R, 2, L): asked of a row of token 0, which all models have. Raises `ConfigError`,
    and `ClassMismatch` of targets that differ in it.
    """
    over = [name for name, kept in ensemble.expected.targets.items() if kept.target == "softmax"]
    if not over:
        raise ConfigError(
            "rows of tokens (transfer_set.sequences) have a softmax over the tokens, and no target is one",
            remedy="store it beside the others: labels.targets: {next: {}, ...}, and let the teacher give it by that name",
        )
    row = np.array(inputs[:1])
    row[:, 0] = 0
    with taking(row):
        found = ensemble.answers(row)
    sizes = sorted({found[name].classes for name in over})
    if len(sizes) > 1:
        raise ClassMismatch(
            f"the targets {some(over)} have {' and '.join(map(str, sizes))} classes, and a softmax of rows of tokens is over "
            "the tokens of the tokenizer",
            remedy="give each of them an output for every token, or leave out those of other classes (labels.targets)",
        )
    return sizes[0]


def require_ensemble_logits(
    ensemble: Ensemble, inputs: NDArray[np.generic], mask: NDArray[np.uint8] | None = None
) -> None:
    """Raise `LogitsError` where a member's outputs for a few of all prepared rows look like probabilities."""
    asked = _Sentinels(ensemble, inputs, mask)
    for name, outputs in asked.outputs()[0].items():
        asked.require_logits(name, outputs, total=len(inputs))


class _Sentinels:
    """Rows of the transfer set, and what is asked of the teacher's outputs for them.

    Attributes:
        numbers: (R,) theirs in the transfer set.
        rows: (R, ...) prepared.
        counts: (R, P) bool, the distributions that count; P is 1 but of rows of positions.
        padded: their last array says where they have tokens.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        inputs: NDArray[np.generic],
        mask: NDArray[np.uint8] | None = None,
        *,
        padded: bool = False,
    ) -> None:
        expected = ensemble.expected
        self.ensemble, self.padded = ensemble, padded or ensemble.sequence is not None
        self.numbers = _chosen(inputs, sentinel_count(expected), padded=self.padded)
        self.rows = np.array(inputs[self.numbers])
        self.counts = np.ones((len(self.rows), expected.positions or 1), np.bool_)
        if ensemble.sequence is not None:
            self.counts = alignment(self.rows).mask.astype(np.bool_)
        elif mask is not None:
            self.counts = np.asarray(mask[self.numbers]) == 1

    def outputs(self) -> tuple[Answers, Answers]:
        """The outputs in batches as the recipe cuts them, and in smaller ones. Raises `ConfigError`."""
        size = min(self.ensemble.batch_size, len(self.rows))
        with taking(self.rows[:size]):
            return tuple(self.ensemble.in_batches(self.rows, each) for each in (size, max(1, size * 3 // 8)))  # type: ignore[return-value]

    def require_logits(self, name: str, whole: Outputs, *, total: int) -> None:
        """Raise `LogitsError` where a member's outputs for a target look like probabilities."""
        target = self.ensemble.expected.targets[name].target
        found = np.concatenate([looks_among(block, target) for _, block in whole.blocks()])
        if self.ensemble.expected.positions is not None:
            found = rows_of_positions(found.reshape(*self.counts.shape, -1), self.counts, target)
        who = f"{titled(name)}the teacher ({self.ensemble.spec.name})"
        remedy = _REMEDIES.get(target, "")
        require_logits(found, target=target, total=total, numbers=self.numbers, who=who, remedy=remedy)

    def require_storable(self, name: str, whole: Outputs) -> None:
        """Raise `LogitsError` where no store that keeps the target as is expected can hold the members' outputs for it."""
        encoding = self.ensemble.expected.targets[name]
        where = f"target {name}, " if name else ""
        for places in self._blocks(whole):
            place = partial(_placed, self.ensemble, where, self.numbers.tolist(), places.tolist())
            require_storable(self._logits(whole, places), self.ensemble.weights, encoding=encoding, place=place)

    def require_same_in_batches(self, whole: Answers, parts: Answers) -> None:
        """Raise `TeacherError` where the two cuts give a row other outputs."""
        for name, outputs in whole.items():
            found, unit = self._dependence(name), self._unit(name, outputs)
            for places in self._blocks(outputs):
                self._compare(found, unit, places, self._logits(outputs, places), self._logits(parts[name], places))
            self._require_none(name, found, len(self.rows), "in batches of another size", self._remedy)

    def require_same_alone(self, whole: Answers) -> None:
        """Raise `TeacherError` where a row alone, without padding if the models can take it so, gets other outputs."""
        found = {name: self._dependence(name) for name in whole}
        units = {name: self._unit(name, outputs) for name, outputs in whole.items()}
        shorter = self.padded and takes_shorter(self.ensemble.models)
        asked = range(0, len(self.rows), 1 if self.padded or self.counts.shape[1] > 1 else _NOT_ALONE)
        for number in asked:
            row = self.rows[number]
            if not self.counts[number].any():
                continue
            alone = None
            if shorter and row[-1].any():
                alone = _shorter(self.ensemble, row)
                shorter = alone is not None
            if alone is None:
                alone = self.ensemble.answers(row[None])
            first = number * self.counts.shape[1]
            for name, outputs in whole.items():
                for places in self._blocks(outputs, [number]):
                    one, other = self._logits(outputs, places), self._logits(alone[name], places - first)
                    self._compare(found[name], units[name], places, one, other)
        where, remedy = "alone than in a batch", self._remedy
        if shorter:
            where = "alone, without padding, than in a batch"
            remedy = f"{PADDING}; a model that was trained on rows with padding has an attribute {TRAINED_WITH} = True"
        for name in whole:
            self._require_none(name, found[name], len(asked), where, remedy)

    @property
    def _remedy(self) -> str:
        return f"{EVALUATION}; {PADDING}" if self.padded else EVALUATION

    def _dependence(self, name: str) -> Dependence:
        """Of values, which have a unit, the tolerance is relative to the largest alone."""
        least = 0.0 if self._are_values(name) else 1.0
        return Dependence(len(self.ensemble.models), self.ensemble.spec.precision, least=least)

    def _are_values(self, name: str) -> bool:
        return self.ensemble.expected.targets[name].target == "values"

    def _unit(self, name: str, whole: Outputs) -> Tensor | None:
        """Of values the largest of each output (C,): pixels do not hide a share. What is below a thousandth of the others may
        be their rounding. Of logits none.
        """
        if not self._are_values(name):
            return None
        blocks = [self._logits(whole, places).abs().amax(dim=(0, 1)) for places in self._blocks(whole)]
        largest = torch.stack(blocks).amax(dim=0)
        return largest.clamp_min(max(float(largest.max()) * LEAST, torch.finfo(largest.dtype).tiny))

    def _require_none(self, name: str, found: Dependence, asked: int, where: str, remedy: str) -> None:
        """Raise `TeacherError` for a member that gave other outputs for a target."""
        what, of = ("values", " of its output's largest") if self._are_values(name) else ("logits", "")
        for member, count, most in found.found():
            raise TeacherError(
                f"{titled(name)}{self.ensemble.who(member)} gives {count} of {asked} rows other {what} {where}: they differ by "
                f"up to {most:.3g}{of}",
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

    def _compare(
        self, found: Dependence, unit: Tensor | None, places: NDArray[np.int64], one: Tensor, other: Tensor
    ) -> None:
        if unit is not None:
            one, other = one / unit, other / unit
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


def _placed(ensemble: Ensemble, where: str, rows: Sequence[int], places: Sequence[int], number: int) -> str:
    """How distribution places[number] of these rows is called."""
    return where + ensemble.place(rows, places, number)


def _shorter(ensemble: Ensemble, row: NDArray[np.generic]) -> Answers | None:
    """The answers for a row without its padding; None where a member cannot take rows of another length."""
    try:
        return ensemble.answers(unpadded(row))
    except Exception:  # whatever the user's own model says of it; it is asked with the padding next
        return None
