"""Hidden units that can be removed: those of a linear layer or a convolution whose outputs only one other layer reads, through
functions that keep units apart (ReLU, pooling, batch norm, flattening). Without them the network is smaller and says the same.

Which layer reads which units is found by running the model: one unit is made NaN, and wherever NaN arrives the unit was read.
Residual paths, layer norms and attention bring it to several layers, or to units of others: such layers stay whole.

U units, B rows, K columns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.build import build_model
from softlabels.models.config import ModelConfig
from softlabels.models.narrow import LAYERS, NORMS
from softlabels.student.masks import Masks

_CLOSE = 1e-4  # of the largest output: sums of fewer numbers are rounded otherwise


@dataclass(frozen=True)
class Chain:
    """A layer, and the one that reads its units; by the names of modules.

    Attributes:
        layer: what makes the units. norms: batch norms between. reader: the one layer that reads them.
        units: U. block: how many inputs of the reader are one unit's, one behind the other.
    """

    layer: str
    norms: tuple[str, ...]
    reader: str
    units: int
    block: int

    @property
    def weight(self) -> str:
        """The name of the weights out of the units."""
        return f"{self.reader}.weight"

    def along(self, products: Tensor) -> Tensor:
        """(B, K, U): the sums over the weights out of each unit of products (B, K, outputs, inputs, ...)."""
        by_input = products.sum(2).flatten(3).sum(-1) if products.ndim > 4 else products.sum(2)
        return by_input.reshape(*by_input.shape[:2], self.units, self.block).sum(-1)

    def inputs(self, left: Tensor) -> Tensor:
        """Which inputs of the reader are left, of units (U,) bool."""
        return left.repeat_interleave(self.block)

    def norms_of(self, model: nn.Module) -> Tensor:
        """(U,) the Euclidean norm of the weights into each unit: the control for their saliency."""
        weights = model.get_parameter(f"{self.layer}.weight").detach().flatten(1)
        return weights.double().square().sum(dim=1).sqrt()


def chains_of(model: nn.Module, inputs: Tensor) -> list[Chain]:
    """The layers of a model, asked with some rows of inputs, whose units can be removed.

    Raises:
        ConfigError: there are none.
    """
    modules = dict(model.eval().named_modules())
    owners = [id(weight) for module in modules.values() for weight in module._parameters.values() if weight is not None]
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, LAYERS)
        and getattr(module, "groups", 1) == 1
        and "weight" in module._parameters  # not made of others, as by weight_norm
        and all(owners.count(id(weight)) == 1 for weight in module.parameters())
    }
    found = [chain for name in layers if (chain := _chain(model, layers, name, inputs)) is not None]
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no layer whose hidden units only one other layer reads",
            remedy="use --structure=weight, or a model of linear layers and convolutions one behind the other",
        )
    return found


def units_masks(model: nn.Module, chains: Sequence[Chain], left: Sequence[Tensor]) -> Masks:
    """Masks of a model in which of each chain only the units (U,) bool are left: weights into the others and out of them are
    deleted.
    """
    masks = Masks.whole(model)
    for chain, units in zip(chains, left, strict=True):
        masks.left[f"{chain.layer}.weight"][~units] = False
        masks.left[chain.weight][:, ~chain.inputs(units)] = False
    return masks


def sizes_of(model: nn.Module, chains: Sequence[Chain], widths: Sequence[int]) -> dict[str, list[int]]:
    """The sizes of all layers that have others when each chain has so many units, as `narrowed` takes them."""
    found: dict[str, list[int]] = {}
    for chain, width in zip(chains, widths, strict=True):
        for name, place, size in ((chain.layer, 1, width), (chain.reader, 0, width * chain.block)):
            outputs, inputs = model.get_parameter(f"{name}.weight").shape[:2]
            found.setdefault(name, [inputs, outputs])[place] = size
        found |= {name: [width] for name in chain.norms}
    return found


def without_units(
    student: ModelConfig, model: nn.Module, chains: Sequence[Chain], left: Sequence[Tensor], rows: Tensor
) -> tuple[ModelConfig, nn.Module]:
    """The smaller network that says what the masked one says, and what makes it.

    Args:
        student: what made `model`. left: the units (U,) bool of each chain that are left. rows: inputs to compare them on.

    Raises:
        ConfigError: the smaller one says something else.
    """
    sizes = sizes_of(model, chains, [int(units.sum()) for units in left])
    small = ModelConfig(
        "softlabels.models.narrowed",
        {"model": student.class_path, "model_args": student.init_args, "sizes": sizes},
    )
    built, state = build_model(small), dict(model.state_dict())
    for chain, units in zip(chains, left, strict=True):
        for name in (chain.layer, *chain.norms):
            own = [key for key in state if key.rpartition(".")[0] == name and state[key].ndim]
            state |= {key: state[key][units] for key in own}
        state[chain.weight] = state[chain.weight][:, chain.inputs(units)]
    built.load_state_dict(state)
    _require_same(model, built, rows)
    return small, built


def require_smaller(student: ModelConfig, model: nn.Module, chains: Sequence[Chain], rows: Tensor) -> None:
    """Raise ConfigError where the model (`student` made it) cannot be had with a unit less in each chain of several."""
    masked = copy.deepcopy(model)
    left = [torch.arange(chain.units) >= min(1, chain.units - 1) for chain in chains]
    units_masks(masked, chains, left).apply(masked)
    without_units(student, masked, chains, left, rows)


def _require_same(model: nn.Module, small: nn.Module, rows: Tensor) -> None:
    how = f"without the deleted units {type(model).__name__}"
    remedy = "use --structure=weight: some of the model's code reads single units, or counts them"
    with torch.no_grad():
        try:
            pairs = zip(_tensors(model.eval()(rows.clone())), _tensors(small.eval()(rows.clone())), strict=True)
        except RuntimeError as error:
            raise ConfigError(f"{how} cannot run: {error}", remedy=remedy) from error
        apart = max(float((one - other).abs().max() / one.abs().max().clamp(min=1e-30)) for one, other in pairs)
    if not apart <= _CLOSE:
        raise ConfigError(f"{how} says something else: by {apart:.2g} of its largest output", remedy=remedy)


@dataclass
class _Seen:
    """Where NaN arrived: batch norms and layers by name, with the channels; how often modules were called."""

    norms: dict[str, list[int]] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)


def _chain(model: nn.Module, layers: Mapping[str, nn.Module], name: str, inputs: Tensor) -> Chain | None:
    units, found = model.get_parameter(f"{name}.weight").shape[0], None
    for unit in {0, units // 2, units - 1}:
        seen, is_clean = _probe(model, layers, name, unit, inputs)
        if not is_clean or len(seen.others) != 1:
            return None
        [(reader, channels)] = seen.others.items()
        is_once = all(seen.calls[each] == 1 for each in (name, reader, *seen.norms))
        if reader not in layers or not is_once or _reads_more(model, name, reader, inputs):
            return None
        block, rest = divmod(model.get_parameter(f"{reader}.weight").shape[1], units)
        is_apart = channels == list(range(unit * block, (unit + 1) * block))
        if rest or not is_apart or any(each != [unit] for each in seen.norms.values()):
            return None
        found = Chain(name, tuple(seen.norms), reader, units, block)
    return found


def _probe(
    model: nn.Module, layers: Mapping[str, nn.Module], name: str, unit: int, inputs: Tensor
) -> tuple[_Seen, bool]:
    """Where NaN in one unit of a layer arrives, up to the first layers that mix it with others; and whether all that came out
    of the model is free of it.
    """
    seen = _Seen()

    def spoil(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        seen.calls[name] = seen.calls.get(name, 0) + 1
        spoilt = output.clone()
        spoilt.movedim(_axis(module), 0)[unit] = float("nan")
        return spoilt

    def look(at: str, module: nn.Module, given: Any, output: Any) -> Any:
        seen.calls[at] = seen.calls.get(at, 0) + 1
        channels = _nan_channels(module, given[0]) if given and isinstance(given[0], Tensor) else []
        if not channels:
            return None
        if isinstance(module, NORMS):
            seen.norms[at] = channels
            return None
        seen.others[at] = channels
        return output.nan_to_num() if isinstance(output, Tensor) else None

    with ExitStack() as stack, torch.no_grad():
        for at, module in model.named_modules():
            if at == name:
                stack.enter_context(module.register_forward_hook(spoil))
            elif module._parameters or module._buffers:
                stack.enter_context(module.register_forward_hook(partial(look, at)))
        answers = _tensors(model(inputs.clone()))
    return seen, name in seen.calls and not any(bool(answer.isnan().any()) for answer in answers)


def _reads_more(model: nn.Module, name: str, reader: str, inputs: Tensor) -> bool:
    """Whether a layer reads more than the units of `name`, as behind a residual path: where those are the same for all rows,
    what it reads is not.
    """
    read: list[Tensor] = []
    modules = dict(model.named_modules())
    with (
        torch.no_grad(),
        modules[name].register_forward_hook(lambda module, given, output: torch.full_like(output, 0.5)),
        modules[reader].register_forward_pre_hook(lambda module, given: read.append(given[0])),
    ):
        model(inputs.clone())
    return not all(bool((each == each[:1]).all()) for each in read)


def _axis(module: nn.Module) -> int:
    """The axis of a layer's units: the last of a linear one, else that after the rows."""
    return -1 if isinstance(module, nn.Linear) else 1


def _nan_channels(module: nn.Module, given: Tensor) -> list[int]:
    axis = _axis(module)
    is_nan = given.isnan() if given.is_floating_point() else torch.zeros_like(given, dtype=torch.bool)
    if is_nan.ndim < 2:
        return [0] if bool(is_nan.any()) else []
    by_channel = is_nan.movedim(axis, 0).flatten(1).any(1)
    return [int(channel) for channel in by_channel.nonzero()[:, 0]]


def _tensors(answer: object) -> list[Tensor]:
    found = list(answer.values()) if isinstance(answer, Mapping) else [answer]
    return [each for each in found if isinstance(each, Tensor)]
