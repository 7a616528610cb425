from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from softlabels.errors import ConfigError
from softlabels.models.build import answer_of
from softlabels.models.cnn import ConvNet
from softlabels.models.mlp import MLP
from softlabels.recipes.frame_net import FrameNet


def test_an_mlp_is_what_it_says(rng: np.random.Generator) -> None:
    model = MLP(12, [7, 5], 3)
    inputs = torch.from_numpy(rng.standard_normal((4, 3, 2, 2)).astype(np.float32))
    weights = [tensor.detach().double() for tensor in model.parameters()]
    values = inputs.reshape(4, 12).double()
    for matrix, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        values = (values @ matrix.T + bias).clamp(min=0)
    torch.testing.assert_close(model(inputs).double(), values @ weights[4].T + weights[5], rtol=1e-5, atol=1e-5)
    assert model(inputs).dtype == torch.float32


def test_a_linear_model_has_no_hidden_layer() -> None:
    model = MLP(6, [], 3)
    inputs = torch.randn(2, 6)
    torch.testing.assert_close(model(inputs), functional.linear(inputs, model.head.weight, model.head.bias))


@pytest.mark.parametrize(
    "model", [MLP(16, [64], 5, dropout=0.5), MLP(16, [], 5, input_dropout=0.5), ConvNet([32], 5, dropout=0.5)]
)
def test_dropout_acts_in_training_only(model: nn.Module) -> None:
    inputs = torch.rand(3, 4, 4) + 1
    model.eval()
    assert torch.equal(model(inputs), model(inputs))
    model.train()
    assert not torch.equal(model(inputs), model(inputs))


def test_images_with_and_without_a_channel_axis_are_the_same() -> None:
    model = ConvNet([8, 16], 4).eval()
    images = torch.randn(5, 8, 8)
    assert model(images).shape == (5, 4)
    assert torch.equal(model(images), model(images.unsqueeze(1)))
    assert ConvNet([8, 16, 32], 4, image_channels=3)(torch.randn(2, 3, 4, 5)).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (
            MLP(64, [], 2),
            torch.zeros(3, 8, 8, dtype=torch.uint8),
            "MLP takes float32 inputs, not uint8; .*transfer.vector or scale",
        ),
        (ConvNet([4], 2), torch.zeros(3, 8, 8, dtype=torch.int64), "ConvNet takes float32 inputs, not int64"),
        (MLP(64, [], 2).double(), torch.zeros(3, 64), "takes float64 inputs, not float32"),
        (MLP(64, [], 2), torch.zeros(3, 28, 28), "takes 64 values a row, a batch has 784"),
        (ConvNet([4], 2), torch.zeros(3, 8, 8, 3), r"takes images \(B, 1, H, W\), a batch has shape \[3, 8, 8, 3\]"),
        (
            ConvNet([4], 2),
            torch.zeros(3, 3, 8, 8),
            r"shape \[3, 3, 8, 8\]; write image_channels: 3 in its init_args, or set",
        ),
        (
            FrameNet(16, [4], 2),
            torch.zeros(3, 5, 40),
            r"FrameNet takes .* \[3, 5, 40\]; write features: 40 in its init_args",
        ),
        (ConvNet([4], 2), torch.zeros(3, 64), "takes images"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model: nn.Module, inputs: torch.Tensor, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        model(inputs)


def test_a_model_of_yours_that_takes_no_float64_is_told_what_gives_float32() -> None:
    with pytest.raises(ConfigError, match=r"yours cannot take inputs of torch.float64 .*transfer.vector gives float32"):
        answer_of(nn.Linear(6, 2), torch.zeros(2, 6, dtype=torch.float64), who="yours", section="student")


@pytest.mark.parametrize(
    ("model", "most_errors"),
    [(lambda: MLP(64, [128], 10), 60), (lambda: ConvNet([24, 48], 10, dropout=0.1), 45)],
    ids=["MLP", "ConvNet"],
)
def test_it_learns_the_digits(model: type[nn.Module], most_errors: int) -> None:
    """Good enough for a teacher's member: under 12% and 9% of errors on other writers' digits after a few seconds."""
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = Path(__file__).parents[2] / "data" / "digits"
    tables = [parquet.read_table(folder / f"{split}-00000-of-00001.parquet") for split in ("train", "test")]
    (images, labels), (test_images, test_labels) = [
        (torch.tensor(table["image"].to_pylist()).float() / 16, torch.tensor(table["label"].to_pylist()))
        for table in tables
    ]
    torch.manual_seed(0)
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(15):
        for rows in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        errors = int((net(test_images).argmax(1) != test_labels).sum())
    assert errors <= most_errors
