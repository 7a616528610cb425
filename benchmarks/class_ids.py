"""Which way of keeping a position's K class ids takes the fewest bytes, and how fast it is read.

    python -m benchmarks.class_ids --output benchmarks/results/class_ids.md

Ids are the K largest of made-up logits: Zipf's law by the class's frequency, Gaussian context on top, and ids that follow the
frequencies roughly, as those of a tokenizer do. A chunk of 1,024 positions is packed and read into int64 ids by numpy, in one
thread; best of the rounds.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.page import publish
from softlabels.labels.class_ids import narrow, widen

POSITIONS = 1024
BLOCK = 64
Ids = NDArray[np.int64]
Way = tuple[str, Callable[[Ids, int], tuple[int, Callable[[], Ids]]]]  # bytes, and what reads them


def made_up(classes: int, most: int, positions: int, rng: np.random.Generator) -> Ids:
    """(N, most) ids of the largest logits, the largest first."""
    frequency = -1.1 * np.log(np.arange(classes) + 2.7)
    class_id = np.argsort(np.argsort(-frequency + rng.normal(0, 1, classes)))  # of the class of each frequency
    found = []
    for start in range(0, positions, BLOCK):
        shape = (min(BLOCK, positions - start), classes)
        z = frequency.astype(np.float32) + 2.5 * rng.standard_normal(shape, np.float32)
        top = np.argpartition(z, classes - most, axis=1)[:, classes - most :]
        order = np.argsort(-np.take_along_axis(z, top, axis=1), axis=1)
        found.append(class_id[np.take_along_axis(top, order, axis=1)])
    return np.concatenate(found).astype(np.int64)


def columns(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """As the store keeps them."""
    found = narrow(ids, classes)
    return sum(each.nbytes for each in found.values()), lambda: widen(found, classes)


def zstd_columns(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """The store's columns, each compressed."""
    found = {name: (zstd(each), each.dtype, each.shape) for name, each in narrow(ids, classes).items()}

    def read() -> Ids:
        return widen({name: unzstd(*each) for name, each in found.items()}, classes)

    return sum(len(data) for data, _, _ in found.values()), read


def plain(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """uint32."""
    found = ids.astype(np.uint32)
    return found.nbytes, lambda: found.astype(np.int64)


def zstd_plain(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """uint32, compressed."""
    data = zstd(ids.astype(np.uint32))
    return len(data), lambda: unzstd(data, np.dtype(np.uint32), ids.shape).astype(np.int64)


def zstd_deltas(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """Differences of neighbours as uint32, low bytes of all before the next, compressed."""
    deltas = np.diff(ids, axis=1, prepend=0).astype("<u4")
    data = zstd(np.ascontiguousarray(deltas.view(np.uint8).reshape(-1, 4).T))

    def read() -> Ids:
        planes = unzstd(data, np.dtype(np.uint8), (4, ids.size))
        return np.ascontiguousarray(planes.T).view("<u4").reshape(ids.shape).cumsum(axis=1, dtype=np.int64)

    return len(data), read


def bits(ids: Ids, classes: int) -> tuple[int, Callable[[], Ids]]:
    """As many bits an id as the largest needs; a position ends with a whole byte."""
    width, stored = (classes - 1).bit_length(), ids.shape[1]
    each = (ids[:, :, None] >> np.arange(width)) & 1
    packed = np.packbits(each.reshape(len(ids), -1).astype(np.uint8), axis=1, bitorder="little")
    first = np.arange(stored) * width
    byte, shift = first // 8, (first % 8).astype(np.uint32)

    def read() -> Ids:
        padded = np.pad(packed, ((0, 0), (0, 4)))
        windows = np.lib.stride_tricks.as_strided(
            padded, (len(ids), packed.shape[1], 4), (padded.strides[0], 1, 1), writeable=False
        )
        words = np.ascontiguousarray(windows[:, byte]).view("<u4")[:, :, 0]
        return ((words >> shift) & np.uint32((1 << width) - 1)).astype(np.int64)

    return packed.nbytes, read


WAYS: list[Way] = [
    ("uint16, and pages beyond 65,536 classes (the store's)", columns),
    ("the same, zstd", zstd_columns),
    ("uint32", plain),
    ("uint32, zstd", zstd_plain),
    ("differences, bytes apart, zstd", zstd_deltas),
    ("bits", bits),
]
_CODEC = pa.Codec("zstd", compression_level=3)


def zstd(values: NDArray[Any]) -> bytes:
    """Compressed."""
    return bytes(_CODEC.compress(values.tobytes(), asbytes=True))


def unzstd(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What `zstd` was given."""
    raw = _CODEC.decompress(data, decompressed_size=math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def seconds(read: Callable[[], object], rounds: int) -> float:
    """The best."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        read()
        found.append(time.perf_counter() - start)
    return min(found)


def set_bound(classes: int, stored: int) -> float:
    """Bytes of any K of C classes, were all sets alike: log2 of how many there are."""
    count = math.lgamma(classes + 1) - math.lgamma(stored + 1) - math.lgamma(classes - stored + 1)
    return count / math.log(2) / 8


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[50_257, 131_072, 151_936])
    parser.add_argument("--stored", type=int, nargs="+", default=[16, 50])
    parser.add_argument("--positions", type=int, default=POSITIONS)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="also write the page here")
    options = parser.parse_args(argv)
    lines = [
        "# Class ids: bytes a position, and how fast they are read",
        "",
        f"{options.positions:,} positions a chunk, made-up logits by Zipf's law; read into int64 by numpy, one thread, best of "
        f"{options.rounds} rounds. Python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}; zstd "
        "level 3. A set of K classes, were all alike, takes log2 of their number: the bound in the heading.",
    ]
    rng = np.random.default_rng(0)
    for classes in options.classes:
        largest = made_up(classes, max(options.stored), options.positions, rng)
        for stored in options.stored:
            ids = np.sort(largest[:, :stored], axis=1)
            lines += ["", f"## {classes:,} classes, K = {stored} ({set_bound(classes, stored):.1f} bytes)", ""]
            lines += ["| how | bytes a position | million positions/s |", "| --- | ---: | ---: |"]
            for name, way in WAYS:
                size, read = way(ids, classes)
                assert np.array_equal(read(), ids)
                speed = options.positions / seconds(read, options.rounds) / 1e6
                lines.append(f"| {name} | {size / options.positions:.1f} | {speed:.2f} |")
    text = "\n".join([*lines, ""])
    publish(text, options.output)


if __name__ == "__main__":
    main()
