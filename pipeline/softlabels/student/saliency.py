"""How much the loss would rise without a weight, or without a hidden unit: the saliency of Optimal Brain Damage (LeCun, Denker,
Solla 1989): s_k = h_kk u_k^2 / 2, u_k being the weight and h_kk the second derivative of the loss by it.

h_kk is the diagonal of the Gauss-Newton matrix, which is never negative: the mean over positions of J^T H J, J the Jacobian of
the outputs and H the Hessian of the position's own loss at them (`curvature`). With H = F F^T it is the sum of the squared
gradients of the factor's columns, taken row by row, so it is exact: no sum over rows is squared, and no matrix of weights is
made.
A unit goes when all weights out of it go together; its saliency is the same quadratic form along these, (sum_k g_k u_k)^2 / 2.

B rows, P positions of a row (1 where rows have none), C classes (or values), K columns of the factor.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from softlabels.student.curvature import row_columns
from softlabels.student.heads import heads_of
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.masks import prunable
from softlabels.student.metrics import Batches
from softlabels.student.outputs import by_target
from softlabels.student.own_batch import OwnBatches
from softlabels.student.units import Chain

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch

_NUMBERS = 2**24  # of gradients held at once
Gradients = dict[str, Tensor]
Forward = Callable[[Gradients, Tensor], Tensor]


@dataclass
class Saliency:
    """The rise of the loss that is expected without a weight, or a unit.

    Attributes:
        weights: by the names of parameters, of their shape, float64.
        units: of each chain (units,) float64.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    units: list[Tensor] = field(default_factory=list)


def saliency(student: Student, batches: Batches, chains: Sequence[Chain] = (), *, device: torch.device) -> Saliency:
    """The saliencies of a student's weights (`masks.prunable`) for the loss that its training ends with, over these rows.

    Raises:
        ConfigError: a loss that is no sum over positions, or one of more outputs than its Hessian is taken of.
    """
    model = student.model.to(device).eval()
    weights, found = prunable(model), Saliency()
    found.weights = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    found.units = [torch.zeros(chain.units, dtype=torch.float64, device=device) for chain in chains]
    for gradients in _of_all(student, model, list(batches.epoch(0)), device):  # (B, K, ...) by name
        for name, gradient in gradients.items():
            found.weights[name] += gradient.square().sum((0, 1)).double()
        for number, chain in enumerate(chains):
            along = chain.along(gradients[chain.weight] * weights[chain.weight].detach())  # (B, K, units)
            found.units[number] += along.double().square().sum((0, 1)) / 2
    for name, weight in weights.items():
        found.weights[name] *= weight.detach().double().square() / 2
    return found


def _of_all(student: Student, model: nn.Module, batches: list[Batch], device: torch.device) -> Iterator[Gradients]:
    """Gradients (b, K, ...) of the columns of every row and target, a few rows at a time."""
    heads, draw = heads_of(student.config), torch.Generator().manual_seed(student.config.seed)
    specs = {name: _last(head.config.loss_at(1.0), head.config.class_weights, device) for name, head in heads.items()}
    view = OwnBatches(student.name, student.config, heads, labelled=student.labelled, device=device)
    own = [view.of(batch, batch.to(device), specs, step=0) for batch in batches]
    positions = sum(count for _, count, _ in own)
    for name, head in heads.items():
        labelled = sum(counts[name] for _, _, counts in own)
        spec = dataclasses.replace(
            specs[name],
            hard_weight=head.weight * specs[name].hard_weight / max(labelled, 1),
            soft_weight=head.weight * specs[name].soft_weight / max(positions, 1),
        )
        for batch, _, _ in own:
            forward = _forward(model, {name: head.output}, batch.only(name).classes)
            with torch.no_grad():
                outputs = forward({}, batch.inputs, whole=True)
            columns = row_columns(outputs, batch.only(name), spec, draw)
            yield from _gradients(forward, model, batch.inputs, columns)


def _last(spec: LossSpec, class_weights: object, device: torch.device) -> LossSpec:
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32, device=device)
    return dataclasses.replace(spec, class_weights=weights)


def _forward(model: nn.Module, output: Mapping[str, str], classes: int | None) -> Callable[..., Tensor]:
    """What the model says of a target, (C,) or (P, C) of one row, with these weights in place of its own."""
    [name] = output
    others = {name: weight.detach() for name, weight in model.named_parameters()}

    def forward(weights: Gradients, inputs: Tensor, *, whole: bool = False) -> Tensor:
        found = by_target(functional_call(model, others | weights, (inputs if whole else inputs[None],)), output)[name]
        assert isinstance(found, Tensor)
        return (found if whole else found[0])[..., :classes].float()

    return forward


def _gradients(forward: Forward, model: nn.Module, inputs: Tensor, columns: Tensor) -> Iterator[Gradients]:
    """Gradients (b, K, ...) of outputs along columns (B, K, [P,] C), by the names of weights."""
    weights: Gradients = {name: weight.detach() for name, weight in prunable(model).items()}

    def of_row(row: Tensor, along: Tensor) -> Gradients:
        back = vjp(lambda moved: forward(moved, row), weights)[1]
        found: Gradients = vmap(lambda column: back(column)[0])(along)
        return found

    size = max(1, _NUMBERS // (columns.shape[1] * sum(weight.numel() for weight in weights.values())))
    for start in range(0, len(inputs), size):
        part = slice(start, start + size)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")
                found = vmap(of_row)(inputs[part], columns[part])
            yield found
        except RuntimeError:  # the model has an operation that torch cannot take for rows apart, such as an LSTM
            for row, along in zip(inputs[part], columns[part], strict=True):
                yield _of_row(forward, weights, row, along)


def _of_row(forward: Forward, weights: Gradients, row: Tensor, along: Tensor) -> Gradients:
    """The same of one row by plain differentiation: (1, K, ...)."""
    moved = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    outputs = forward(moved, row)
    each = [
        torch.autograd.grad(outputs, list(moved.values()), column, retain_graph=True, materialize_grads=True)
        for column in along
    ]
    return {name: torch.stack(found)[None] for name, found in zip(moved, zip(*each, strict=True), strict=True)}
