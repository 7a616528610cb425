"""Models whose logits are a product of hidden states with a matrix, which need not be made for all positions at once."""

from __future__ import annotations

from torch import Tensor, nn

Matrix = tuple[Tensor, Tensor | None]  # weight (V, d), bias (V,)


def output_matrix(model: nn.Module) -> Matrix | None:
    """(W, b) with which logits are hidden @ W.T + b, of a model with the methods `hidden(inputs)` and `output_matrix()`; None
    where it lacks one of them or says that it has no such matrix (see `softlabels.models.causal_lm`).
    """
    if not (hasattr(model, "hidden") and hasattr(model, "output_matrix")):
        return None
    matrix: Matrix | None = model.output_matrix()  # type: ignore[operator]
    return matrix
