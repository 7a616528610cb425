"""What is deleted of a network in a round: the weights, or hidden units, with the least scores, whatever rule gave these
(`saliency`, or the magnitude that is its control). Equal scores go by their place, so the same scores delete the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.student.masks import Masks, prunable
from softlabels.student.units import Chain, sizes_of


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    """|u| of each weight that may be deleted: the control for its saliency."""
    return {name: weight.detach().abs() for name, weight in prunable(model).items()}


def count_of(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def require_share(model: nn.Module, chains: Sequence[Chain], keep: float) -> None:
    """Raise ConfigError where more than a share `keep` of all parameters stays whatever is deleted: of `chains` all units but
    one each, else single weights.
    """
    total, why = count_of(model), "are biases and the like, which stay"
    least = total - sum(weight.numel() for weight in prunable(model).values())
    if chains:
        least, why = _narrow(model, chains, [1] * len(chains)), "are left with one unit a layer"
    if least > keep * total:
        raise ConfigError(
            f"keep={keep:g} of {total:,} parameters, and {least:,} of them {why}",
            remedy=f"keep at least {least / total:.3f}",
        )


def least_weights(scores: Mapping[str, Tensor], masks: Masks, count: int) -> Masks:
    """The masks with `count` weights deleted: those that were, and of the others those with the least scores."""
    names = list(masks.left)
    flat = torch.cat([scores[name].double().flatten().cpu() for name in names])
    was_deleted = torch.cat([~masks.left[name].flatten().cpu() for name in names])
    order = flat.masked_fill(was_deleted, -1.0).argsort(stable=True)
    left = torch.ones_like(was_deleted)
    left[order[: max(count, int(was_deleted.sum()))]] = False
    parts = torch.split(left, [masks.left[name].numel() for name in names])
    return Masks({name: part.view_as(masks.left[name]) for name, part in zip(names, parts, strict=True)})


def widths(model: nn.Module, chains: Sequence[Chain], scores: Sequence[Sequence[Tensor]], keep: float) -> list[int]:
    """How many units of each chain are left so that at most a share `keep` of all parameters is: alike for all students of a
    run, so that one recipe makes them. Units are ranked by the mean over students of the scores at their rank in the chain,
    each student's in shares of its sum; one a layer stays.

    Args:
        scores: of each student, of each chain (units,), 0 for what was deleted before.
    """
    shares = [[each.double().cpu() / sum(float(one.sum()) for one in own) for each in own] for own in scores]
    profiles = [torch.stack(same).sort(dim=1).values.mean(0) for same in zip(*shares, strict=True)]
    order = sorted((float(score), number) for number, profile in enumerate(profiles) for score in profile[:-1])
    left, total = [chain.units for chain in chains], count_of(model)
    for _, number in order:
        if _narrow(model, chains, left) <= keep * total:
            return left
        left[number] -= 1
    return left


def best_units(scores: Sequence[Tensor], width: Sequence[int], before: Sequence[Tensor]) -> list[Tensor]:
    """Which units (U,) bool of each chain are left: of those that were before, the `width` with the largest scores."""
    found = []
    for each, count, was in zip(scores, width, before, strict=True):
        left = torch.zeros(len(each), dtype=torch.bool)
        left[each.double().cpu().masked_fill(~was, -1.0).argsort(descending=True, stable=True)[:count]] = True
        found.append(left)
    return found


def _narrow(model: nn.Module, chains: Sequence[Chain], left: Sequence[int]) -> int:
    """How many parameters a model has when so many units of each chain are left."""
    total = count_of(model)
    for name, size in sizes_of(model, chains, left).items():
        parameters = dict(model.get_submodule(name).named_parameters())
        before = sum(parameter.numel() for parameter in parameters.values())
        if len(size) == 1:
            total -= before - len(parameters) * size[0]
            continue
        outputs, inputs = size[1], size[0]
        kernel = parameters["weight"][0, 0].numel()
        total -= before - outputs * (inputs * kernel + ("bias" in parameters))
    return total
