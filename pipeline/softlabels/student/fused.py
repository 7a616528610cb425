"""The distillation loss from a model's hidden states and output matrix, without its logits ever being held: positions are
taken in blocks, and of each block logits, loss and gradients are computed at once and dropped before the next.

The dense way holds several arrays of positions x classes (logits, log-probabilities, the teacher's, gradients), which for
4,096 positions and 131,072 classes are 2 GiB each. Here gradients are made in the forward pass, which has everything at
hand; the backward pass scales them. Neighbours: `fused_terms` computes the loss of a block, `losses` says what the loss is.

N positions, d hidden width, V outputs of the model, C <= V classes (outputs beyond C pad a vocabulary and do not count).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softlabels.errors import ClassMismatch
from softlabels.labels.soft import SoftLabels
from softlabels.student.fused_terms import BlockTerm, Part, block_term
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import check_labels

# Float32 logits of a block: on a CPU as many as its cache bears, but enough positions to be worth reading the matrix for.
CPU_BYTES, CPU_POSITIONS = 1 << 22, 64
DEVICE_BYTES = 1 << 28


def linear_distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    soft: SoftLabels | None,
    labels: Tensor,
    spec: LossSpec,
    *,
    classes: int,
    valid: Tensor | None = None,
    positions: int | None = None,
    labelled: int | None = None,
    block_bytes: int | None = None,
) -> Tensor:
    """`losses.distillation_loss`, with its options in `spec` and its errors, of the logits hidden @ weight[:C].T + bias[:C].

    Products are taken in the dtype of `hidden`, to which `weight` is cast once where it has another; all else, and the sums
    of gradients over blocks, in float32 (float64 for float64). Gradients of outputs beyond C are 0.

    Args:
        hidden, weight, bias: (N, d), (V, d) and (V,) or None, any float dtype. soft, labels: of the N positions.
        classes: C.
        valid: (N,) bool, the positions that count; None for all.
        positions, labelled: of the whole batch, where this is a micro-batch, how many count, and how many have a label.
        block_bytes: float32 logits of a block of positions; by default what suits the device, 4 MiB or 64 positions on a CPU,
            256 MiB elsewhere. Memory beyond the arguments and their gradients is some 4 to 6 times as much.

    Returns:
        Scalar float32, float64 for float64 states.

    Raises:
        ConfigError: also for a loss that is no sum over positions (dist).
        ClassMismatch: also for fewer outputs than classes.
    """
    soft = soft if spec.soft_weight > 0 else None
    _check_shapes(hidden, weight, bias, soft, labels, classes)
    check_labels(labels, classes)
    counted = None if valid is None or bool(valid.all()) else valid.nonzero()[:, 0]
    own = labels if counted is None else labels[counted]
    term = block_term(
        spec.per_position(own, positions=positions, labelled=labelled),
        has_soft=soft is not None,
        impossible=bias is not None and bool(torch.isneginf(bias[:classes]).any()),
    )
    step = block_positions(classes, hidden.device, block_bytes)
    return _Work(term, soft, labels, counted, classes, step).loss(hidden, weight, bias)


def block_positions(classes: int, device: torch.device, block_bytes: int | None = None) -> int:
    """How many positions of `classes` float32 logits make a block."""
    if block_bytes is None and device.type == "cpu":
        return max(CPU_POSITIONS, CPU_BYTES // (4 * classes))
    return max(1, (block_bytes or DEVICE_BYTES) // (4 * classes))


@dataclass(frozen=True)
class _Work:
    """What the blocks are made of: the arguments of `linear_distillation_loss`, and positions a block (`step`)."""

    term: BlockTerm
    soft: SoftLabels | None
    labels: Tensor
    counted: Tensor | None
    classes: int
    step: int

    def loss(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The loss, with gradients for those that want one."""
        wants = tuple(torch.is_grad_enabled() and t is not None and t.requires_grad for t in (hidden, weight, bias))
        total: Tensor = _LinearLoss.apply(hidden, weight, bias, self, wants)  # type: ignore[no-untyped-call]
        return total

    def parts(self) -> Iterator[tuple[slice | Tensor, Part]]:
        """Where each block's positions stand, and what is known of them."""
        total = len(self.labels) if self.counted is None else len(self.counted)
        for start in range(0, total, self.step):
            end = start + self.step
            where = slice(start, end) if self.counted is None else self.counted[start:end]
            yield where, Part(None if self.soft is None else self.soft[where], self.labels[where])


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work, wants: tuple[bool, bool, bool]
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            total, gradients = _pass(hidden, weight, bias, work, wants)
        ctx.gradients, ctx.dtypes = gradients, [None if t is None else t.dtype for t in (hidden, weight, bias)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were asked for twice; they are kept for one backward pass")
        found = (None if g is None else g.mul_(scale).to(t) for g, t in zip(gradients, ctx.dtypes, strict=True))
        return *found, None, None


def _pass(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work, wants: tuple[bool, bool, bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss, and its gradients at hidden states, matrix and bias where they are wanted."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    matrix = weight[: work.classes].to(hidden.dtype)
    offset = None if bias is None else bias[: work.classes].to(wide)
    # float16 holds no gradients that the loss was not scaled for, and scaling comes later
    narrow = wide if hidden.dtype == torch.float16 else hidden.dtype
    of_hidden, of_weight, of_bias = gradients = [
        torch.zeros_like(each, dtype=wide) if wanted and each is not None else None
        for each, wanted in zip((hidden, weight, bias), wants, strict=True)
    ]
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for where, part in work.parts():
        states = hidden[where]
        value, slope, factor = work.term(_logits_of(states, matrix, offset, wide), part, any(wants))
        total += value
        if slope is None:
            continue
        if of_bias is not None:
            of_bias[: work.classes] += slope.t() @ factor[:, 0]
        slope = slope.to(narrow)
        if of_hidden is not None:
            of_hidden[where] = (slope @ matrix.to(narrow)).to(wide).mul_(factor)
        if of_weight is not None:
            _add_product(of_weight[: work.classes], slope.t(), states.to(wide).mul(factor).to(narrow))
    return total.to(wide), gradients


def _logits_of(states: Tensor, matrix: Tensor, offset: Tensor | None, wide: torch.dtype) -> Tensor:
    """(n, C) in `wide`."""
    if offset is not None and states.dtype == wide:
        return torch.addmm(offset, states, matrix.t())
    logits = (states @ matrix.t()).to(wide)
    return logits if offset is None else logits.add_(offset)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a temporary where dtypes agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _check_shapes(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, soft: SoftLabels | None, labels: Tensor, classes: int
) -> None:
    """Raise ClassMismatch where the arguments do not fit each other."""
    fits = hidden.dim() == 2 and weight.dim() == 2 and hidden.shape[1] == weight.shape[1]
    if not (fits and hidden.is_floating_point() and weight.is_floating_point()):
        raise ClassMismatch(
            f"hidden states {hidden.dtype} {tuple(hidden.shape)} and output matrix {weight.dtype} {tuple(weight.shape)} do "
            "not fit",
            remedy="give float states (positions, width) and a matrix (outputs, width)",
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ClassMismatch(
            f"the bias has shape {tuple(bias.shape)} for {len(weight)} outputs",
            remedy="give one number an output, or None",
        )
    if len(weight) < classes:
        raise ClassMismatch(
            f"the model has {len(weight)} outputs, and there are {classes} classes",
            remedy="give the model as many outputs as the label space has classes, or more",
        )
    stored = (len(hidden), classes) if soft is None else (len(soft), soft.classes)
    if labels.shape != hidden.shape[:1] or stored != (len(hidden), classes):
        raise ClassMismatch(
            f"{len(hidden)} positions of {classes} classes have labels of shape {tuple(labels.shape)} and soft labels of "
            f"(positions, classes) = {stored}",
            remedy="hand over labels of the same positions",
        )
