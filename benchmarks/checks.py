"""What the checks cost: the teacher stage with and without them, and a loader that checks each chunk once, always or never.

The teacher is a perceptron of about 80 MFLOP a row, which is cheap for a teacher: with a dearer one the share of the checks
is smaller. Without checks there are no sentinel rows, values are not looked at, nothing is hashed, keys are not compared, and
nothing is asked of the outputs (docs/checks.md: probabilities, contradictions, order of classes; one row in ten repeats an
earlier one, and all have hard labels); without questions only the last is left out. Without flushes neither files nor folders
are flushed, as no store should be made. All ways take turns in one run.

    python -m benchmarks.checks --output benchmarks/results/checks.md
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import torch

from benchmarks.noise import BATCH, CHUNK, write
from benchmarks.page import machine, publish
from softlabels.models.mlp import MLP
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.reader import Check
from softlabels.store.spec import BLOCK_ROWS, MemberSpec, TeacherSpec
from softlabels.stream import Batch, Loader
from softlabels.student.losses import distillation_loss
from softlabels.teacher import sentinels
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.label import label_rows
from softlabels.transfer import TransferRows

INPUTS = 784
NO_DIGEST = "0" * 64
WAYS = ("all checks", "no questions", "no checks", "no checks, no flushes")
REPEATED = 10  # one row in so many repeats an earlier one
Seconds = dict[str, list[float]]


def main(argv: Sequence[str] | None = None) -> None:
    """Time every way in turn, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000, help="of the loader's store")
    parser.add_argument("--labelled", type=int, default=16_384, help="rows that the teacher labels")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=4096, help="width of the teacher")
    parser.add_argument("--rounds", type=int, default=5, help="every way runs once a round")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        rows = write(Path(folder), options.rows, options.classes)
        labelled = label(Path(folder), rows, options)
        alone = read(Path(folder), rows, options, lambda batch: None)
        training = read(Path(folder), rows, options, student(options.classes))
    text = report(labelled, alone, training, options)
    publish(text, options.output)


def label(folder: Path, rows: TransferRows, options: argparse.Namespace) -> Seconds:
    """Seconds that the teacher stage takes over some rows, in each way."""
    torch.manual_seed(0)
    count, classes = options.labelled, options.classes
    inputs = np.random.default_rng(0).normal(size=(count, INPUTS)).astype(np.float32)
    keys, repeats = rows.keys[:count].copy(), np.arange(REPEATED, count, REPEATED)
    for values in (inputs, keys):
        values[repeats] = values[repeats - REPEATED // 2]
    labels = np.random.default_rng(1).integers(0, classes, count)
    rows = replace(rows, inputs=inputs, keys=keys, labels=labels)
    model = MLP(inputs=INPUTS, hidden=[options.hidden] * 3, classes=classes)
    teacher = TeacherSpec(name="noise", precision="float32", members=(MemberSpec(model="MLP"),))
    ensemble = Ensemble([model], teacher, torch.device("cpu"), batch_size=256)
    spec = store_spec(
        teacher=teacher, name="noise", keys=rows.keys, classes=classes, rows_per_shard=4 * CHUNK, rows_per_chunk=CHUNK,
        teacher_batch=256,
    )  # fmt: skip
    found: Seconds = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS:
            with contextlib.ExitStack() as stack:
                for name, replacement in without(way, classes).items():
                    stack.enter_context(mock.patch(name, replacement))
                began = time.perf_counter()
                sentinels.check_sentinels(ensemble, rows.inputs, labels={"": rows.labels})
                with StoreWriter(folder / f"made-{number}-{way}", spec) as writer:
                    label_rows(rows, ensemble, writer)
                found[way].append(time.perf_counter() - began)
    return found


def without(way: str, classes: int) -> Mapping[str, Callable[..., Any]]:
    """What is taken away in a way, by name, and what stands in its place."""
    checks: dict[str, Callable[..., Any]] = {
        "softlabels.teacher.sentinels.check_sentinels": lambda *args, **options: {"": classes},
        "softlabels.labels.blocks.Block.refuse": nothing,
        "softlabels.store.shard_writer.check_arrays": nothing,
        "softlabels.labels.base.EncodingBase.check_column": nothing,
        "softlabels.store.shard_writer.blake3_hex": lambda data: NO_DIGEST,
        "softlabels.store.shard_writer.block_hashes": lambda spec, arrays: (
            (NO_DIGEST,) * -(-len(arrays["label"]) // BLOCK_ROWS)
        ),
        "softlabels.store.writer.check_written": lambda *args, **options: (),
    }
    questions: dict[str, Callable[..., Any]] = {
        "softlabels.teacher.encode.looks_among": lambda logits, target: np.zeros((len(logits), 1), np.uint8),
        "softlabels.store.findings._require_consistent": nothing,
        "softlabels.store.findings.stored_agreement": nothing,
        "softlabels.teacher.sentinels.require_order": nothing,
    }
    checks |= questions
    flushes: dict[str, Callable[..., Any]] = {"os.fsync": nothing}
    taken = {"no questions": questions, "no checks": checks, "no checks, no flushes": checks | flushes}
    return taken.get(way, {})


def nothing(*args: object, **options: object) -> None:
    """What a check is replaced by."""


def student(classes: int) -> Callable[[Batch], object]:
    """The smallest student there is, in training: one layer on one input."""
    model = torch.nn.Linear(1, classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        logits = model(batch.inputs.float())
        loss = distillation_loss(logits, batch.soft, batch.labels, temperature=4.0, hard_weight=0.1, soft_weight=0.9)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def read(
    folder: Path, rows: TransferRows, options: argparse.Namespace, use: Callable[[Batch], object]
) -> tuple[Seconds, Seconds]:
    """Seconds that the first and the second epoch of a new loader take, with each `check` of each layout."""
    first: Seconds = {}
    second: Seconds = {}
    for _ in range(options.rounds):
        for layout in ("zarr", "arrow"):
            for check in get_args(Check):
                loader = Loader(rows, open_store(folder / layout, check=check), batch_size=BATCH, seed=0)
                for epoch, seconds in enumerate((first, second)):
                    began = time.perf_counter()
                    for batch in loader.epoch(epoch):
                        use(batch)
                        del batch
                    seconds.setdefault(f"{layout}, check: {check}", []).append(time.perf_counter() - began)
    return first, second


def report(
    labelled: Seconds, alone: tuple[Seconds, Seconds], training: tuple[Seconds, Seconds], options: argparse.Namespace
) -> str:
    """The tables as Markdown."""
    size = f"{options.rows:,} rows x {options.classes:,} classes"
    lines = [
        "# What the checks cost",
        "",
        f"Best and median of {options.rounds} rounds, in each of which every way runs once; page cache warm.",
        "",
        machine("torch", "numpy", "blake3"),
        "",
        f"Teacher stage, {options.labelled:,} rows x {options.classes:,} classes, three hidden layers of {options.hidden:,}:",
        "",
        *table(labelled, "no checks", options.labelled),
    ]
    for what, found in (("alone", alone), ("under a student of one layer", training)):
        for epoch, seconds in zip(("first", "second"), found, strict=True):
            lines += ["", f"Loader {what}, {size}, {epoch} epoch of a new loader:", ""]
            lines += table(seconds, "never", options.rows)
    return "\n".join(lines) + "\n"


def table(found: Seconds, reference: str, rows: int) -> Iterator[str]:
    """Times beside those of the way of the same layout whose name ends with `reference`."""
    yield "| how | best, rows/s | median, rows/s | time, of the best | of the median |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, seconds in found.items():
        layout = f"{name.partition(',')[0]}, check: " if "check:" in name else ""
        base = found[layout + reference]
        best, median = min(seconds) / min(base), statistics.median(seconds) / statistics.median(base)
        yield (
            f"| {name} | {rows / min(seconds):,.0f} | {rows / statistics.median(seconds):,.0f} | {best:.3f} | {median:.3f} |"
        )


if __name__ == "__main__":
    main()
