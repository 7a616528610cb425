"""Jitter: every image moved whole, as far as it may, zeros moving in. Masks: tokens hidden at random, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.recipes.augment import jitter, mask_tokens


@pytest.mark.parametrize("shape", [(200, 7, 5), (200, 3, 6, 9)])
def test_each_image_is_one_of_the_moves(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    images = torch.tensor(rng.normal(size=shape).astype(np.float32))
    torch.manual_seed(int(rng.integers(2**31)))
    moved = jitter(images, pixels=2)
    height, width = shape[-2:]
    seen = set()
    for before, after in zip(images, moved, strict=True):
        wide = np.pad(before.numpy(), [(0, 0)] * (before.ndim - 2) + [(2, 2), (2, 2)])
        moves = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if np.array_equal(wide[..., down : down + height, right : right + width], after.numpy())
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) > 20  # of 25: a move that never happens would be a fault


def test_no_pixels_is_no_move_and_impossible_moves_are_refused() -> None:
    images = torch.rand(3, 4, 4)
    assert torch.equal(jitter(images, pixels=0), images)
    for wrong, pixels in ((images, 4), (images, -1), (images.flatten(1), 1)):
        with pytest.raises(ConfigError, match="jitter by"):
            jitter(wrong, pixels=pixels)


def test_tokens_are_masked_at_random_and_nothing_else_is(rng: np.random.Generator) -> None:
    tokens = torch.from_numpy(rng.integers(2, 40, (300, 3, 30), dtype=np.int32))
    lengths = torch.from_numpy(rng.integers(1, 31, (300, 1)))
    tokens[:, 2] = torch.arange(30) < lengths
    before = tokens.clone()
    torch.manual_seed(int(rng.integers(2**31)))
    masked = mask_tokens(tokens, share=0.3, mask=1, special=(2, 3))
    assert torch.equal(tokens, before)
    assert masked.dtype == tokens.dtype
    assert torch.equal(masked[:, 1:], tokens[:, 1:])
    may_change = (tokens[:, 2] == 1) & (tokens[:, 0] > 3)
    changed = masked[:, 0] != tokens[:, 0]
    assert not (changed & ~may_change).any()
    assert (masked[:, 0][changed] == 1).all()
    rows = int(may_change.sum())
    assert abs(int(changed.sum()) - 0.3 * rows) < 6 * (0.21 * rows) ** 0.5
    assert (changed.float().mean(0)[:5] > 0).all()  # every place
    assert torch.equal(mask_tokens(tokens, share=0.0, mask=1), tokens)


def test_what_is_no_tokens_is_not_masked() -> None:
    for wrong, share in ((torch.zeros(2, 2, 5), 0.1), (torch.zeros(2, 5, dtype=torch.int32), 0.1)):
        with pytest.raises(ConfigError, match="mask_tokens with share"):
            mask_tokens(wrong, share=share, mask=1)
    for share in (1.0, -0.1):
        with pytest.raises(ConfigError, match="mask_tokens with share"):
            mask_tokens(torch.zeros(2, 2, 5, dtype=torch.int32), share=share, mask=1)
