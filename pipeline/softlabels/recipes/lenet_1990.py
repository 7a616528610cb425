"""The network of 2,578 weights that Optimal Brain Damage was tried on (LeCun, Boser, Denker et al. 1990, Handwritten digit
recognition with a back-propagation network, NIPS 2).

============================================  ===========  ==================================
layer                                         maps         parameters
============================================  ===========  ==================================
convolution 5 x 5                             4 x 24 x 24  4 * (25 + 1) = 104
mean of 2 x 2, times a factor, plus a bias    4 x 12 x 12  4 * 2 = 8
convolution 5 x 5, 20 of the 48 connections   12 x 8 x 8   20 * 25 + 12 = 512
mean of 2 x 2, times a factor, plus a bias    12 x 4 x 4   12 * 2 = 24
linear                                        10           10 * (192 + 1) = 1,930
============================================  ===========  ==================================

Which 20 connections is ours: of each half of the maps one reads the first of two, one the second, four both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_READS = ((0,), (1,), (0, 1), (0, 1), (0, 1), (0, 1), (2,), (3,), (2, 3), (2, 3), (2, 3), (2, 3))


class LeNet1990(nn.Module):
    """Images (B, 28, 28) to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.halved = nn.Conv2d(1, 4, 5), _Halved(4)
        self.second, self.quartered = _Sparse(_READS, maps=4, size=5), _Halved(len(_READS))
        self.head = nn.Linear(192, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        maps = self.halved(torch.tanh(self.first(images.unsqueeze(1))))
        maps = self.quartered(torch.tanh(self.second(maps)))
        logits: Tensor = self.head(maps.flatten(1))
        return logits


class _Halved(nn.Module):
    """Maps of half the height and width: tanh of the mean of 2 x 2, times a factor a map, plus a bias."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.factor, self.bias = nn.Parameter(torch.ones(maps)), nn.Parameter(torch.zeros(maps))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, H, W) to (B, K, H / 2, W / 2)."""
        means = functional.avg_pool2d(maps, 2)
        return torch.tanh(means * self.factor[:, None, None] + self.bias[:, None, None])


class _Sparse(nn.Module):
    """A convolution whose maps each read only some of the maps before; a kernel a connection.

    Args:
        reads: the maps that each map reads. maps: how many there are before. size: of the kernels.
    """

    def __init__(self, reads: tuple[tuple[int, ...], ...], *, maps: int, size: int) -> None:
        super().__init__()
        pairs = [(to, one) for to, read in enumerate(reads) for one in read]
        bound = [1 / math.sqrt(len(reads[to]) * size**2) for to, _ in pairs]
        self.kernels = nn.Parameter((torch.rand(len(pairs), size, size) * 2 - 1) * torch.tensor(bound)[:, None, None])
        self.bias = nn.Parameter(torch.zeros(len(reads)))
        self.places: Tensor
        self.register_buffer("places", torch.tensor([to * maps + one for to, one in pairs]), persistent=False)
        self._maps = maps

    def forward(self, maps: Tensor) -> Tensor:
        """(B, K, H, W) to (B, len(reads), H - size + 1, W - size + 1)."""
        size = self.kernels.shape[-1]
        full = self.kernels.new_zeros(len(self.bias) * self._maps, size, size).index_copy(0, self.places, self.kernels)
        return functional.conv2d(maps, full.view(len(self.bias), self._maps, size, size), self.bias)
