"""The network of 1990 has the paper's parameters, and each map reads what the table says."""

from __future__ import annotations

import torch

from softlabels.recipes.lenet_1990 import LeNet1990


def test_it_has_2578_parameters() -> None:
    model = LeNet1990()
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts == {"first": 104, "halved": 8, "second": 512, "quartered": 24, "head": 1930}
    assert sum(parts.values()) == 2578
    assert model(torch.rand(3, 28, 28)).shape == (3, 10)


def test_a_map_reads_only_its_own() -> None:
    sparse = type(LeNet1990().second)
    layer, maps = sparse(((0,), (0, 1)), maps=2, size=3), torch.rand(4, 2, 5, 5)
    moved = maps.clone()
    moved[:, 1] += 1
    before, after = layer(maps), layer(moved)
    assert torch.equal(before[:, 0], after[:, 0])
    kernel = layer.kernels[2].sum()
    torch.testing.assert_close(after[:, 1] - before[:, 1], kernel.expand(4, 3, 3), rtol=1e-4, atol=1e-5)
