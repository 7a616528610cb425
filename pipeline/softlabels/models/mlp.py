"""A multi-layer perceptron over flattened inputs. B batch, F features, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.inputs import check_dtype


class MLP(nn.Module):
    """Linear layers with ReLU between them; dropout on the inputs and after each hidden layer.

    Args:
        inputs: F, the number of values of one flattened row.
        hidden: widths of the hidden layers; empty for a linear model.
        classes: C.
        dropout: probability after each hidden layer.
        input_dropout: probability on the inputs.

    Example:
        >>> from softlabels.models import MLP
        >>> MLP(inputs=64, hidden=[32], classes=10)(torch.zeros(2, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], classes: int, dropout: float = 0.0, input_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.inputs = inputs
        layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
        widths = [inputs, *hidden]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of inputs (B, ...) that hold F values a row, in the dtype of the weights.

        Raises:
            ConfigError: another dtype or another number of values.
        """
        check_dtype(inputs, expected=self.head.weight.dtype, model="MLP")
        rows_BF = inputs.flatten(1)
        if rows_BF.shape[1] != self.inputs:
            raise ConfigError(
                f"this MLP takes {self.inputs} values a row, a batch has {rows_BF.shape[1]}",
                remedy=f"write inputs: {rows_BF.shape[1]} in its init_args",
            )
        logits_BC: Tensor = self.head(self.layers(rows_BF))
        return logits_BC
