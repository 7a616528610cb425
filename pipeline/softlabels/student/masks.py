"""Which weights of a model are left, while it is trained: the others are 0 before and after every step, whatever the optimizer,
its weight decay and its momentum would do with them.

Masks are chosen by `saliency` and `units`; a checkpoint holds them with all else that a learner has come to.
"""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from softlabels.system.local import LocalFolder

FILE = "masks.safetensors"


class Masks:
    """The masks of a model's weights.

    Attributes:
        left: bool tensors by the names of parameters, True for the weights that are left; a parameter without one is whole.
    """

    def __init__(self, left: Mapping[str, Tensor]) -> None:
        self.left = dict(left)

    @classmethod
    def whole(cls, model: nn.Module) -> Masks:
        """Nothing deleted: masks of the weights that may be (`prunable`)."""
        return cls({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()})

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set what is deleted to 0."""
        for weight, mask in self._of(model):
            weight.masked_fill_(~mask, 0)

    @torch.no_grad()
    def apply_to_gradients(self, model: nn.Module) -> None:
        """The same of the gradients: a norm to which they are clipped is that of the weights that are left."""
        for weight, mask in self._of(model):
            if weight.grad is not None:
                weight.grad.masked_fill_(~mask, 0)

    def count(self) -> int:
        """How many weights are deleted."""
        return sum(int((~mask).sum()) for mask in self.left.values())

    def state(self) -> dict[str, Tensor]:
        """As tensors that a checkpoint holds."""
        return {name: mask.cpu() for name, mask in self.left.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where `state` was taken."""
        self.left = dict(state)

    def _of(self, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        named = dict(model.named_parameters())
        return [(named[name], mask.to(named[name].device)) for name, mask in self.left.items()]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters whose weights may be deleted, by name: matrices and filters that are trained. Biases and the scales of
    norms are few, and stay; tied tensors have one name.
    """
    return {
        name: weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim >= 2 and weight.is_floating_point()
    }


def read_masks(home: LocalFolder, model: nn.Module) -> Masks:
    """The masks in a folder. Raises ValueError where they are not of such a model, OSError."""
    wanted = {name: mask.shape for name, mask in Masks.whole(model).left.items()}
    try:
        tensors = safetensors.torch.load(home.read(FILE))
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if {name: mask.shape for name, mask in tensors.items() if mask.dtype == torch.bool} != wanted:
        raise ValueError(f"the masks of {home.at().name} do not fit the student")
    return Masks(tensors)
