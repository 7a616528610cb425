"""Jitter: every image moved whole, as far as it may, zeros moving in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.student.augment import jitter


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
