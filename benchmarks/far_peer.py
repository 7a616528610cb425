"""The peers of `far_reading.py`, each for an environment of its own: s3fs with zarr, tensorstore, or MosaicML streaming.

    python benchmarks/far_peer.py KIND ENDPOINT BUCKET/STORE ROWS_PER_CHUNK WINDOW FOLDER

KIND: s3fs or tensorstore, which read windows of as many random chunks of an array in the background; mosaic, which shuffles by
itself; or mosaic-write, which makes its data set in FOLDER from the array labels.npy there. Credentials are those of the
environment. A line on the standard input, "SECONDS BATCHES", begins a pass of so many batches under steps of so many seconds
of computing, or below 0 of sleeping; a line of JSON says what it took.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

AT_ONCE = 16  # chunks


def main() -> None:
    """Answer each line of the standard input with what a pass took."""
    kind, endpoint, store, chunk, window, folder = sys.argv[1:]
    if kind == "mosaic-write":
        write(Path(folder))
        return
    opened: Callable[[], Iterator[Any]] = {"s3fs": s3fs_zarr, "tensorstore": tensorstore, "mosaic": mosaic}[kind](
        endpoint, store, int(chunk), int(window), Path(folder)
    )
    for line in sys.stdin:
        seconds, batches = line.split()
        print(json.dumps(passed(opened, float(seconds), int(batches))), flush=True)


def passed(opened: Callable[[], Iterator[Any]], step: float, most: int) -> dict[str, float]:
    """Seconds to the first batch, seconds that the steps behind it waited in all, of the processor, and how many batches."""
    begun, cpu = time.perf_counter(), time.process_time()
    computed, waited, first, count = 0.0, 0.0, 0.0, 0
    batches = opened()
    while count < most:
        at = time.perf_counter()
        if next(batches, None) is None:
            break
        now = time.perf_counter()
        count += 1
        if count == 1:
            first = now - begun
        else:
            waited += now - at
        computed += compute(step)
    return {"first": first, "waited": waited, "cpu": time.process_time() - cpu - computed, "batches": count}


def compute(step: float) -> float:
    """A step of a student: products of matrices for so many seconds of this thread. Returns these."""
    if step < 0:
        time.sleep(-step)
    begun, one = time.thread_time(), np.ones((128, 128), np.float32)
    while time.thread_time() - begun < step:
        one @ one
    return time.thread_time() - begun


def windows(read: Callable[[int], Any], chunks: int, window: int) -> Iterator[Any]:
    """Batches of one chunk's rows, of windows that are read in the background."""
    order, queue = np.random.default_rng(0).permutation(chunks), Queue[Any](maxsize=1)

    def fill() -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(0, len(order), window):
                block = np.concatenate(list(pool.map(read, order[first : first + window].tolist())))
                queue.put(block[np.random.default_rng(first).permutation(len(block))])
        queue.put(None)

    threading.Thread(target=fill, daemon=True).start()
    while (block := queue.get()) is not None:
        yield from np.array_split(block, window)


def s3fs_zarr(endpoint: str, store: str, chunk: int, window: int, folder: Path) -> Callable[[], Iterator[Any]]:
    """An array of zarr on s3fs."""
    import s3fs  # type: ignore[import-not-found,unused-ignore]
    import zarr

    def opened() -> Iterator[Any]:
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem(endpoint_url=endpoint, asynchronous=True)
        array: Any = zarr.open_array(zarr.storage.FsspecStore(files, read_only=True, path=f"{store}/logits"), mode="r")
        return windows(lambda c: array[c * chunk : (c + 1) * chunk], array.shape[0] // chunk, window)

    return opened


def tensorstore(endpoint: str, store: str, chunk: int, window: int, folder: Path) -> Callable[[], Iterator[Any]]:
    """The same of tensorstore."""
    import tensorstore as ts  # type: ignore[import-not-found,unused-ignore]

    bucket, _, path = store.partition("/")
    there = {
        "driver": "s3",
        "bucket": bucket,
        "path": f"{path}/logits/",
        "endpoint": endpoint,
        "aws_region": "us-east-1",
    }

    def opened() -> Iterator[Any]:
        array = ts.open({"driver": "zarr3", "kvstore": there}, read=True, context=ts.Context()).result()
        return windows(lambda c: array[c * chunk : (c + 1) * chunk].read().result(), array.shape[0] // chunk, window)

    return opened


def mosaic(endpoint: str, store: str, chunk: int, window: int, folder: Path) -> Callable[[], Iterator[Any]]:
    """MosaicML streaming, which fetches whole shards into a folder and shuffles their rows."""
    from streaming import StreamingDataset  # type: ignore[import-not-found,unused-ignore]

    os.environ["S3_ENDPOINT_URL"] = endpoint

    def opened() -> Iterator[Any]:
        shutil.rmtree(folder, ignore_errors=True)
        data = StreamingDataset(remote=f"s3://{store}", local=str(folder), shuffle=True, batch_size=chunk)
        rows: list[Any] = []
        for row in data:
            rows.append(row["logits"])
            if len(rows) == chunk:
                yield np.stack(rows)
                rows = []

    return opened


def write(folder: Path) -> None:
    """A data set of MosaicML streaming in `folder`/mds."""
    from streaming import MDSWriter  # type: ignore[import-not-found,unused-ignore]

    labels = np.load(folder / "labels.npy", mmap_mode="r")
    columns = {"logits": f"ndarray:float16:{','.join(map(str, labels.shape[1:]))}"}
    with MDSWriter(out=str(folder / "mds"), columns=columns) as out:
        for row in labels:
            out.write({"logits": np.asarray(row)})


if __name__ == "__main__":
    main()
