"""Which models' logits are made as a product."""

from __future__ import annotations

import torch
from torch import nn

from softlabels.models.product import output_matrix
from tests.teacher.models import OnlyForward, TinyLM


class Tied(nn.Linear):
    """Has a matrix to offer and no hidden states."""

    def output_matrix(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight, self.bias


def test_a_model_with_hidden_states_and_a_matrix() -> None:
    model = TinyLM()
    found = output_matrix(model)
    assert found is not None
    assert found[0] is model.out.weight
    assert found[1] is model.out.bias
    for other in (OnlyForward(), nn.Linear(2, 3), Tied(2, 3)):
        assert output_matrix(other) is None
