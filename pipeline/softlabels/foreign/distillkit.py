"""DistillKit's Parquet files (arcee-ai/DistillKit 1.0.0, read as of commit a61c2e7): compressed log-probabilities, whose
settings lie in `compression_config.yaml` beside them, or raw ones (`token_ids`, `top_values`).

List p of a row is the distribution of token p + 1, and counts where `labels`, if there are any, are not negative at p: so its
trainer masks them. A packed row (`attention_mask` holds segment numbers from 1) becomes one row a segment, since the teacher
saw each alone. Decoding is in float64: a position is `exact_k` numbers, then the coefficients of a polynomial for the rest,
then its residuals in bins of few bits, each with a scale; with `delta_encoding` all are differences.

L tokens of a row, P positions, B bytes of a position, K = k numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.foreign.rows import Floats, ForeignRow, Ints, Unfit, misaligned
from softlabels.foreign.tables import batches, columns_of, lists_of, numbers_of
from softlabels.labels.topk_fields import MAX_CLASSES
from softlabels.system.plain_yaml import plain_yaml

CONFIG = "compression_config.yaml"
_MOST_BYTES = 1 << 16  # of a config
_COMPRESSED, _RAW = ("compressed_logprobs", "bytepacked_indices"), ("token_ids", "top_values")
_Float = Literal["float16", "bfloat16", "float32", "float64"]
_Term = Literal["sqrt", "exp"] | Annotated[int, Meta(ge=0, le=16)]
Bytes = NDArray[np.uint8]


class Bin(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A bin of residuals."""

    scale_dtype: _Float
    element_bits: Annotated[int, Meta(ge=1, le=32)]
    num_elements: Annotated[int, Meta(ge=1, le=1 << 16)]


class Compression(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`compression_config.yaml`; unknown fields are refused, since they may change what the bytes mean."""

    d: Annotated[int, Meta(ge=2, le=MAX_CLASSES)]
    k: Annotated[int, Meta(ge=1, le=1 << 16)]
    exact_k: Annotated[int, Meta(ge=0, le=1 << 16)]
    exact_dtype: _Float = "float32"
    polynomial_terms: Annotated[list[_Term], Meta(max_length=32)] | None = None
    term_dtype: _Float = "float32"
    residual_bins: Annotated[list[Bin], Meta(max_length=256)]
    delta_encoding: bool = True
    error_diffusion: bool = False  # of encoding: nothing depends on it here
    normalize_t: bool = False

    @property
    def id_bits(self) -> int:
        """Of an id; the logarithm in float32 as its own code takes it."""
        return int(np.ceil(np.log2(np.float32(self.d))))

    @property
    def number_bytes(self) -> int:
        """B of the numbers of a position."""
        terms = len(self.polynomial_terms or ())
        bins = (
            _width(each.scale_dtype) + -(-each.element_bits * each.num_elements // 8) for each in self.residual_bins
        )
        return self.exact_k * _width(self.exact_dtype) + terms * _width(self.term_dtype) + sum(bins)


def written(
    tokens: NDArray[Any], ids: NDArray[Any], log_p: NDArray[Any], counts: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """The columns of a raw row of tokens (L,) and of its positions (P, K), of which (P,) count. One segment, since the teacher
    saw the row as a whole.
    """
    return {
        "input_ids": tokens.astype(np.uint64), "attention_mask": np.ones(len(tokens), np.int32),
        "labels": np.where([*counts, False], tokens, -100).astype(np.int64),
        "token_ids": ids.astype(np.int64), "top_values": log_p,
    }  # fmt: skip


def read_compression(folder: Path) -> Compression:
    """The settings beside a file. Raises `ConfigError` where they are missing, are none, or contradict each other."""
    path = folder / CONFIG
    try:
        if not path.is_file():  # a pipe is waited for without end
            raise FileNotFoundError
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError:
        raise ConfigError(
            f"{path} is missing, and without it the bytes of DistillKit's files have no meaning",
            remedy="put the compression_config.yaml of the capture beside the Parquet files",
        ) from None
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        found = msgspec.convert(plain_yaml(data), Compression)
        bins = sum(each.num_elements for each in found.residual_bins)
        if not (found.exact_k <= found.k <= found.d and bins <= found.k - found.exact_k):
            raise ValueError(
                f"k={found.k}, exact_k={found.exact_k}, d={found.d} and {bins} elements of bins do not fit"
            )
    except ValueError as error:
        raise ConfigError(
            f"{path} cannot be used: {error}", remedy="put the file there that the capture wrote"
        ) from error
    return found


class DistillKit:
    """A Parquet file of DistillKit's, or a folder of them."""

    slack = 0.05  # of compressed numbers, whose polynomial need not be near

    def __init__(self, path: Path) -> None:
        self.path = path
        folder = path if path.is_dir() else path.parent
        self.compression = read_compression(folder) if (folder / CONFIG).exists() else None
        self._folder = folder

    @property
    def known_at(self) -> float | None:
        """Its own capture takes them at 1 and compresses them; raw ones are those of anybody."""
        return None if {*_RAW} <= columns_of(self.path) else 1.0

    def rows(self) -> Iterator[ForeignRow | Unfit]:
        """See `ForeignFile`."""
        for batch in batches(self.path, ("input_ids", "attention_mask", "labels", *_COMPRESSED, *_RAW)):
            for number in range(batch.num_rows):
                try:
                    yield from self._segments(batch, number)
                except Unfit as unfit:
                    yield unfit

    def _segments(self, batch: pa.RecordBatch, number: int) -> Iterator[ForeignRow]:
        """The rows that a row of the table is."""
        names = {*batch.schema.names}
        tokens = numbers_of(batch, "input_ids", number)
        if {*_RAW} <= names:
            ids, log_p = (lists_of(batch, name, number) for name in _RAW)
            if ids.shape != log_p.shape:
                raise misaligned(f"token_ids has the shape {ids.shape} and top_values {log_p.shape}")
        else:
            ids, log_p = self._decoded(batch, number)
        if len(ids) not in (len(tokens) - 1, len(tokens)):
            raise misaligned(f"{len(tokens)} tokens and {len(ids)} lists of log-probabilities")
        ids, log_p = ids[: len(tokens) - 1].astype(np.int64), log_p[: len(tokens) - 1].astype(np.float64)
        segment = numbers_of(batch, "attention_mask", number) if "attention_mask" in names else np.ones_like(tokens)
        if len(segment) != len(tokens):
            raise misaligned(f"{len(tokens)} tokens and an attention_mask of {len(segment)}")
        labels = numbers_of(batch, "labels", number) if "labels" in names else np.zeros_like(tokens)
        if len(labels) < len(ids):
            raise misaligned(f"{len(ids)} lists of log-probabilities and {len(labels)} labels")
        cuts = [0, *(np.flatnonzero(np.diff(segment)) + 1).tolist(), len(tokens)]
        for start, stop in pairwise(cuts):
            if stop > start and segment[start] > 0:  # 0 is padding
                at = np.flatnonzero(labels[start : stop - 1] >= 0)
                yield ForeignRow.of(tokens[start:stop], at, ids[start + at], log_p[start + at])

    def _decoded(self, batch: pa.RecordBatch, number: int) -> tuple[Ints, Floats]:
        """Of compressed columns."""
        if not {*_COMPRESSED} <= {*batch.schema.names}:
            raise ConfigError(
                f"{self.path} has no columns {' and '.join(_COMPRESSED)}, as DistillKit writes",
                remedy="give such a file, or one with token_ids and top_values; older ones (packed_indices) are not read",
            )
        config = self.compression or read_compression(self._folder)
        packed, numbers = (lists_of(batch, name, number) for name in reversed(_COMPRESSED))
        if len(packed) == len(numbers) == 0:
            return np.zeros((0, config.k), np.int64), np.zeros((0, config.k))
        if (
            max(packed.max(initial=0), numbers.max(initial=0)) > 255
            or min(packed.min(initial=0), numbers.min(initial=0)) < 0
        ):
            raise misaligned("a byte is no number from 0 to 255")
        wanted = (-(-config.k * config.id_bits // 8), config.number_bytes)
        if packed.shape[1:] != wanted[:1] or numbers.shape[1:] != wanted[1:] or len(packed) != len(numbers):
            raise misaligned(
                f"ids of {packed.shape} and numbers of {numbers.shape} bytes, and {CONFIG} says {wanted[0]} and {wanted[1]}"
            )
        bits, values = packed.astype(np.uint8), numbers.astype(np.uint8)
        return unpacked(bits, config.id_bits, config.k), decoded(values, config)


def decoded(data: Bytes, config: Compression) -> Floats:
    """The log-probabilities (P, K) of bytes (P, B), the largest first."""
    parts = _Reader(data)
    rest = config.k - config.exact_k
    exact, tail = parts.floats(config.exact_dtype, config.exact_k), np.zeros((len(data), rest))
    if config.polynomial_terms:
        coefficients = parts.floats(config.term_dtype, len(config.polynomial_terms))
        t = np.linspace(0, 1, rest) if config.normalize_t else np.arange(rest, dtype=np.float64)
        terms = [getattr(np, term)(t) if isinstance(term, str) else t**term for term in config.polynomial_terms]
        with np.errstate(all="ignore"):  # what is no number is refused where rows are looked at
            tail += coefficients @ np.stack(terms)
    start = 0
    for each in config.residual_bins:
        scale = parts.floats(each.scale_dtype, 1)
        elements = unpacked(
            parts.take(-(-each.element_bits * each.num_elements // 8)), each.element_bits, each.num_elements
        )
        steps = 2 * elements - 1 if each.element_bits == 1 else elements - (1 << each.element_bits - 1)
        with np.errstate(all="ignore"):
            tail[:, start : start + each.num_elements] += steps * scale
        start += each.num_elements
    with np.errstate(all="ignore"):
        whole = np.concatenate([exact, tail], axis=1)
        return np.cumsum(whole, axis=1) if config.delta_encoding else whole


def unpacked(data: Bytes, width: int, count: int) -> Ints:
    """`count` integers (P, count) of `width` bits each, the first bit the highest, from bytes (P, B)."""
    bits = np.unpackbits(data, axis=1, count=width * count).reshape(len(data), count, width)
    return bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


class _Reader:
    """Bytes (P, B) taken from the left."""

    def __init__(self, data: Bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> Bytes:
        """The next `size` of each position."""
        self._at += size
        return np.ascontiguousarray(self._data[:, self._at - size : self._at])

    def floats(self, dtype: _Float, count: int) -> Floats:
        """The next `count` numbers (P, count)."""
        raw = self.take(count * _width(dtype))
        if dtype == "bfloat16":
            return (raw.view("<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
        return raw.view(np.dtype(dtype).newbyteorder("<")).astype(np.float64)


def _width(dtype: _Float) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
