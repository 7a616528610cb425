"""The second derivative H of a position's own loss at the student's outputs, as a factor F with F F^T = H: what Gauss-Newton
needs of a loss. H is positive semidefinite: the negative eigenvalues of a loss that is not convex in the logits (reverse_kl,
dkd) are taken for 0.

Of a row with up to 64 outputs (positions times classes) every column of F is taken. Of more, K random columns F e, the signs e
of all positions drawn at once, whose squares have the right mean. Of more than 64 classes H is not made: it is the Fisher
information of softmax, whose columns are sqrt(w) (one-hot of a drawn class - p), for the losses that have it (Martens 2020,
arXiv 1412.1193).

B rows, P positions (1 where rows have none), C classes, N = B * P, K columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.student.hard_labels import is_labelled
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, weighted_sum
from softlabels.student.outputs import labels_of

if TYPE_CHECKING:
    from softlabels.labels.soft import SoftLabels
    from softlabels.stream.batch import Batch

MOST, DRAWS = 64, 16  # outputs of a row of which every column is taken; columns that are drawn of more
_FISHER = ("forward_kl", "soft_ce")


def row_columns(outputs: Tensor, batch: Batch, spec: LossSpec, draw: torch.Generator) -> Tensor:
    """Columns (B, K, [P,] C) of the factor of each row of a batch of one target.

    Args:
        outputs: (B, [P,] C) of the student.
        spec: the loss, with the weights of one position (`LossSpec.per_position`).
        draw: where random columns come from.

    Raises:
        ConfigError: a loss over batches, of standardised logits, or one without a known factor for so many classes.
    """
    if LOSSES[spec.loss].whole_batch and spec.soft_weight > 0:
        raise ConfigError(
            f"the loss {spec.loss} correlates over a batch, and no position has a second derivative of its own",
            remedy="use --rule=magnitude, or a loss that is a sum over rows, such as forward_kl",
        )
    if spec.logit_standardization and spec.soft_weight > 0:  # whose gradient is written out, once
        raise ConfigError(
            "second derivatives are not taken through logit_standardization",
            remedy="use --rule=magnitude, or retrain with logit_standardization=false",
        )
    rows, classes = len(outputs), outputs.shape[-1]
    flat, labels = outputs.detach().reshape(-1, classes), labels_of(batch)
    counts = torch.ones(len(flat), dtype=torch.bool, device=flat.device) if batch.mask is None else batch.mask.flatten()
    soft = batch.soft[counts] if batch.soft is not None and spec.soft_weight > 0 else None
    if classes > MOST:
        found = flat.new_zeros(DRAWS, *flat.shape)
        found[:, counts] = _drawn_classes(flat[counts], labels[counts], spec, draw) / math.sqrt(DRAWS)
        return found.view(DRAWS, *outputs.shape).transpose(0, 1)
    factor = flat.new_zeros(*flat.shape, classes)
    factor[counts] = factor_of(hessian(flat[counts], soft, labels[counts], spec))
    of_rows = factor.view(rows, -1, classes, classes)  # (B, P, C, C)
    places = of_rows.shape[1]
    if places * classes <= MOST:
        every = of_rows.new_zeros(rows, places, classes, places, classes)
        every[:, range(places), :, range(places)] = of_rows.permute(1, 0, 3, 2)
        return every.view(rows, places * classes, *outputs.shape[1:])
    signs = torch.randint(2, (rows, DRAWS, places, classes), generator=draw).to(of_rows) * 2 - 1
    drawn = torch.einsum("bpck,bnpk->bnpc", of_rows, signs)
    return drawn.reshape(rows, DRAWS, *outputs.shape[1:]) / math.sqrt(DRAWS)


def hessian(outputs: Tensor, soft: SoftLabels | None, labels: Tensor, spec: LossSpec) -> Tensor:
    """(N, C, C): second derivatives of the loss of each of N positions by its own outputs, by differentiating twice."""
    moved = outputs.detach().requires_grad_()
    with torch.enable_grad():
        [slope] = torch.autograd.grad(weighted_sum(moved, soft, labels, spec), moved, create_graph=True)
        if not slope.requires_grad:  # a loss that is linear here
            return slope.new_zeros(*slope.shape, slope.shape[1])
        columns = [
            torch.autograd.grad(slope[:, c].sum(), moved, retain_graph=True, materialize_grads=True)[0]
            for c in range(slope.shape[1])
        ]
    return torch.stack(columns, dim=2)


def factor_of(matrices: Tensor) -> Tensor:
    """F (N, C, C) with F F^T the part of symmetric matrices that is positive semidefinite."""
    wide = matrices.double()
    values, vectors = torch.linalg.eigh((wide + wide.mT) / 2)
    factor: Tensor = vectors * values.clamp(min=0).sqrt()[:, None]
    return factor.to(matrices.dtype)


def _drawn_classes(outputs: Tensor, labels: Tensor, spec: LossSpec, draw: torch.Generator) -> Tensor:
    """(K, N, C) columns of the Fisher information: independent and of mean 0, so those of both terms are added."""
    is_known = spec.target == "softmax" and (spec.soft_weight == 0 or spec.loss in _FISHER)
    if not is_known or spec.class_weights is not None:
        raise ConfigError(
            f"{outputs.shape[1]} outputs are too many for the second derivatives of this loss ({spec.loss}), which are taken "
            f"of up to {MOST}",
            remedy=f"use --rule=magnitude, or loss={' or '.join(_FISHER)} without class_weights",
        )
    hard = spec.hard_weight * is_labelled(labels, "softmax").to(outputs)
    terms = [(hard, 1.0), (torch.full_like(hard, spec.soft_weight), spec.temperature)]
    found = outputs.new_zeros(DRAWS, *outputs.shape)
    for weight, temperature in terms:
        shares = (outputs / temperature).softmax(dim=1)
        drawn = torch.multinomial(shares.cpu(), DRAWS, replacement=True, generator=draw).to(outputs.device)
        found += weight.sqrt()[:, None] * (torch.nn.functional.one_hot(drawn.t(), outputs.shape[1]) - shares)
    return found
