"""Arrow streams of whoever made the store: what a plain reader would read otherwise than we do is refused, and nothing else
happens."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from softlabels import array_keys, store_spec
from softlabels.store.arrow_layout import ArrowLayout, _schema

ROOT = Path(__file__).parents[2]
ROWS = (16, 16, 8)
SPEC = store_spec(
    teacher="mine", name="rows", keys=array_keys(np.arange(40)), classes=3, layout="arrow", rows_per_chunk=16,
    rows_per_shard=48,
)  # fmt: skip


class Bytes:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_into(self, start: int, out: memoryview) -> int:
        part = self.data[start : start + len(out)]
        out[: len(part)] = part
        return len(part)


def batch(rows: int, gap: str = "") -> pa.RecordBatch:
    """Zeros; some rows of column `gap` are null, or its numbers where it ends in "/"."""
    columns = []
    for column in SPEC.columns:
        count = rows * column.row_bytes // column.numpy_dtype.itemsize
        inner = gap == f"{column.name}/" or (gap == column.name and not column.shape)
        within = np.arange(count) % 5 == 1 if inner else None
        array = pa.array(np.zeros(count, column.dtype), mask=within)
        for axis, size in reversed(list(enumerate(column.shape))):
            gaps = pa.array(np.arange(rows) % 3 == 1) if gap == column.name and axis == 0 else None
            array = pa.FixedSizeListArray.from_arrays(array, size, mask=gaps)
        columns.append(array)
    return pa.record_batch(columns, schema=_schema(SPEC))


def stream(*batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _schema(SPEC), options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        for each in batches:
            out.write_batch(each)
    return bytes(sink.getvalue())


def located(data: bytes) -> None:
    ArrowLayout().locate(SPEC, 0, SPEC.columns, Bytes(data))


def test_a_plain_stream_is_located() -> None:
    located(stream(*map(batch, ROWS)))


@pytest.mark.parametrize("gap", ["label", "logits", "logits/", "shift/"])
def test_nulls_are_refused(gap: str) -> None:
    """`datasets` would give None there, and we a number."""
    with pytest.raises(ValueError, match="has nulls"):
        located(stream(batch(16), batch(16, gap), batch(8)))


def test_compressed_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="compressed"):
        located(stream(*map(batch, ROWS), compression="zstd"))


def test_a_batch_more_is_refused() -> None:
    with pytest.raises(ValueError, match="not the chunks that the plan cuts"):
        located(stream(batch(0), *map(batch, ROWS)))


@pytest.mark.parametrize("kind", [0, 2, 3, 255])
def test_a_first_message_that_is_no_schema(kind: int) -> None:
    """The byte that says what the message is; in a process of its own, as pyarrow may die of it."""
    code = f"""
        from tests.store.test_arrow_layout import ROWS, batch, located, stream
        data = bytearray(stream(*map(batch, ROWS)))
        assert data[29] == 1  # a schema
        for other in (0, 127, 176, 272, 372, 442, 582, 619, 672):
            damaged = bytearray(data)
            damaged[29], damaged[other] = {kind}, 127 if other else 255
            try:
                located(bytes(damaged))
            except ValueError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9
    assert "is no schema" in done.stdout
