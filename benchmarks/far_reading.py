"""What it costs to read a store where it lies: S3 on loopback, without and with latency, beside the same store on a disk.

Each reader gives one shuffled pass over dense labels of 1,000 classes, in batches of 512 rows with a pause of 5 ms after each
in the place of a training step. The server is SeaweedFS behind a relay that holds each request back and counts
(`slow_network.py`). With --peer_python, an interpreter that has s3fs and zarr, these read the same Zarr array in windows of as
many random chunks.

    python -m benchmarks.far_reading --peer_python=ENV/bin/python --output benchmarks/results/far_reading.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.noise import BATCH, CHUNK, write
from benchmarks.page import machine, publish
from benchmarks.slow_network import Relay, relay
from softlabels.jobs.share import push
from softlabels.store import open_store
from softlabels.stream import Loader
from softlabels.stream.batch import Batch
from softlabels.system.urls import depot_of
from softlabels.transfer import TransferRows
from tests.jobs.seaweed import SECRET, running

STEP = 0.005  # seconds
WINDOW = 16
LATENCIES = (0.0, 0.02)


@dataclass(frozen=True)
class Measured:
    """Seconds to the first batch, of the rest, and of the processor; batches, and what went over the network: requests until
    rows and labels had met (`opening`), and since.
    """

    first: float
    took: float
    cpu: float
    batches: int
    opening: int = 0
    requests: int = 0
    bytes: int = 0

    def line(self, name: str) -> str:
        """A row of the table."""
        thousands = self.batches * BATCH / 1000
        wait = self.took / self.batches - STEP
        return (
            f"| {name} | {self.first * 1e3:,.0f} | {wait * 1e3:.2f} | {self.cpu / thousands * 1e3:.1f} | "
            f"{self.opening} | {self.requests / thousands:.2f} | {self.bytes / thousands / 1e6:.2f} |"
        )


def main() -> None:
    """Write the stores, put them on the server, read each in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--peer_python", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder, running(Path(folder)) as server:
        os.environ.update(server.environment)
        depot_of("s3://bench").put("here", b"so that the bucket is there")
        rows = write(Path(folder), options.rows, options.classes)
        for layout in ("zarr", "arrow"):
            push(Path(folder) / layout, f"s3://bench/{layout}")
            lines.append(ours(str(Path(folder) / layout), rows).line(f"on the disk, {layout}"))
        for latency in LATENCIES:
            with relay(server.endpoint, latency) as network:
                for name, read in readers(network, rows, options.peer_python).items():
                    network.reset()
                    with reached(network.endpoint):
                        found = read()
                    requests = network.asked.value - found.opening
                    counted = replace(found, requests=requests, bytes=network.came.value)
                    lines.append(counted.line(f"{name}, {latency * 1e3:.0f} ms"))
    publish(page(lines, options), options.output)


def readers(network: Relay, rows: TransferRows, peer: Path | None) -> dict[str, Callable[[], Measured]]:
    """Ours on both layouts, and the peer."""
    found: dict[str, Callable[[], Measured]] = {
        f"on S3, {layout}": lambda layout=layout: ours(f"s3://bench/{layout}", rows, network)  # type: ignore[misc]
        for layout in ("zarr", "arrow")
    }
    return found | ({"s3fs and zarr, logits alone": lambda: theirs(network, peer)} if peer else {})


def ours(store: str, rows: TransferRows, network: Relay | None = None) -> Measured:
    """A pass of the loader, from opening the store on."""
    begun, cpu = time.perf_counter(), time.process_time()
    loader = Loader(rows, open_store(store), batch_size=BATCH, seed=0, window=WINDOW)
    opening = network.asked.value if network is not None else 0
    batches = loader.epoch(0)
    next(batches)
    first = time.perf_counter() - begun
    count = 1 + sum(1 for _ in _stepping(batches))
    return Measured(first, time.perf_counter() - begun - first, time.process_time() - cpu, count, opening)


def _stepping(batches: Iterator[Batch]) -> Iterator[Batch]:
    time.sleep(STEP)
    for batch in batches:
        yield batch
        time.sleep(STEP)


def theirs(network: Relay, python: Path) -> Measured:
    """The same of s3fs and zarr."""
    words = [network.endpoint, "tester", SECRET, "bench/zarr/logits", CHUNK, WINDOW, STEP]
    script = Path(__file__).with_name("far_peer.py")
    done = subprocess.run(  # noqa: S603  # the user's own interpreter
        [python, script, *map(str, words)], check=True, capture_output=True, text=True
    )
    return Measured(**json.loads(done.stdout))


@contextmanager
def reached(endpoint: str) -> Iterator[None]:
    """While S3 is here."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before


def page(lines: list[str], options: argparse.Namespace) -> str:
    """The results with what they were taken on."""
    head = (
        "| reader, latency | first batch, ms | waiting a step of 5 ms, ms | CPU ms | requests to open | requests | MB |",
        "|---|---|---|---|---|---|---|",
    )
    return "\n".join(
        [
            "# Reading a store where it lies\n",
            f"One shuffled pass over {options.rows:,} rows of {options.classes:,} classes in batches of {BATCH}, with a pause",
            "of 5 ms after each. CPU, requests and bytes are those of 1,000 rows; the requests that open the store, read its",
            "keys and hard labels, and join rows to them, are counted before, in all. Waiting is what a step took beyond its",
            "5 ms. Server, relay and reader share the processors.\n",
            *head,
            *lines,
            "",
            machine("torch", "obstore", "numpy"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
