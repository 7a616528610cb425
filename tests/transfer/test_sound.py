"""Audio files, decoded where a prepare function asks for it."""

from __future__ import annotations

import io
import struct
import sys
import wave
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from softlabels.errors import ConfigError, MissingExtra, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, TransferSetConfig, audio, load_transfer_set, waveform

FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def wav(samples: np.ndarray, *, rate: int = 8000) -> bytes:
    """A file of 16 bits, of samples (N,) or (N, channels)."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def floats(samples: np.ndarray) -> bytes:
    """A file of float32."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 8000, subtype="FLOAT", format="WAV")
    return buffer.getvalue()


@pytest.fixture
def clips(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(-(1 << 15), 1 << 15, n) for n in (300, 70_000, 1)]


def test_samples_are_those_of_the_file(clips: list[np.ndarray], rng: np.random.Generator) -> None:
    for clip in clips:
        np.testing.assert_array_equal(waveform(wav(clip), rate=8000), np.float32(clip) / 32768)
        np.testing.assert_array_equal(waveform(wav(clip), rate=8000, most=200), np.float32(clip[:200]) / 32768)
    np.testing.assert_array_equal(waveform(floats(np.array([1.25, -0.5])), rate=8000), [1.25, -0.5])
    stereo = rng.integers(-(1 << 15), 1 << 15, (50, 2))
    np.testing.assert_array_equal(waveform(wav(stereo), rate=8000), np.float32(stereo.mean(axis=1)) / 32768)


def load(
    folder: Path, files: list[bytes], function: str = "softlabels.transfer.audio", **arguments: object
) -> TransferRows:
    features = datasets.Features({"audio": datasets.Audio(sampling_rate=8000)})
    table = pa.table({"audio": pa.array([{"bytes": file, "path": "a.wav"} for file in files], FILE)})
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), folder / "train.parquet")
    config = TransferSetConfig(
        source=str(folder),
        inputs=("audio",),
        label=None,
        prepare=ObjectSpec(function, arguments),
        splits={"train": "train"},
    )
    return load_transfer_set(config, "train", cache=folder.parent / "cache")


def test_a_recipe_names_it(tmp_path: Path, clips: list[np.ndarray]) -> None:
    (tmp_path / "data").mkdir()
    rows = load(tmp_path / "data", [wav(clip) for clip in clips], rate=8000, samples=1000)
    assert (rows.inputs.dtype, rows.inputs.shape) == (np.float32, (3, 1000))
    for row, clip in zip(rows.inputs, clips, strict=True):
        np.testing.assert_array_equal(row, np.pad(np.float32(clip[:1000]) / 32768, (0, max(0, 1000 - len(clip)))))


def test_what_a_file_says_of_its_length_is_not_believed() -> None:
    file = bytearray(wav(np.arange(100)))
    file[4:8] = file[40:44] = struct.pack("<I", 0x7FFFFFF0)
    assert len(waveform(bytes(file), rate=8000)) == 100


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"RIFF and no more", "row 2: this is no audio that soundfile reads: .*; correct or filter it"),
        (b"", "row 2: this is no audio"),
        (wav(np.zeros(0)), "row 2: this audio has no samples; correct or filter it"),
        (
            floats(np.array([0.5, 32767])),
            "row 2: this audio has samples up to 32767, and they lie from -1 to 1 .*; scale",
        ),
        (floats(np.array([0.5, np.nan])), "row 2: this audio has samples up to nan"),
        (wav(np.zeros(9), rate=16000), "row 2: this audio has 16,000 samples a second, and rate is 8000; resample"),
    ],
    ids=["other bytes", "nothing", "no samples", "integers as floats", "NaN", "another rate"],
)
def test_a_file_that_is_none_is_named_by_its_row(tmp_path: Path, bad: bytes, words: str) -> None:
    (tmp_path / "data").mkdir()
    good = wav(np.arange(10))
    with pytest.raises(TransferSetError, match=words) as error:
        load(tmp_path / "data", [good, good, bad, good], rate=8000, samples=10)
    assert " at 0x" not in str(error.value)


def test_what_is_no_file_and_settings_that_cannot_be_meant() -> None:
    with pytest.raises(TransferSetError, match="audio is the bytes of a file, not tuple; name one column"):
        audio([(b"", b"")], rate=8000, samples=10)
    for settings in ({"samples": 0}, {"samples": 5.0}, {"samples": 1 << 45}, {"rate": "8000"}, {"rate": True}):
        ((name, value),) = settings.items()
        with pytest.raises(
            ConfigError, match=rf"prepare\.init_args\.{name} of audio is {value!r}; give a whole number from 1"
        ):
            audio([b""], **{"rate": 8000, "samples": 9, **settings})


def test_without_soundfile_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(
        MissingExtra, match=r"soundfile, which is not installed; .* -m pip install 'softlabels\[audio\]'"
    ):
        audio([wav(np.zeros(3))], rate=8000, samples=10)
