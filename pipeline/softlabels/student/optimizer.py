"""What changes weights: optimizer and learning rate schedule from the specs in a `TrainingConfig`, and the norm limit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec, build
from softlabels.student.sharded import local

TOTAL_STEPS = "total_steps"
T = TypeVar("T")


def build_optimizer(spec: ObjectSpec, parameters: Iterable[Tensor]) -> Optimizer:
    """The optimizer that `spec` names, over `parameters`.

    Raises:
        ConfigError: it cannot be had, or its step needs the loss as a function (LBFGS).
    """
    optimizer = _build(Optimizer, spec, parameters)
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{spec.class_path} evaluates the loss several times a step, and the trainer computes it once",
            remedy="choose another optimizer, such as torch.optim.AdamW",
        )
    return optimizer


def build_scheduler(spec: ObjectSpec | None, optimizer: Optimizer, total_steps: int) -> LRScheduler | None:
    """The schedule that `spec` names, to be stepped once a step; an argument "total_steps" becomes that number.

    Raises:
        ConfigError: it cannot be had, or needs more than to be stepped.
    """
    if spec is None:
        return None
    counted = {key: total_steps if value == TOTAL_STEPS else value for key, value in spec.init_args.items()}
    scheduler = _build(LRScheduler, ObjectSpec(spec.class_path, counted), optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            "ReduceLROnPlateau follows a measured value, and schedules here are stepped once a step without one",
            remedy="choose another scheduler, such as torch.optim.lr_scheduler.CosineAnnealingLR",
        )
    return scheduler


@torch.no_grad()
def limit_norms(model: nn.Module, limit: float) -> None:
    """Scale down the incoming weights of every unit whose Euclidean norm is above `limit` (Hinton et al. 2012, arXiv
    1207.0580): the rows of weight matrices and the filters of convolutions; biases are left alone.
    """
    for weight in model.parameters():
        own = local(weight)  # cut between units
        if weight.ndim >= 2 and len(own):
            torch.renorm(own, 2, 0, limit, out=own)


def _build(kind: type[T], spec: ObjectSpec, *args: object) -> T:
    """Build `spec`, which must give a `kind`; what its constructor refuses becomes a ConfigError."""
    try:
        built = build(spec, *args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{spec.class_path} refuses {spec.init_args}: {error}", remedy="correct init_args") from error
    if not isinstance(built, kind):
        raise ConfigError(
            f"{spec.class_path} is no {kind.__name__}", remedy=f"name a {kind.__name__} of torch or your own"
        )
    return built
