"""The distillation loss from a model's hidden states and output matrix, without its logits ever being held: positions are
taken in blocks, and of each block logits, loss and gradients are computed at once and dropped before the next.

The dense way holds several arrays of positions x classes (logits, log-probabilities, the teacher's, gradients), which for
4,096 positions and 131,072 classes are 2 GiB each. Here gradients are made in the forward pass, which has everything at
hand; the backward pass scales them. Neighbours: `fused_terms` computes the loss of a block, `losses` says what the loss is.

N positions, d hidden width, V outputs of the model, C <= V classes (outputs beyond C pad a vocabulary and do not count).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softlabels.errors import ClassMismatch
from softlabels.labels.aligned import aligned_product
from softlabels.labels.soft import SoftLabels
from softlabels.labels.targets import Target
from softlabels.student.fused_terms import BlockTerm, Part, block_term
from softlabels.student.hard_labels import check_labels
from softlabels.student.loss_spec import LossSpec

# Float32 logits of a block: on a CPU as many as its cache bears, but enough positions to be worth reading the matrix for.
CPU_BYTES, CPU_POSITIONS = 1 << 22, 64
DEVICE_BYTES = 1 << 28
# Products are taken of four such blocks at once, the loss of half of one: it holds some arrays, a product holds one.
TOGETHER, PIECES = 4, 8
Blocks = Iterator[tuple[slice | Tensor, Part]]
Gradients = list[Tensor | None]


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
    """`losses.distillation_loss` of the logits hidden @ weight[:C].T + bias[:C], with its options in `spec` and its errors.

    Products are taken in the dtype of `hidden`; a `weight` of another dtype is cast to it once. Everything else, and the sums
    of gradients over blocks, is in float32 (forward_kl, soft_ce of float64 in float64). Gradients of outputs beyond C are 0.

    Args:
        hidden, weight, bias: (N, d), (V, d) and (V,) or None, any float dtype. soft, labels: those of the N positions.
        classes: C.
        valid: (N,) bool, the positions that count; None for all.
        positions, labelled: for a micro-batch, how many positions of the whole batch count, and how many have a label.
        block_bytes: size of the float32 logits of a block of positions; by default 16 MiB or 256 positions on a CPU, 1 GiB
            elsewhere. Memory beyond the arguments and their gradients is about half as much again.

    Returns:
        Scalar float32, float64 for float64 states.

    Raises:
        ConfigError: also for a loss that is not a sum over positions (dist).
        ClassMismatch: also for fewer outputs than classes.

    Example:
        >>> from softlabels.student.fused import linear_distillation_loss
        >>> from softlabels.student.loss_spec import LossSpec
        >>> batch = next(Loader(EmbeddedRows(store), store, batch_size=50, seed=0).epoch(0))
        >>> head = torch.nn.Linear(6, 5)
        >>> spec = LossSpec(temperature=4.0, hard_weight=0.1, soft_weight=0.9)
        >>> linear_distillation_loss(batch.inputs, head.weight, head.bias, batch.soft, batch.labels, spec, classes=5).backward()
    """
    soft = soft if spec.soft_weight > 0 else None
    _check_shapes(hidden, weight, bias, soft, labels, classes, spec.target)
    if spec.target == "softmax":  # other labels are checked by the block
        check_labels(labels, classes)
    counted = None if valid is None or bool(valid.all()) else valid.nonzero()[:, 0]
    own = labels if counted is None else labels[counted]
    impossible = bias is not None and bool(torch.isneginf(bias[:classes]).any())
    term = block_term(spec.per_position(own, positions=positions, labelled=labelled), soft, impossible=impossible)
    step = _positions(classes, hidden.device, block_bytes)
    blocks = parts(soft, labels, counted, step)
    wants = tuple(torch.is_grad_enabled() and t is not None and t.requires_grad for t in (hidden, weight, bias))
    run = partial(_pass, classes=classes, term=term, blocks=blocks, piece=-(-step // PIECES), wants=wants)
    total: Tensor = _LinearLoss.apply(hidden, weight, bias, run)  # type: ignore[no-untyped-call]
    return total


def block_positions(classes: int, device: torch.device) -> int:
    """How many positions of `classes` float32 logits make a block."""
    if device.type == "cpu":
        return max(CPU_POSITIONS, CPU_BYTES // (4 * classes))
    return max(1, DEVICE_BYTES // (4 * classes))


def _positions(classes: int, device: torch.device, block_bytes: int | None) -> int:
    """Of how many positions the fused loss takes products at once."""
    return TOGETHER * block_positions(classes, device) if block_bytes is None else max(1, block_bytes // (4 * classes))


def parts(soft: SoftLabels | None, labels: Tensor, counted: Tensor | None, step: int) -> Blocks:
    """Where each block of `step` positions of those that are `counted` (numbers; None for all) stands, and what is known."""
    for start in range(0, len(labels if counted is None else counted), step):
        where = slice(start, start + step) if counted is None else counted[start : start + step]
        yield where, Part(None if soft is None else soft[where], labels[where])


def require_outputs(outputs: int, classes: int) -> None:
    """Raise ClassMismatch where a model has fewer outputs than there are classes."""
    if outputs < classes:
        raise ClassMismatch(
            f"the model has {outputs} outputs, and there are {classes} classes",
            remedy="give the model as many outputs as the label space has classes, or more",
        )


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, run: Callable[..., tuple[Tensor, Gradients]]
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            total, gradients = run(hidden, weight, bias)
        ctx.gradients, ctx.dtypes = gradients, [None if t is None else t.dtype for t in (hidden, weight, bias)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were requested twice; they are kept for one backward pass")
        found = (None if g is None else g.mul_(scale).to(t) for g, t in zip(gradients, ctx.dtypes, strict=True))
        return *found, None


def _pass(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    classes: int,
    term: BlockTerm,
    blocks: Blocks,
    piece: int,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Gradients]:
    """The loss, and its gradients at hidden states, matrix and bias where they are wanted; `piece` positions of a block are
    compared at once.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    matrix = weight[:classes].to(hidden.dtype)
    offset = None if bias is None else bias[:classes].to(wide)
    # float16 holds no gradients that the loss was not scaled for, and scaling comes later
    narrow = wide if hidden.dtype == torch.float16 else hidden.dtype
    of_hidden, of_weight, of_bias = gradients = [
        torch.zeros_like(each, dtype=wide) if wanted and each is not None else None
        for each, wanted in zip((hidden, weight, bias), wants, strict=True)
    ]
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for where, part in blocks:
        states = hidden[where]
        logits = aligned_product(states, matrix.t()).to(wide)
        logits = logits if offset is None else logits.add_(offset)
        total += _overwritten_by_slope(logits, part, piece, term, any(wants))
        if not any(wants):
            continue
        if of_bias is not None:
            of_bias[:classes] += logits.sum(dim=0)
        slope = logits.to(narrow)
        if of_hidden is not None:
            of_hidden[where] = (slope @ matrix.to(narrow)).to(wide)
        if of_weight is not None:
            right, total_of = states.to(narrow), of_weight[:classes]
            if narrow == wide:
                total_of.addmm_(slope.t(), right)  # without a temporary of the matrix's size
            else:
                total_of += slope.t() @ right
        del logits, slope  # before the next ones are made
    return total.to(wide), gradients


def _overwritten_by_slope(logits: Tensor, part: Part, piece: int, term: BlockTerm, wants: bool) -> Tensor:
    """A block's share in the loss, float64; where it is wanted, the gradient at the logits (n, C) stands in their place."""
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for where, few in parts(part.soft, part.labels, None, piece):
        value, slope, factor = term(logits[where].contiguous(), few, wants)
        total += value
        if slope is not None:
            torch.mul(slope, factor, out=logits[where])
        elif wants:
            logits[where] = 0.0
    return total


def _check_shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    soft: SoftLabels | None,
    labels: Tensor,
    classes: int,
    target: Target,
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
    require_outputs(len(weight), classes)
    stored = (len(hidden), classes) if soft is None else (len(soft), soft.classes)
    if (labels.shape if target == "softmax" else labels.shape[:1]) != hidden.shape[:1] or stored != (
        len(hidden),
        classes,
    ):
        raise ClassMismatch(
            f"{len(hidden)} positions of {classes} classes have labels of shape {tuple(labels.shape)} and soft labels of "
            f"(positions, classes) = {stored}",
            remedy="hand over labels of the same positions",
        )
