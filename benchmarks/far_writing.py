"""What it costs to write a store where it will lie: requests and seconds a shard of four columns, without and with latency.

A teacher of two linear members labels rows into SeaweedFS on loopback, behind a relay that holds each request back and counts
(`slow_network.py`). A pass over few shards is taken from one over more: what remains is of the shards in between, with
their part of the seal.

    python -m benchmarks.far_writing --output benchmarks/results/far_writing.md
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.far_reading import reached
from benchmarks.page import machine, publish
from benchmarks.slow_network import Relay, relay
from softlabels import Ensemble, LabelsConfig, array_keys, label
from softlabels.objects import ObjectSpec
from softlabels.system.urls import depot_of
from softlabels.transfer import TransferRows
from tests.jobs.seaweed import running

FEATURES, CLASSES, ROWS = 8, 100, 512  # the last of a shard
FEW, MORE = 2, 10  # shards
LATENCIES = (0.0, 0.02)
LABELS = LabelsConfig(rows_per_shard=ROWS, rows_per_chunk=ROWS)


def main() -> None:
    """Write both stores with each latency, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder, running(Path(folder)) as server:
        os.environ.update(server.environment)
        depot_of("s3://bench").put("here", b"so that the bucket is there")
        written(f"s3://bench/warm-{time.time_ns()}", 1)
        for latency in LATENCIES:
            with relay(server.endpoint, latency) as network, reached(network.endpoint):
                found = [a_shard(network) for _ in range(options.repeats)]
            requests, seconds, cpu = (sorted(each)[len(found) // 2] for each in zip(*found, strict=True))
            lines.append(f"| {latency * 1e3:.0f} ms | {requests:.1f} | {seconds:.2f} | {cpu * 1e3:.0f} |")
    publish(page(lines, options), options.output)


def a_shard(network: Relay) -> tuple[float, float, float]:
    """Requests, seconds, and those of the processor, that a shard takes."""
    passes = []
    for shards in (FEW, MORE):
        network.reset()
        begun, cpu = time.perf_counter(), time.process_time()
        written(f"s3://bench/{time.time_ns()}", shards)
        passes.append((network.asked.value, time.perf_counter() - begun, time.process_time() - cpu))
    few, more = ((each[0], each[1], each[2]) for each in passes)
    return tuple((b - a) / (MORE - FEW) for a, b in zip(few, more, strict=True))  # type: ignore[return-value]


def written(store: str, shards: int) -> None:
    """Label that many shards, and seal."""
    torch.manual_seed(0)
    inputs = np.random.default_rng(0).normal(size=(shards * ROWS, FEATURES)).astype(np.float32)
    rows = TransferRows(
        "random", "train", None, "here", inputs, array_keys(inputs), np.arange(len(inputs)) % CLASSES, None,
        ObjectSpec("softlabels.transfer.stack"),
    )  # fmt: skip
    models = [torch.nn.Linear(FEATURES, CLASSES) for _ in range(2)]
    label(rows, Ensemble.of(models, name="linear", device="cpu", batch_size=ROWS), LABELS, store)


def page(lines: list[str], options: argparse.Namespace) -> str:
    """The results with what they were taken on."""
    head = ("| latency | requests | seconds | CPU ms |", "|---|---|---|---|")
    return "\n".join(
        [
            "# Writing a store where it lies",
            "",
            (__doc__ or "").partition("\n\n")[2].partition("\n\n")[0].replace("\n", " "),
            "",
            f"A shard holds {ROWS} rows of {CLASSES} classes in four columns (content_key, label, logits, shift), and is one "
            f"of {MORE - FEW}; medians of {options.repeats}.",
            "",
            *head,
            *lines,
            "",
            machine("torch", "obstore"),
            "",
        ]
    )


if __name__ == "__main__":
    main()
