"""A small convolutional network over frames of sound. B batch, P frames, K features of a frame, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.models.inputs import check_dtype


class FrameNet(nn.Module):
    """Convolutions over time, a linear layer on every frame, and of a clip the mean of its frames' logits.

    For each entry of `channels`: convolution, batch norm, ReLU, dropout. Frames of zeros are no frames: they fill clips up to
    one length, and count in no mean. The same weights serve clips and frames.

    Args:
        features: K.
        channels: widths of the convolutions, at least one.
        classes: C.
        kernel: frames that a convolution sees, an odd number.
        dropout: probability after each convolution.
        each_frame: whether logits are given for every frame instead of for the clip.
    """

    def __init__(
        self,
        features: int,
        channels: Sequence[int],
        classes: int,
        kernel: int = 5,
        dropout: float = 0.0,
        each_frame: bool = False,
    ) -> None:
        super().__init__()
        if not channels or kernel % 2 == 0:
            raise ValueError("channels needs at least one width, and kernel is odd")
        self.features, self.each_frame = features, each_frame
        layers: list[nn.Module] = []
        for before, after in pairwise([features, *channels]):
            layers.append(nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=False))
            layers += [nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (B, C), or (B, P, C) of each frame, of frames (B, P, K) in the dtype of the weights.

        Raises:
            ConfigError: another dtype, number of axes or number of features.
        """
        check_dtype(frames, expected=self.head.weight.dtype, model="FrameNet")
        if frames.ndim != 3 or frames.shape[-1] != self.features:
            first = f"write features: {frames.shape[-1]} in its init_args, or " if frames.ndim == 3 else ""
            raise ConfigError(
                f"this FrameNet takes frames (B, P, {self.features}), a batch has shape {list(frames.shape)}",
                remedy=f"{first}set prepare to softlabels.transfer.log_mel",
            )
        logits_BPC: Tensor = self.head(self.layers(frames.mT).mT)
        if self.each_frame:
            return logits_BPC
        is_frame_BP1 = (frames != 0).any(dim=-1, keepdim=True).to(logits_BPC.dtype)
        return (logits_BPC * is_frame_BP1).sum(dim=1) / is_frame_BP1.sum(dim=1).clamp(min=1)
