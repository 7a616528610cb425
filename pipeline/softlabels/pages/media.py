"""Pictures and sound small enough for a page, as data URIs: PNG and WAV."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from softlabels.errors import MissingExtra
from softlabels.objects import require_extra

EDGE = 96  # pixels of a picture's longer edge
CLIP = 2.0  # seconds of sound
_RATE = 12_000  # samples a second, at most
_LEAST = 4  # pixels of an edge, below which numbers are no picture


def looks_like_picture(array: NDArray[np.generic]) -> bool:
    """Whether numbers are (H, W), (H, W, 1, 3 or 4) or (1, 3 or 4, H, W); of bytes also (H, W, 2), grey with alpha."""
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3):
        return False
    edges = sorted(array.shape)[-2:]
    channels = (1,) if array.ndim == 2 else (array.shape[0], array.shape[2])
    known = not {1, 3, 4}.isdisjoint(channels) or (array.dtype == np.uint8 and channels[-1] == 2)
    return edges[0] >= _LEAST and edges[1] <= 64 * edges[0] and known


def picture(array: NDArray[np.generic]) -> str:
    """A PNG of at most `EDGE` pixels an edge. Numbers that are no bytes, or dark ones, are stretched to black and white."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    image = PIL.Image.fromarray(_as_bytes(array))
    if max(image.size) > EDGE:
        image.thumbnail((EDGE, EDGE), PIL.Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _as_bytes(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8 and array.max() >= 64:
        return array.astype(np.uint8)
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = min(0.0, float(finite.min(initial=0.0))), float(finite.max(initial=-np.inf) if finite.size else 0.0)
    size = max(abs(low), abs(high), 1e-30)  # by which they are divided first: the span of two may be infinite
    values = np.nan_to_num(values, nan=0.0, posinf=high, neginf=low) / size
    span = max(high / size - low / size, 1e-30)
    return np.asarray(255 * ((values - low / size) / span).clip(0, 1)).round().astype(np.uint8)


def sound(data: bytes) -> str | None:
    """The beginning of an audio file as WAV of 16 bits, of one channel, "" where it has no sample; None of another file, or
    where soundfile is not installed (extra `[audio]`).
    """
    try:
        soundfile = require_extra("soundfile", extra="audio")
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = int(file.samplerate)
            samples = file.read(int(CLIP * rate), dtype="float32", always_2d=True).mean(axis=1)
    except (MissingExtra, OSError, RuntimeError):  # libsndfile's errors are RuntimeError
        return None
    step = max(1, -(-rate // _RATE))
    samples = samples[: len(samples) // step * step].reshape(-1, step).mean(axis=1)
    return wav(np.nan_to_num(samples), rate // step) if len(samples) else ""


def wav(samples: NDArray[np.floating], rate: int) -> str:
    """Samples (N,) from -1 to 1 as a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(out.getvalue()).decode()}"
