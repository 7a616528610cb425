"""Random changes of a batch's inputs while a teacher is trained; a recipe names one by its class path.

A student is never shown inputs that its teacher did not label: stored labels belong to the rows as they stand.

B batch, H height, W width; K arrays of a tokenizer, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from softlabels.errors import ConfigError


def jitter(images: Tensor, *, pixels: int) -> Tensor:
    """Every image moved by whole pixels, at random by up to `pixels` up or down and left or right; zeros move in.

    Args:
        images: (B, ..., H, W), any dtype. Draws come from torch's generator of their device.
        pixels: the largest move along each axis.

    Raises:
        ConfigError: inputs without two axes for height and width, or a move that is negative or as large as the image.
    """
    if images.ndim < 3 or not 0 <= pixels < min(images.shape[-2:]):
        raise ConfigError(
            f"jitter by {pixels} pixels cannot take inputs of shape {list(images.shape)}",
            remedy="give images (batch, ..., height, width) and fewer pixels than they have",
        )
    height, width = images.shape[-2:]
    planes = torch.nn.functional.pad(images, (pixels,) * 4).reshape(
        len(images), -1, height + 2 * pixels, width + 2 * pixels
    )
    down, right = torch.randint(2 * pixels + 1, (2, len(images), 1), device=images.device)  # (B, 1) each
    rows = down + torch.arange(height, device=images.device)  # (B, H)
    columns = right + torch.arange(width, device=images.device)  # (B, W)
    places = (rows[:, :, None] * planes.shape[-1] + columns[:, None]).reshape(len(images), 1, -1)  # (B, 1, H W)
    moved = planes.flatten(2).gather(2, places.expand(-1, planes.shape[1], -1))
    return moved.reshape(images.shape)


def mask_tokens(tokens: Tensor, *, share: float, mask: int, special: Sequence[int] = ()) -> Tensor:
    """Rows of tokens in which each token became `mask` with probability `share`, padding and special tokens aside.

    Args:
        tokens: (B, K, L) integers as `softlabels.transfer.tokenize` gives them: input ids first, attention mask last.
            Draws come from torch's generator of their device.
        share: in [0, 1).
        mask: the id that takes their place, the tokenizer's mask or unknown token.
        special: ids that stay, such as those of [CLS] and [SEP].

    Raises:
        ConfigError: inputs that are no tokens, or an impossible share.
    """
    if tokens.ndim != 3 or tokens.is_floating_point() or not 0 <= share < 1:
        raise ConfigError(
            f"mask_tokens with share={share} cannot take {tokens.dtype} inputs of shape {list(tokens.shape)}",
            remedy="give tokens (batch, 2 or 3, length) and a share in [0, 1)",
        )
    ids_BL, is_token_BL = tokens[:, 0], tokens[:, -1] > 0
    kept = torch.isin(ids_BL, torch.tensor(list(special), dtype=ids_BL.dtype, device=ids_BL.device))
    drawn = torch.rand(ids_BL.shape, device=tokens.device) < share
    masked = tokens.clone()
    masked[:, 0] = torch.where(drawn & is_token_BL & ~kept, mask, ids_BL)
    return masked
