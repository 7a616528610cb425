"""A small convolutional network. B batch, K channels of the images, H height, W width, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.inputs import check_dtype


class ConvNet(nn.Module):
    """Convolutions, the mean over what they leave of the image, dropout, a linear layer.

    For each entry of `channels`: 3 x 3 convolution, batch norm, ReLU, and but after the last 2 x 2 max pooling. Images may have
    any size from 2^(len(channels) - 1) pixels up.

    Args:
        channels: widths of the convolutions, at least one.
        classes: C.
        dropout: probability before the linear layer.
        image_channels: K.

    Example:
        >>> from softlabels.models import ConvNet
        >>> ConvNet(channels=[8, 16], classes=10)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: Sequence[int], classes: int, dropout: float = 0.0, image_channels: int = 1) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels needs at least one width")
        self.image_channels = image_channels
        layers: list[nn.Module] = []
        widths = [image_channels, *channels]
        for before, after in pairwise(widths):
            if layers:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, H, W) or (B, K, H, W) in the dtype of the weights.

        Raises:
            ConfigError: another dtype, number of axes or number of channels.
        """
        check_dtype(images, expected=self.head.weight.dtype, model="ConvNet")
        images_BKHW = images.unsqueeze(1) if images.ndim == 3 else images
        if images_BKHW.ndim != 4 or images_BKHW.shape[1] != self.image_channels:
            first = (
                f"write image_channels: {images_BKHW.shape[1]} in its init_args, or " if images_BKHW.ndim == 4 else ""
            )
            raise ConfigError(
                f"this ConvNet takes images (B, {self.image_channels}, H, W), a batch has shape {list(images.shape)}",
                remedy=f"{first}set prepare to softlabels.transfer.resize or image, which put channels first",
            )
        features_BKHW: Tensor = self.layers(images_BKHW)
        logits_BC: Tensor = self.head(self.dropout(features_BKHW.mean((2, 3))))
        return logits_BC
