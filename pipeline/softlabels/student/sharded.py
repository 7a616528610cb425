"""A student whose weights lie in pieces, one on each rank (torch's FSDP2): those of a block are whole while it computes.

Blocks are the members of the student's lists of modules (`nn.ModuleList`, `nn.Sequential`), of lists within a list the
outermost. All else, such as the output matrix, is whole from the forward pass to the backward pass, so the fused loss stays.
Gradients are sums over the ranks, each of which keeps its piece of them and of the optimizer's state.

What is saved is whole, in the form that one process has, on rank 0; so ranks, and whether they hold pieces, may change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from softlabels.errors import ConfigError

REMEDY = "give training.shard=false, or change the student"
T = TypeVar("T")


class Sharded(nn.Module):
    """A step (`step.Step`) in pieces, to be asked by all ranks at once."""

    def __init__(self, step: nn.Module, device: str, world: int) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        super().__init__()
        mesh = init_device_mesh(device, (world,))
        for module in (*blocks_of(step), step):
            fully_shard(module, mesh=mesh)
        for module in step.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the loss is divided by the counts of all ranks
                module.set_force_sum_reduction_for_comms(True)  # else 1.0 is a product, which gloo lacks
        self._root = step

    def forward(self, act: Callable[[nn.Module], T]) -> T:
        """See `Step`. What needs the weights whole and takes no gradient is done within `act`."""
        found: T = self._root(act)
        if not torch.is_grad_enabled():
            cast(Any, self._root).reshard()  # else the next one would meet these weights
        return found


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """What is whole at a time. Raises ConfigError where a model cannot be held in pieces."""
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, nn.ModuleList | nn.Sequential) and next(child.parameters(), None) is not None:
                found.append(child)
            else:
                walk(child)

    walk(model)
    found = list(dict.fromkeys(found))
    if not found:
        raise ConfigError(
            "training.shard: the student has no nn.ModuleList or nn.Sequential, whose members would be gathered one at a time",
            remedy=REMEDY,
        )
    owners: dict[int, set[int]] = {}
    inside = {id(module): number for number, block in enumerate(found) for module in block.modules()}
    for name, module in model.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            if weight.ndim == 0:
                raise ConfigError(f"training.shard: {name}.{own} is a single number, not cut", remedy=REMEDY)
            owners.setdefault(id(weight), set()).add(inside.get(id(module), -1))
            if len(owners[id(weight)]) > 1:
                raise ConfigError(
                    f"training.shard: {name}.{own} is shared by blocks that are gathered apart", remedy=REMEDY
                )
    return found


def taken_from(model: nn.Module) -> nn.Module:
    """A copy of a model, which takes its weights over: they are empty in `model` until it is `filled`."""
    held = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    _empty(model, "meta")
    return held


def filled(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Give a model whose weights were taken these, on the CPU."""
    _empty(model, "cpu")
    model.load_state_dict(weights)
    return model


def whole(found: Any, *, keep: bool) -> Any:
    """What is `found` in mappings and lists, with whole tensors on the CPU where it has pieces; asked of all ranks, and given
    to those that `keep` it. A tensor that has two names stays one.
    """
    seen: dict[int, Tensor] = {}

    def of(each: Any) -> Any:
        if isinstance(each, Mapping):
            return {key: of(value) for key, value in each.items()}
        if isinstance(each, list | tuple):
            return type(each)(of(value) for value in each)
        if not hasattr(each, "full_tensor"):
            return each
        key = each.to_local().data_ptr() or id(each)
        gathered = each.full_tensor().detach()
        return seen.setdefault(key, gathered.cpu()) if keep else torch.empty(0)

    return of(found)


def pieces_of(
    state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, average: nn.Module | None, *, keep: bool
) -> dict[str, Any]:
    """Of a learner's whole state what a rank holds; `keep`: with the kept weights, which rank 0 alone needs."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    of_weights = {
        number: {name: _piece(value, weights[number], name) for name, value in own.items()}
        for number, own in state["optimizer"]["state"].items()
    }
    found = {
        **state,
        "model": _pieces(state["model"], model),
        "optimizer": {**state["optimizer"], "state": of_weights},
    }
    if average is not None:
        found["average"] = {**state["average"], "model": _pieces(state["average"]["model"], average)}
    if not keep and state["standing"]["kept_weights"] is not None:
        found["standing"] = {**state["standing"], "kept_weights": {}}
    return found


def require_alike(make: Callable[[list[Tensor]], Optimizer]) -> None:
    """Refuse an optimizer that keeps tensors of another shape than its weights, found by a step on a small one."""
    weight: Tensor = nn.Parameter(torch.ones(4, 3))
    optimizer = make([weight])
    weight.grad = torch.ones(4, 3)
    optimizer.step()
    for name, value in optimizer.state[weight].items():
        _require_alike(value, weight, f"{type(optimizer).__name__}'s {name}")


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _pieces(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    like = model.state_dict()
    return {name: _piece(tensor, like.get(name), name) for name, tensor in weights.items()}


def _piece(tensor: Any, like: Tensor | None, name: str) -> Any:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(tensor, Tensor):
        return tensor
    _require_alike(tensor, like, name)
    if tensor.ndim == 0:
        return tensor
    there = tensor.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)  # None: nothing is sent


def _require_alike(value: Any, weight: Tensor, name: str) -> None:
    if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
        raise ConfigError(
            f"training.shard: {name} has the shape {list(value.shape)}, its weight {list(weight.shape)}: it is not cut alike",
            remedy="choose an optimizer whose state has the shape of the weights, such as torch.optim.AdamW, or give "
            "training.shard=false",
        )


def _empty(model: nn.Module, device: str) -> None:
    """Put empty parameters in place of a model's; tied ones stay tied."""
    empty = {
        id(weight): nn.Parameter(torch.empty_like(weight, device=device), weight.requires_grad)
        for weight in model.parameters()
    }
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = empty[id(weight)]
