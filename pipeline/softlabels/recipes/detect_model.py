"""A small single-shot detector: of each cell of the grid (see `detect_grid`) a class and a box. B batch, P cells, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Detector(nn.Module):
    """Three convolutions of stride 2, others of growing reach at an eighth of the size, a 1 x 1 convolution for both outputs.

    Args:
        channels: widths of the three convolutions of stride 2.
        reach: dilations of the 3 x 3 convolutions after them, each of the last width, added to what came before.
        classes: C, background among them.
        dropout: probability that a channel is dropped before the outputs.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, reach: Sequence[int] = (1, 2, 3), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(*(_block(before, after, stride=2) for before, after in pairwise([3, *channels])))
        self.body = nn.ModuleList(_block(channels[-1], channels[-1], dilation=each) for each in reach)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(channels[-1], classes + 4, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`class`, logits (B, P, C), and `box` (B, P, 4) of images (B, 3, H, W) uint8 or of the dtype of the weights."""
        features = self.stem(images.to(self.head.weight.dtype) / 255 - 0.5)
        for block in self.body:
            features = features + block(features)
        cells = self.head(self.dropout(features)).flatten(2).transpose(1, 2)  # (B, P, C + 4)
        return {"class": cells[..., : self.classes], "box": cells[..., self.classes :]}


def _block(before: int, after: int, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
