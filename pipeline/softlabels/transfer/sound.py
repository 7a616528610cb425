"""Audio files to samples, decoded by soundfile: a prepare function, and what other prepare functions build on. Extra `[audio]`.

A column of audio reaches a prepare function as the bytes of its files, as `decode` says; nothing is decoded unasked. B batch, N
samples.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from softlabels.errors import MissingExtra, TransferSetError
from softlabels.objects import require_extra
from softlabels.transfer.file_arguments import reads_files
from softlabels.transfer.prepare import Row, require_whole

Samples = npt.NDArray[np.float32]
_BLOCK = 1 << 16  # samples read at a time: what a file says of its length is not believed
_LOUDEST = 4.0  # what is lossy or was mixed in floats passes 1; integers that are called floats pass it by far


@reads_files(lambda **_: {}, packages=("soundfile",))
def audio(rows: Sequence[Row], *, rate: int, samples: int) -> Samples:
    """Audio files as samples from -1 to 1, the mean of their channels, cut or filled up with 0 to one length: (B, `samples`).

    Args:
        rows: the bytes of the files: WAV, FLAC, OGG, MP3 and what else soundfile reads.
        rate: samples a second that the files have; another one is refused, since nothing is resampled.
        samples: N.

    Raises:
        MissingExtra: soundfile is not installed.
        TransferSetError: as `waveform`.

    Example:
        >>> import io, wave
        >>> from softlabels.transfer import audio
        >>> file = io.BytesIO()
        >>> with wave.open(file, "wb") as sound:
        ...     sound.setparams((1, 2, 8000, 0, "NONE", None))
        ...     sound.writeframes(np.full(100, 2**14, np.int16).tobytes())
        >>> audio([file.getvalue()], rate=8000, samples=200)[0, [0, 150]].tolist()
        [0.5, 0.0]
    """
    require_whole("audio", rate=rate, samples=samples)
    found = np.zeros((len(rows), samples), np.float32)
    for row, data in zip(found, rows, strict=True):
        own = waveform(data, rate=rate, most=samples)
        row[: len(own)] = own
    return found


def waveform(data: Row, *, rate: int, most: int | None = None) -> Samples:
    """The samples (N,) float32 of one audio file, from -1 to 1, the mean of its channels; at most the first `most`.

    For prepare functions of your own, such as one that makes spectrograms.

    Raises:
        MissingExtra: soundfile is not installed.
        TransferSetError: no audio file, one of another rate or without samples, or samples that are NaN or far beyond 1.

    Example:
        >>> from softlabels.transfer import waveform
        >>> def loudness(rows):
        ...     return np.stack([np.abs(waveform(row, rate=8000)).mean(keepdims=True) for row in rows])
    """
    soundfile = _soundfile()
    if not isinstance(data, bytes):
        raise TransferSetError(
            f"audio is the bytes of a file, not {type(data).__name__}",
            remedy="name one column of audio files in inputs, and let transfer_set.missing refuse rows without one",
        )
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.samplerate != rate:
                raise TransferSetError(
                    f"this audio has {file.samplerate:,} samples a second, and rate is {rate!r}",
                    remedy="resample the files to one rate, or correct prepare.init_args.rate",
                )
            found = _read(file, most)
    except soundfile.SoundFileError as error:
        why = getattr(error, "error_string", str(error))
        raise TransferSetError(
            f"this is no audio that soundfile reads: {why}", remedy="correct or filter it"
        ) from error
    if not len(found) and most != 0:
        raise TransferSetError("this audio has no samples", remedy="correct or filter it")
    if not np.abs(found).max(initial=0) <= _LOUDEST:
        raise TransferSetError(
            f"this audio has samples up to {np.abs(found).max():g}, and they lie from -1 to 1 (a decoder may pass it a little)",
            remedy="scale the samples of files of floats before they are written, or filter it",
        )
    return found


def _read(file: Any, most: int | None) -> Samples:
    """The samples of an open file, block by block."""
    blocks, left = [np.zeros(0, np.float32)], most
    while left is None or left > 0:
        block = file.read(_BLOCK if left is None else min(left, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block.mean(axis=1))
        left = None if left is None else left - len(block)
    return np.concatenate(blocks)


def _soundfile() -> Any:
    try:
        return require_extra("soundfile", extra="audio")
    except OSError as error:  # it is there, and the library that it calls is not
        raise MissingExtra(f"soundfile cannot load libsndfile: {error}", remedy="install libsndfile") from error
