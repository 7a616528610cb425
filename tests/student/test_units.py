"""Units that can be removed: found by running the model, and the smaller network says what the masked one says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models import ModelConfig, build_model
from softlabels.models.narrow import narrowed
from softlabels.student.units import Chain, chains_of, require_smaller, units_masks, without_units


class Convolutions(nn.Module):
    """Batch norm, pooling and flattening between convolutions and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.second, self.wide, self.head = nn.Conv2d(4, 6, 3), nn.Linear(6 * 4, 7), nn.Linear(7, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.first(images[:, None])))
        maps = torch.max_pool2d(torch.tanh(self.second(maps)), 2)
        return self.head(nn.functional.gelu(self.wide(maps.flatten(1))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.into(rows.flatten(1)[:, :8])
        return self.out(hidden + torch.relu(self.inner(hidden)))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


class Twice(nn.Module):
    """One layer is used twice: its weights are not one reader's alone."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again, self.out = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = torch.relu(self.into(rows.flatten(1)))
        return self.out(torch.relu(self.again(torch.relu(self.again(hidden)))))


class Sized(nn.Module):
    """Its code has a scale a unit, which no layer owns; the weight of its last layer is made of two others."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.scale, self.inner = nn.Linear(64, 8), nn.Parameter(torch.rand(8)), nn.Linear(8, 4)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))

    def forward(self, rows: Tensor) -> Tensor:
        return self.out(self.inner(torch.relu(self.into(rows.flatten(1))) * self.scale))


CHAINS = [Chain("first", ("norm",), "second", 4, 1), Chain("second", (), "wide", 6, 4), Chain("wide", (), "head", 7, 1)]


def test_chains_are_found_through_what_keeps_units_apart() -> None:
    assert chains_of(Convolutions(), torch.rand(3, 8, 8)) == CHAINS


@pytest.mark.parametrize("model", [Normed, Twice])
def test_layers_whose_units_several_read_stay_whole(model: type[nn.Module]) -> None:
    with pytest.raises(
        ConfigError, match=f"{model.__name__} has no layer whose hidden units only one other layer reads"
    ):
        chains_of(model(), torch.rand(3, 8, 8))


def test_a_residual_path_keeps_what_it_adds_to() -> None:
    with pytest.raises(ConfigError, match="Residual has no layer"):
        chains_of(Residual(), torch.rand(3, 8, 8))


def test_without_deleted_units_the_network_says_the_same() -> None:
    config = ModelConfig(f"{__name__}.Convolutions")
    model, rows = build_model(config), torch.rand(20, 8, 8)
    for _ in range(3):  # batch statistics that are not those of the start
        model.train()(rows)
    left = [torch.rand(chain.units) < 0.5 for chain in CHAINS]
    for units in left:
        units[0] = True
    units_masks(model, CHAINS, left).apply(model)
    small, smaller = without_units(config, model, CHAINS, left, rows)
    torch.testing.assert_close(smaller.eval()(rows), model.eval()(rows), rtol=1e-5, atol=1e-6)
    assert build_model(small).state_dict().keys() == model.state_dict().keys()
    assert smaller.norm.num_features == int(left[0].sum())  # type: ignore[union-attr]

    with pytest.raises(ConfigError, match="without the deleted units Convolutions says something else"):
        without_units(config, build_model(config), CHAINS, left, rows)  # whose units were not deleted


def test_a_model_that_has_no_smaller_one_is_refused() -> None:
    config, rows = ModelConfig(f"{__name__}.Sized"), torch.rand(3, 8, 8)
    model = build_model(config)
    chains = chains_of(model, rows)
    assert [chain.layer for chain in chains] == ["into"]
    with pytest.raises(ConfigError, match=r"without the deleted units Sized cannot run: .*; use --structure=weight"):
        require_smaller(config, model, chains, rows)
    whole = build_model(ModelConfig(f"{__name__}.Convolutions"))
    require_smaller(ModelConfig(f"{__name__}.Convolutions"), whole, CHAINS, rows)
    assert all((weight != 0).all() for name, weight in whole.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("sizes", [{"nothing": [1, 2]}, {"first": [1]}, {"norm": [0]}, {"head": [7, True, 3]}])
def test_sizes_that_no_module_has_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="has no module"):
        narrowed(f"{__name__}.Convolutions", {}, sizes)
