"""What it costs to read a store where it lies: S3 on loopback, without and with latency, beside the same store on a disk, and
beside peers that read the same labels there.

Each reader gives shuffled passes over dense labels of 1,000 classes in batches of 512 rows: alone, under a step that leaves
the processor free for 5 ms, under an MLP and under a small ResNet. The server is SeaweedFS behind a relay that holds each
request back and counts (`slow_network.py`). Each --peer names what reads (`far_peer.py`) and an interpreter that has it.

    python -m benchmarks.far_reading --peer s3fs=ENV/bin/python --peer tensorstore=ENV/bin/python \
        --peer mosaic=ENV/bin/python --output benchmarks/results/far_reading.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.far_students import Step, alone, mlp, paused, resnet
from benchmarks.noise import BATCH, CHUNK, write
from benchmarks.page import machine, publish
from benchmarks.slow_network import Relay, relay
from softlabels.jobs.share import push
from softlabels.store import open_store
from softlabels.stream import Loader
from softlabels.system.urls import depot_of
from softlabels.transfer import TransferRows
from tests.jobs.seaweed import running

STEP = 0.005  # seconds
WINDOW = 16
LATENCIES = (0.0, 0.02)
NAMES = {"s3fs": "s3fs and zarr", "tensorstore": "tensorstore", "mosaic": "MosaicML streaming"}


@dataclass(frozen=True)
class Passed:
    """One pass: seconds to the first batch, that later steps waited, and of the processor without the student; batches; and
    requests until rows and labels had met (`opening`), since then, and bytes.
    """

    first: float
    waited: float
    cpu: float
    batches: int
    opening: int = 0
    requests: int = 0
    bytes: int = 0


def line(name: str, passes: list[Passed]) -> str:
    """A row of the table, of the passes in the order of `students`."""
    one = passes[0]
    thousands = one.batches * BATCH / 1000
    waits = " | ".join(f"{each.waited / max(1, each.batches - 1) * 1e3:.2f}" for each in passes)
    return (
        f"| {name} | {one.first * 1e3:,.0f} | {one.cpu / thousands * 1e3:.1f} | {waits} | {one.opening} | "
        f"{one.requests / thousands:.2f} | {one.bytes / thousands / 1e6:.2f} |"
    )


def students(classes: int) -> list[tuple[Step, int]]:
    """Each with how many batches it takes at most."""
    return [(alone, 1 << 30), (paused(STEP), 1 << 30), (mlp(classes), 48), (resnet(classes), 32)]


def main() -> None:
    """Write the stores, put them on the server, read each in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--peer", action="append", default=[], metavar="KIND=PYTHON")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = students(options.classes)
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder, running(Path(folder)) as server:
        os.environ.update(server.environment)
        depot_of("s3://bench").put("here", b"so that the bucket is there")
        rows = write(Path(folder), options.rows, options.classes)
        peers = dict(each.split("=", 1) for each in options.peer)
        if "mosaic" in peers:
            carry_mosaic(Path(folder), peers["mosaic"])
        lines, seconds = [], [step_seconds(step, rows, Path(folder)) for step, _ in steps]
        for layout in ("zarr", "arrow"):
            push(Path(folder) / layout, f"s3://bench/{layout}")
            lines.append(line(f"on the disk, {layout}", ours(str(Path(folder) / layout), rows, steps)))
        for latency in LATENCIES:
            with relay(server.endpoint, latency) as network, reached(network.endpoint):
                for layout in ("zarr", "arrow"):
                    found = ours(f"s3://bench/{layout}", rows, steps, network)
                    lines.append(line(f"on S3, {layout}, {latency * 1e3:.0f} ms", found))
                for kind, python in peers.items():
                    read = partial(theirs, kind, python, network, Path(folder) / "local")
                    given = [(each, most) for each, (_, most) in zip(seconds, steps, strict=True)]
                    lines.append(line(f"{NAMES[kind]}, {latency * 1e3:.0f} ms", read(given)))
    publish(page(lines, seconds, options), options.output)


def step_seconds(step: Step, rows: TransferRows, folder: Path) -> float:
    """What a step takes, of the processor; below 0 what it sleeps."""
    if step is alone:
        return 0.0
    batch = next(Loader(rows, open_store(folder / "zarr"), batch_size=BATCH, seed=0).epoch(0))
    took = []
    for _ in range(4):
        begun, wall = time.thread_time(), time.perf_counter()
        step(batch)
        took.append((time.thread_time() - begun, time.perf_counter() - wall))
    used, wall = min(took)
    return used if used > STEP / 2 else -STEP


def ours(store: str, rows: TransferRows, steps: list[tuple[Step, int]], network: Relay | None = None) -> list[Passed]:
    """A pass of the loader under each student, from opening the store on."""
    return [_passed(store, rows, step, most, network) for step, most in steps]


def _passed(store: str, rows: TransferRows, step: Step, most: int, network: Relay | None) -> Passed:
    if network is not None:
        network.reset()
    begun, cpu = time.perf_counter(), time.process_time()
    waited, first, count, computed = 0.0, 0.0, 0, 0.0
    loader = Loader(rows, open_store(store), batch_size=BATCH, seed=0, window=WINDOW)
    opening = network.asked.value if network is not None else 0
    batches = loader.epoch(0)
    while count < most:
        at = time.perf_counter()
        if (batch := next(batches, None)) is None:
            break
        now = time.perf_counter()
        count += 1
        first, waited = (now - begun, 0.0) if count == 1 else (first, waited + now - at)
        used = time.thread_time()
        step(batch)
        computed += time.thread_time() - used
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    requests, came = (network.asked.value - opening, network.came.value) if network is not None else (0, 0)
    return Passed(first, waited, time.process_time() - cpu - computed, count, opening, requests, came)


def theirs(kind: str, python: str, network: Relay, local: Path, given: list[tuple[float, int]]) -> list[Passed]:
    """The same of a peer."""
    store = "bench/mds" if kind == "mosaic" else "bench/zarr"
    words = [python, str(_PEER), kind, network.endpoint, store, str(CHUNK), str(WINDOW), str(local)]
    found, log = [], local.with_name("peer.log")
    with (
        log.open("w") as said_beside,
        subprocess.Popen(  # noqa: S603  # the user's own interpreter
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said_beside, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        for seconds, most in given:
            network.reset()
            process.stdin.write(f"{seconds} {most}\n")
            process.stdin.flush()
            if not (answer := process.stdout.readline()):
                raise SystemExit(f"{NAMES[kind]} has ended: {log.read_text()[-500:]}")
            said = json.loads(answer)
            found.append(Passed(**said, requests=network.asked.value, bytes=network.came.value))
        process.stdin.close()
    return found


_PEER = Path(__file__).with_name("far_peer.py")


def carry_mosaic(folder: Path, python: str) -> None:
    """The labels as a data set of MosaicML streaming, on the server."""
    os.link(folder / "logits.npy", folder / "labels.npy")
    words = [python, str(_PEER), "mosaic-write", "", "", "0", "0", str(folder)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # the user's own interpreter
    for path in (folder / "mds").iterdir():
        depot_of("s3://bench/mds").fill(path.name, [path.read_bytes()], path.stat().st_size, staged="")


@contextmanager
def reached(endpoint: str) -> Iterator[None]:
    """While S3 is here."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before


def page(lines: list[str], seconds: list[float], options: argparse.Namespace) -> str:
    """The results with what they were taken on."""
    head = (
        "| reader, latency | first batch, ms | CPU ms | alone, ms | 5 ms | MLP | ResNet | requests to open | requests | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    )
    return "\n".join(
        [
            "# Reading a store where it lies\n",
            f"Shuffled passes over {options.rows:,} rows of {options.classes:,} classes in batches of {BATCH}. CPU, requests",
            "and MB are those of 1,000 rows, read alone; the requests that open the store, and join rows to it, are counted",
            "before, in all. Then the ms that a batch is waited for, on average, but for the first: alone, by a student that",
            f"leaves the processor free for 5 ms, by an MLP 784-800-800-{options.classes} and by a small ResNet, whose steps",
            f"take {seconds[2] * 1e3:.0f} and {seconds[3] * 1e3:.0f} ms of the processor (a peer multiplies matrices as long).",
            "Server, relay and reader share the processors. Peers read the logits alone; MosaicML streaming keeps whole shards",
            "on the disk, and reads them there.\n",
            *head,
            *lines,
            "",
            machine("torch", "obstore", "numpy"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
