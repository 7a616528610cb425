"""The peer of `far_reading.py`, for an environment of its own: windows of random chunks of an array on S3, by s3fs and zarr.

python benchmarks/far_peer.py ENDPOINT KEY SECRET BUCKET/STORE/logits ROWS_PER_CHUNK WINDOW STEP_SECONDS
"""

from __future__ import annotations

import json
import sys
import threading
import time
from queue import Queue

import numpy as np
import s3fs  # type: ignore[import-not-found,unused-ignore]
import zarr


def main() -> None:
    """Print what one pass took, as JSON."""
    endpoint, key, secret, path, *numbers = sys.argv[1:]
    chunk, window, step = int(numbers[0]), int(numbers[1]), float(numbers[2])
    begun, cpu = time.perf_counter(), time.process_time()
    files = s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=endpoint, asynchronous=True)
    array = zarr.open_array(zarr.storage.FsspecStore(files, read_only=True, path=path), mode="r")
    chunks = np.random.default_rng(0).permutation(array.shape[0] // chunk)
    queue: Queue[np.ndarray | None] = Queue(maxsize=1)

    def read() -> None:
        for first in range(0, len(chunks), window):
            rows = np.concatenate(
                [np.arange(c * chunk, (c + 1) * chunk) for c in np.sort(chunks[first : first + window])]
            )
            queue.put(np.asarray(array.oindex[rows]))
        queue.put(None)

    threading.Thread(target=read, daemon=True).start()
    first_batch, batches = 0.0, 0
    while (block := queue.get()) is not None:
        first_batch = first_batch or time.perf_counter() - begun
        for _ in range(0, len(block), chunk):
            time.sleep(step)
            batches += 1
    took = time.perf_counter() - begun - first_batch
    print(json.dumps({"first": first_batch, "took": took, "batches": batches, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
