"""Audio files to log-mel spectrograms, by numpy: a prepare function. Extra `[audio]`.

Rows have frames of their own number, filled up with frames of zeros to one; a frame of sound is never all zeros, so a model
sees which are there (`frame_net`). B batch, P frames, K mel bands, N samples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from softlabels.transfer.file_arguments import reads_files
from softlabels.transfer.prepare import Row, require_whole
from softlabels.transfer.sound import waveform

Floats = npt.NDArray[np.float32]
_FLOOR = 1e-6  # added to a band's power: 60 dB below that of a loud band
_LOWEST = 60.0  # Hz, of the lowest band


@reads_files(lambda **_: {}, packages=("soundfile",))
def log_mel(
    rows: Sequence[Row], *, rate: int, frames: int, mels: int = 40, window: int = 256, hop: int = 160
) -> Floats:
    """Audio files as log-mel spectrograms: (B, `frames`, `mels`), each clip with mean 0 and deviation 1 over its own frames.

    Args:
        rows: the bytes of the files, as `softlabels.transfer.audio` takes them.
        rate: samples a second that the files have.
        frames: P. What is longer is cut; shorter clips end in frames of zeros.
        mels: K.
        window: samples of a frame, under a Hann window.
        hop: samples from one frame to the next.

    Raises:
        MissingExtra: soundfile is not installed.
        TransferSetError: rows that are no audio files, or of another rate.
    """
    require_whole("log_mel", rate=rate, frames=frames, mels=mels, hop=hop)
    require_whole("log_mel", window=window, least=2)
    found = np.zeros((len(rows), frames, mels), np.float32)
    for row, data in zip(found, rows, strict=True):
        clip = waveform(data, rate=rate, most=(frames - 1) * hop + window)
        own = spectrogram(clip, rate=rate, mels=mels, window=window, hop=hop)
        row[: len(own)] = own
    return found


def frame_count(samples: int, *, window: int, hop: int) -> int:
    """How many whole frames a clip of `samples` has; one where it is shorter than a frame."""
    return 1 + max(0, samples - window) // hop


def spectrogram(clip: Floats, *, rate: int, mels: int, window: int, hop: int) -> Floats:
    """One clip (N,) as its log-mel frames (`frame_count`, K), with mean 0 and deviation 1. Silence is not zeros either."""
    count = frame_count(len(clip), window=window, hop=hop)
    filled = np.pad(clip.astype(np.float64), (0, max(0, window - len(clip))))
    cut = np.lib.stride_tricks.sliding_window_view(filled, window)[::hop][:count]
    power = np.abs(np.fft.rfft(cut * np.hanning(window), _transform(window))) ** 2
    logs = np.log(power @ _bands(mels, _transform(window), rate) + _FLOOR)
    scaled = ((logs - logs.mean()) / (logs.std() + 1e-3)).astype(np.float32)
    return np.where(scaled == 0, np.float32(1e-6), scaled)


def _transform(window: int) -> int:
    """Points of the Fourier transform: the next power of two."""
    return 1 << (window - 1).bit_length()


@functools.cache
def _bands(mels: int, transform: int, rate: int) -> npt.NDArray[np.float64]:
    """Triangles of height 1 that are evenly spaced on O'Shaughnessy's mel scale, 2595 log10(1 + f / 700): (bins, K)."""
    low, high = 2595 * np.log10(1 + np.array([_LOWEST, rate / 2]) / 700)
    corners = 700 * (10 ** (np.linspace(low, high, mels + 2) / 2595) - 1)
    bins = np.arange(transform // 2 + 1)[:, None] * rate / transform
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    bands: npt.NDArray[np.float64] = np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak))
    return bands.clip(min=0)
