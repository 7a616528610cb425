"""Whether zarr-python could encode our shards: time and memory beside our own encoder, and whether the bytes are the same.

    python -m benchmarks.zarr_encoding --output benchmarks/results/zarr_encoding.md

The columns of a shard of dense labels go into files that are not flushed: by `softlabels.store.zarr_layout`, and by zarr-python
into arrays of our own metadata, with `write_empty_chunks`. The last shard of a store has fewer rows than a full one.
Every run is a process of its own; the ways take turns. Memory is what the process's peak rises by while the shard is encoded,
its columns not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.store.layout import chunk_rows
from softlabels.store.layouts import layout_of
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import Spec

WAYS = ("ours", "zarr-python")
CHUNKS = 32  # of a shard
Arrays = dict[str, NDArray[np.generic]]


def shard(classes: int, compression: str, rows: int, cut: int) -> tuple[Spec, int, Arrays]:
    """A store's specification, the number of its last shard and that shard's columns; `cut`: rows of a shard."""
    facts: dict[str, Any] = {"teacher": "benchmark", "name": "random", "classes": classes, "compression": compression}
    facts |= {"rows_per_shard": cut, "rows_per_chunk": cut // CHUNKS}
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), np.uint8)
    spec = store_spec(keys=keys, **facts)
    number = spec.shards - 1
    at = spec.shard_rows(number)
    logits = 3 * rng.standard_normal((len(at), 1, classes), np.float32)
    shift = logits.max(axis=-1)
    arrays = {"content_key": keys[at.start : at.stop], "label": rng.integers(0, classes, len(at))}
    return spec, number, arrays | {"logits": (logits - shift[..., None]).astype(np.float16), "shift": shift}


def ours(spec: Spec, number: int, arrays: Arrays, folder: Path) -> None:
    """The shard's files, by our encoder, a chunk after the other."""
    layout = layout_of(spec)
    with ExitStack() as opened:
        sinks = {}
        for column in spec.columns:
            (folder / column.name).mkdir()
            path = layout.path(column, number)
            sinks[path] = opened.enter_context((folder / path).open("wb"))
        files = layout.files(spec, number, sinks)
        for chunk in range(spec.shard_chunks(number)):
            at = chunk_rows(spec, number, chunk)
            for _ in files.add({name: values[at.start : at.stop] for name, values in arrays.items()}):
                pass
        files.end()


def by_zarr(spec: Spec, number: int, arrays: Arrays, folder: Path) -> None:
    """The same by zarr-python."""
    import zarr

    for name, data in layout_of(spec).metadata(spec, "", 2).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    at = spec.shard_rows(number)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for column in spec.columns:
            array = zarr.open_array(folder / column.name, mode="r+")
            array[at.start : at.stop] = column.encode(arrays[column.name])


def child(way: str, classes: int, compression: str, rows: int, cut: int) -> dict[str, Any]:
    """Encode a shard once: seconds, bytes of memory, digest of all files and their size."""
    encode = ours if way == "ours" else by_zarr
    with TemporaryDirectory() as folder:
        encode(*shard(classes, compression, 16, 16 * CHUNKS), Path(folder))  # imports are not what is measured
    spec, number, arrays = shard(classes, compression, rows, cut)
    with TemporaryDirectory() as folder:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now
        before, start = peak(), time.perf_counter()
        encode(spec, number, arrays, Path(folder))
        seconds, rise = time.perf_counter() - start, peak() - before
        paths = [layout_of(spec).path(column, number) for column in spec.columns]
        files = {path: (Path(folder) / path).read_bytes() for path in paths}
    digest = hashlib.sha256(b"".join(hashlib.sha256(files[path]).digest() for path in paths))
    return {
        "seconds": seconds, "memory": rise, "digest": digest.hexdigest(), "bytes": sum(map(len, files.values())),
        "rows": len(spec.shard_rows(number)), "chunks": spec.shard_chunks(number),
    }  # fmt: skip


def peak() -> int:
    """The process's largest resident size so far, or since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next((line for line in lines if line.startswith("VmHWM")), "")
    return int(found.split()[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def asked(way: str, case: Sequence[object]) -> dict[str, Any]:
    """`child` in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.zarr_encoding", "--child", json.dumps([way, *case])]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603  # our own words
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and publish the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows-per-shard", type=int, default=65_536)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", type=json.loads)
    options = parser.parse_args(argv)
    if options.child is not None:
        print(json.dumps(child(*options.child)))
        return
    from benchmarks.page import machine, publish

    lines = []
    for classes in options.classes:
        full = options.rows_per_shard
        for compression in ("none", "zstd"):
            for rows in (full, full + full // 3):
                case = (classes, compression, rows, full)
                lines += table_lines(classes, compression, {way: [] for way in WAYS}, case, options.rounds)
    publish(
        "# Whether zarr-python could encode our shards\n\n"
        f"One shard of dense labels, one member; median of {options.rounds} rounds, each way a process of its own, in turns.\n"
        "Memory: what the peak rises by while the shard is encoded. The second shard of each kind is a store's last, a third\n"
        "full.\n\n"
        f"{machine('zarr', 'numpy', 'pyarrow', 'google-crc32c')}\n\n"
        "| classes | compression | rows | chunks | MiB of files | way | ms | MiB of memory | same bytes |\n"
        "| ---: | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |\n" + "\n".join(lines) + "\n",
        options.output,
    )


def table_lines(
    classes: int, compression: str, found: dict[str, list[dict[str, Any]]], case: Sequence[object], rounds: int
) -> list[str]:
    """A line a way."""
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(asked(way, case))
    digests = {each["digest"] for each in found["ours"]}
    lines = []
    for way, runs in found.items():
        milliseconds = 1000 * statistics.median(each["seconds"] for each in runs)
        memory = statistics.median(each["memory"] for each in runs) / 2**20
        same = "yes" if {each["digest"] for each in runs} == digests and len(digests) == 1 else "no"
        lines.append(
            f"| {classes:,} | {compression} | {runs[0]['rows']:,} | {runs[0]['chunks']} | {runs[0]['bytes'] / 2**20:.1f} | "
            f"{way} | {milliseconds:,.0f} | {memory:,.0f} | {same} |"
        )
    return lines


if __name__ == "__main__":
    main()
