"""Models whose logits are a product of hidden states with a matrix, which need not be made for all positions at once."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from softlabels.errors import WeightsError, some
from softlabels.models.weights import opened

Matrix = tuple[Tensor, Tensor | None]  # weight (V, d), bias (V,)


def output_matrix(model: nn.Module) -> Matrix | None:
    """(W, b) with which logits are hidden @ W.T + b, of a model with the methods `hidden(inputs)` and `output_matrix()`; None
    where it lacks one of them or says that it has no such matrix (see `softlabels.models.causal_lm`).
    """
    if not (hasattr(model, "hidden") and hasattr(model, "output_matrix")):
        return None
    matrix: Matrix | None = model.output_matrix()  # type: ignore[operator]
    return matrix


def read_matrix(path: Path, weight: str | None, bias: str | None) -> nn.Linear:
    """The output matrix of a language model, from a safetensors file: the tensor (V, d) `weight`, by default the only matrix of
    the file, and `bias` (V,), by default none.

    Raises:
        WeightsError: no such file or tensor, or one of another shape. StorageError: it cannot be read.
    """
    with opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        chosen = matrices[0] if weight is None and len(matrices) == 1 else weight
        if chosen not in matrices:
            what = f"no matrix {weight!r}" if weight is not None else f"{len(matrices)} matrices"
            raise WeightsError(
                f"{path} has {what} (matrices: {some(matrices) or 'none'})",
                remedy="name the tensor as output_weight, such as lm_head.weight; of a model that ties it to its embedding "
                "that one",
            )
        if bias is not None and shapes.get(bias) != shapes[chosen][:1]:
            has = f"is {list(shapes[bias])}" if bias in shapes else "is none of its tensors"
            raise WeightsError(
                f"{bias!r} of {path} {has}, and {chosen} is {list(shapes[chosen])}",
                remedy="name a tensor with one number an output as output_bias, or leave it out",
            )
        found = {"weight": file.get_tensor(chosen)} | ({} if bias is None else {"bias": file.get_tensor(bias)})
    if not all(tensor.is_floating_point() and tensor.isfinite().all() for tensor in found.values()):
        raise WeightsError(
            f"{path} has numbers that are no floats, or not finite", remedy="export the matrix as floats"
        )
    made = nn.Linear(1, 1, bias=bias is not None, device="meta")
    for name, tensor in found.items():
        setattr(made, name, nn.Parameter(tensor, requires_grad=False))
    return made
