"""Log-mel spectrograms, against the sums that define them."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.recipes.log_mel import frame_count, log_mel, spectrogram
from tests.transfer.test_sound import wav

WINDOW, HOP, MELS, RATE, BINS = 50, 20, 12, 4000, 64


def reference(clip: np.ndarray) -> np.ndarray:
    """Frame by frame and band by band in float64, with no transform."""
    to_mel, to_hz = lambda f: 2595 * np.log10(1 + f / 700), lambda m: 700 * (10 ** (m / 2595) - 1)
    low, high = to_mel(60.0), to_mel(RATE / 2)
    corners = [to_hz(low + (high - low) * i / (MELS + 1)) for i in range(MELS + 2)]
    found = []
    for start in range(0, len(clip) - WINDOW + 1, HOP):
        frame = clip[start : start + WINDOW] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1)))
        turns = np.exp(-2j * np.pi * np.outer(np.arange(BINS // 2 + 1), np.arange(WINDOW)) / BINS)
        power, hertz = np.abs(turns @ frame) ** 2, np.arange(BINS // 2 + 1) * RATE / BINS
        bands = [power @ np.interp(hertz, corners[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(MELS)]
        found.append(np.log(np.array(bands) + 1e-6))
    logs = np.array(found)
    return (logs - logs.mean()) / (logs.std() + 1e-3)


def test_a_clip_against_the_definition(rng: np.random.Generator) -> None:
    clip = rng.normal(size=331).astype(np.float32)
    found = spectrogram(clip, rate=RATE, mels=MELS, window=WINDOW, hop=HOP)
    expected = reference(clip.astype(np.float64))
    assert found.shape == expected.shape == (frame_count(331, window=WINDOW, hop=HOP), MELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rows_are_cut_or_filled_with_frames_of_zeros(rng: np.random.Generator) -> None:
    clips = [rng.integers(-9999, 9999, n) for n in (7, 50, 69, 70, 500)] + [np.zeros(90, np.int64)]
    files = [wav(clip, rate=RATE) for clip in clips]
    rows = log_mel(files, rate=RATE, frames=6, mels=MELS, window=WINDOW, hop=HOP)
    assert rows.shape == (6, 6, MELS)
    assert (rows != 0).any(axis=2).sum(axis=1).tolist() == [1, 1, 1, 2, 6, 3]  # silence is frames too
    cut = log_mel([wav(clips[4][:150], rate=RATE)], rate=RATE, frames=6, mels=MELS, window=WINDOW, hop=HOP)
    np.testing.assert_array_equal(rows[4], cut[0])


def test_impossible_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"prepare\.init_args\.frames of log_mel is 0; give a whole number from 1 to"):
        log_mel([], rate=RATE, frames=0)
