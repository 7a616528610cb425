"""The network over frames: what is no frame counts for nothing."""

from __future__ import annotations

import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.recipes.frame_net import FrameNet


def test_a_clip_has_the_mean_of_its_own_frames() -> None:
    clips, frames = (FrameNet(4, [6, 5], 3, kernel=3, each_frame=each).eval() for each in (False, True))
    clips.load_state_dict(frames.state_dict())
    rows = torch.randn(2, 9, 4)
    rows[1, 5:] = 0
    logits = frames(rows)
    assert logits.shape == (2, 9, 3)
    torch.testing.assert_close(clips(rows), torch.stack([logits[0].mean(0), logits[1, :5].mean(0)]))
    longer = torch.cat([rows, torch.zeros(2, 7, 4)], dim=1)  # frames that fill up change no clip
    wide = FrameNet(4, [6], 3, kernel=3).eval()
    torch.testing.assert_close(wide(longer)[1], wide(rows)[1])
    assert torch.isfinite(clips(torch.zeros(1, 9, 4))).all()


def test_other_inputs_are_refused() -> None:
    model = FrameNet(4, [6], 3)
    with pytest.raises(ConfigError, match=r"takes frames \(B, P, 4\), a batch has shape \[2, 4\]"):
        model(torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="FrameNet takes float32 inputs, not float64"):
        model(torch.zeros(2, 3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="kernel is odd"):
        FrameNet(4, [6], 3, kernel=2)
