"""What a model says of a batch, whatever its kind: logits of rows or of positions, or hidden states with the matrix that makes
logits of them; and the loss of it, or its logits a block of positions at a time.

A model gives one tensor, or a mapping of tensors by name where it is taught several targets; each target meets its own output.
A model with the methods `hidden(inputs)` (B, [P,] d) and `output_matrix()` (weight (V, d), bias (V,) or None; or None: it has
no such matrix) is asked for those, and positions x classes are never held. Of a model of rows of tokens, outputs beyond the
label space's C classes pad its vocabulary and are cut off; positions that the batch's mask leaves out do not count.

B rows, P positions of a row, N = B * P (B without positions), V outputs, C classes, d hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from softlabels.checks.probabilities import BLOCK, FEWEST, are_probabilities, require_logits
from softlabels.errors import ClassMismatch, NoPossibleClass, some
from softlabels.labels.bernoulli import no_common_outcome
from softlabels.labels.ensemble import no_common_class
from softlabels.labels.soft import SoftLabels
from softlabels.models.product import output_matrix
from softlabels.student.fused import Blocks, block_positions, linear_distillation_loss, parts, require_outputs
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, weighted_sum

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch

LOGITS_ALONE = "let its forward return the logits (rows, classes) alone, in training as in evaluation mode"
Block = tuple[Tensor, Tensor, SoftLabels | None]  # logits (n, C), labels (n, ...), the teacher's


@dataclass(frozen=True)
class StudentOutputs:
    """A model's outputs for N positions.

    Attributes:
        states: (N, V) logits, or (N, d) hidden states where there is a matrix.
        matrix: (V, d), or None.
        bias: (V,), or None.
    """

    states: Tensor
    matrix: Tensor | None = None
    bias: Tensor | None = None

    @property
    def width(self) -> int:
        """V."""
        return self.states.shape[-1] if self.matrix is None else len(self.matrix)

    def logits(self, classes: int, where: slice | Tensor = slice(None)) -> Tensor:
        """Logits (n, C) of the positions `where`.

        Raises:
            ClassMismatch: fewer outputs than classes.
        """
        require_outputs(self.width, classes)
        states = self.states[where]
        if self.matrix is None:
            return states[:, :classes]
        with torch.autocast(states.device.type, enabled=False):
            logits = (states @ self.matrix[:classes].to(states.dtype).t()).float()
            return logits if self.bias is None else logits + self.bias[:classes]


def answers_of(
    model: nn.Module, batch: Batch, outputs: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> dict[str, StudentOutputs]:
    """What `model` says of each target of a batch, which it may change, by the output that `outputs` names for it; "" is a
    tensor alone. Products with its output matrix are taken in `dtype`.

    Raises:
        ClassMismatch: outputs that are not (B, ...), or of rows of positions (B, P, ...); an output that the model lacks, or
            one tensor for several targets.
    """
    matrix, inputs = output_matrix(model), batch.inputs.clone()  # other students get the same batch
    if matrix is None:
        found = by_target(model(inputs), outputs)
        return {name: StudentOutputs(_flat(each, batch, name)) for name, each in found.items()}
    [(name, hidden)] = by_target(model.hidden(inputs), outputs).items()  # type: ignore[operator]
    states = _flat(hidden, batch, name)
    return {name: StudentOutputs(states if dtype == torch.float32 else states.to(dtype), *matrix)}


def by_target(found: object, outputs: Mapping[str, str]) -> dict[str, object]:
    """What a model gives, by target; see `answers_of`."""
    if {*outputs} == {""}:
        return {"": found}
    if isinstance(found, Tensor) and len(outputs) == 1:
        [(name, output)] = outputs.items()
        if output == name:
            return {name: found}
        raise ClassMismatch(
            f"the model gives one tensor, and target {name} is to meet its output {output!r}",
            remedy=f"drop training.targets.{name}.output, or let its forward return a mapping of tensors by name",
        )
    if isinstance(found, Tensor):
        raise ClassMismatch(
            f"the model gives one tensor, and is taught {some(outputs)}",
            remedy="let its forward return a mapping of tensors by name, or leave all targets but one out (training.targets: "
            "{NAME: {weight: 0}})",
        )
    if not isinstance(found, Mapping):
        raise ClassMismatch(
            f"the model gives {type(found).__name__}", remedy="let its forward return a mapping of tensors by name"
        )
    for name, output in outputs.items():
        if output not in found:
            raise ClassMismatch(
                f"the model has no output {output!r} for target {name}, its outputs are {some(found)}",
                remedy=f"let its forward return it, name another (training.targets: {{{name}: {{output: NAME}}}}), or leave "
                "the target out (weight: 0)",
            )
    return {name: found[output] for name, output in outputs.items()}


def require_student_logits(logits: Tensor, *, who: str, total: int = FEWEST) -> None:
    """Raise `LogitsError` where the first 16 of logits (n, V) look like probabilities; `total`: distributions in all, where
    that may be fewer than it takes to decide.
    """
    first = logits[:BLOCK].detach().float().cpu().numpy()
    remedy = "leave out the softmax at its end: every loss takes the softmax itself, of logits or of log-probabilities"
    require_logits(are_probabilities(first)[:, None], total=total, who=who, remedy=remedy)


def _flat(found: object, batch: Batch, name: str = "") -> Tensor:
    """(N, ...) of a model's (B, [P,] ...)."""
    of = f" for target {name}" if name else ""
    if not isinstance(found, Tensor) or (batch.mask is None and (found.dim() != 2 or len(found) != len(batch.inputs))):
        what = f"outputs of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        remedy = "give (rows, outputs) for each target" if name else LOGITS_ALONE
        raise ClassMismatch(f"the model gives {what}{of} for a batch of {len(batch.inputs)} rows", remedy=remedy)
    if batch.mask is None:
        return found
    if found.dim() != 3 or found.shape[:2] != batch.mask.shape:
        raise ClassMismatch(
            f"the model's output{of} for {len(batch)} rows of {batch.mask.shape[1]} positions has shape {tuple(found.shape)}",
            remedy="use a model that gives logits (or values) of every position, (rows, positions, outputs); of tokens those "
            "of the next token",
        )
    return found.flatten(0, 1)


@contextmanager
def naming_row(batch: Batch, mean: str) -> Iterator[None]:
    """Let the `NoPossibleClass` of a batch's labels, of which no mean of this name exists, name the row."""
    try:
        yield
    except NoPossibleClass:
        assert batch.soft is not None
        for at in range(len(batch.soft)):
            one, none = batch.soft[at : at + 1], no_common_class
            try:
                if one.target == "softmax":
                    one.log_probs(one.near_1, mean)
                else:
                    none = no_common_outcome
                    one.logits(one.near_1, mean)
            except NoPossibleClass:
                raise none(f"row {batch.rows[at * len(batch) // len(batch.soft)]}") from None
        raise


def labels_of(batch: Batch) -> Tensor:
    """The hard labels (N, ...) of a batch's positions, one row after the other."""
    return batch.labels if batch.mask is None else batch.labels.flatten(0, 1)


def classes_of(outputs: StudentOutputs, batch: Batch) -> int:
    """C: that of the batch's label space where it is known, else as many as the model has outputs."""
    return outputs.width if batch.classes is None else batch.classes


def batch_loss(
    outputs: StudentOutputs, batch: Batch, spec: LossSpec, *, positions: int | None = None, labelled: int | None = None
) -> Tensor:
    """`losses.distillation_loss` over the positions that count."""
    labels, soft = labels_of(batch), batch.soft if spec.soft_weight > 0 else None
    valid, classes = None if batch.mask is None else batch.mask.flatten(), classes_of(outputs, batch)
    if outputs.matrix is not None and not LOSSES[spec.loss].whole_batch and spec.class_weights is None:
        return linear_distillation_loss(
            outputs.states, outputs.matrix, outputs.bias, soft, labels, spec,
            classes=classes, valid=valid, positions=positions, labelled=labelled,
        )  # fmt: skip
    logits = outputs.logits(classes)
    if valid is not None and not bool(valid.all()):
        logits, soft, labels = logits[valid], None if soft is None else soft[valid], labels[valid]
    return weighted_sum(logits, soft, labels, spec.per_position(labels, positions=positions, labelled=labelled))


def blocks(outputs: StudentOutputs, batch: Batch, *, whole: bool = False) -> Iterator[Block]:
    """The positions that count: a batch of rows at once, positions in blocks of bounded memory; `whole`: all at once."""
    classes = classes_of(outputs, batch)
    whole = whole or (batch.mask is None and outputs.matrix is None)
    for where, part in counted_blocks(batch, classes, whole=whole):
        yield outputs.logits(classes, where), part.labels, part.soft


def counted_blocks(batch: Batch, classes: int, *, whole: bool = False) -> Blocks:
    """Where blocks of positions that count stand among all N of a batch, and what is known of them."""
    labels = labels_of(batch)
    counted = None if batch.mask is None else batch.mask.flatten().nonzero()[:, 0]
    step = max(1, len(labels)) if whole else block_positions(classes, labels.device)
    return parts(batch.soft, labels, counted, step)
