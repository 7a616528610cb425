"""What positions cost: a student's epoch with 300 positions a row against plain torch with the same loss, and how many bytes of
labels a loader gives in a second, of rows of positions and of flat rows of as many numbers.

The student is a small detector: a class and a box for each of 300 anchors of a picture. Variants take turns, and every ratio is
that of two neighbours in a round.

    python -m benchmarks.positions --output benchmarks/results/positions.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.page import machine, publish
from benchmarks.student import CPU, WALL, Part, Timed, Took, clock, interleaved, ratio, table
from softlabels.labels.encoding import DenseEncoding, Encoding, ValuesEncoding
from softlabels.labels.targets import Target
from softlabels.models.device import warm_up
from softlabels.objects import ObjectSpec
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.stream import EmbeddedRows, Loader
from softlabels.student.config import TrainingConfig
from softlabels.student.heads import resolved
from softlabels.student.learner import Student
from softlabels.student.memory import keep_freed_memory
from softlabels.student.trainer import Trainer

SIDE, CELLS, ANCHORS, CLASSES = 80, 10, 3, 5
POSITIONS = CELLS * CELLS * ANCHORS
BATCH, TEMPERATURE, HARD, SOFT = 16, 4.0, 0.3, 0.7
READ_BATCH = 128
KINDS: dict[str, Target] = {"class": "softmax", "box": "values"}
TRAINING: dict[str, Any] = {
    "temperature": TEMPERATURE, "hard_weight": HARD, "soft_weight": SOFT, "batch_size": BATCH, "epochs": 1, "threads": 1,
    "optimizer": ObjectSpec("torch.optim.Adam", {"lr": 1e-3}), "validation": 0.0, "device": "cpu",
}  # fmt: skip


class Detector(nn.Module):
    """Classes (B, 300, 5) and boxes (B, 300, 4) of pictures (B, 3, 80, 80) uint8."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.of_class = nn.Conv2d(2 * width, ANCHORS * CLASSES, 1)
        self.of_box = nn.Conv2d(2 * width, ANCHORS * 4, 1)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Of each anchor."""
        hidden = self.body(pictures.float() / 255)
        found = {"class": self.of_class(hidden), "box": self.of_box(hidden)}
        return {name: each.permute(0, 2, 3, 1).reshape(len(pictures), POSITIONS, -1) for name, each in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the stores, time both parts, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=640, help="pictures of an epoch")
    parser.add_argument("--read", type=int, default=20_000, help="rows of the stores that are only read")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warm_up()
    keep_freed_memory()  # as the commands do
    began = clock()
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as name:
        step = epoch_part(Path(name), options.rows, options.rounds)
        tables = [table(step, interleaved(step)), read_table(Path(name), options.read, options.rounds)]
    publish("\n\n".join([head(clock() - began), *tables]) + "\n", options.output)


# --- a student's epoch ------------------------------------------------------------------------------------------------


def epoch_part(folder: Path, rows: int, rounds: int) -> Part:
    """Plain torch, and our trainer on stores of one member and of three, in both layouts."""
    stores = {
        (members, layout): detections(folder / f"{members}-{layout}", rows, members, layout)
        for members, layout in ((1, "zarr"), (3, "zarr"), (3, "arrow"))
    }
    variants: dict[str, Callable[[], Took]] = {}
    for (members, layout), store in stores.items():
        if layout == "zarr":
            variants[f"plain torch, {members} in memory"] = lambda store=store: plain(store)  # type: ignore[misc]
        variants[f"store of {members}, {layout}"] = lambda store=store: trained(folder, store)  # type: ignore[misc]
    return Part(
        f"A student's epoch: {rows:,} pictures of {POSITIONS} positions, a class and a box each",
        "step, ms",
        -(-rows // BATCH),
        rounds,
        variants,
        also=tuple(
            (f"store of {members}, {layout}", f"plain torch, {members} in memory") for members, layout in stores
        ),
    )


def detections(path: Path, rows: int, members: int, layout: str) -> Store:
    """Noise in the place of a teacher's outputs; nine of ten anchors are background, with a class of its own and no box."""
    rng = np.random.default_rng(0)
    background = rng.random((rows, POSITIONS)) < 0.9
    boxes = rng.normal(size=(rows, POSITIONS, 4)).astype(np.float32)
    boxes[background] = np.nan
    classes = np.where(background, 0, rng.integers(1, CLASSES, (rows, POSITIONS)))
    lead = (rows, POSITIONS, members)
    return written(
        path,
        {"class": DenseEncoding(), "box": ValuesEncoding()},
        {"class": 3 * rng.normal(size=(*lead, CLASSES)), "box": rng.normal(size=(*lead, 4))},
        {"class": classes, "box": boxes},
        layout=layout,
        inputs=rng.integers(0, 256, (rows, 3, SIDE, SIDE), np.uint8),
    )


def written(
    path: Path,
    encodings: dict[str, Encoding],
    outputs: dict[str, NDArray[Any]],
    labels: dict[str, NDArray[Any]],
    *,
    layout: str,
    inputs: NDArray[Any],
) -> Store:
    """A sealed store of outputs (R, [P,] M, C) by target."""
    rows, *lead, members, _ = next(iter(outputs.values())).shape
    keys = np.random.default_rng(1).integers(0, 256, (rows, 16), np.uint8)
    spec = store_spec(
        teacher="noise", name="noise", keys=keys, members=members, positions=lead[0] if lead else None, layout=layout,
        targets={name: (encoding, outputs[name].shape[-1]) for name, encoding in encodings.items()},
        labelled=[name for name in labels if encodings[name].target != "softmax"], embed=inputs,
    )  # fmt: skip
    with StoreWriter(path, spec) as writer:
        for shard in writer.pending:
            part = slice(*writer.rows_of(shard))
            count = part.stop - part.start
            writer.write_logits(
                shard, keys=keys[part], inputs=inputs[part],
                labels={name: each[part] for name, each in labels.items()},
                logits={name: each[part].astype(np.float32) for name, each in outputs.items()},
                mask=np.ones((count, lead[0]), np.uint8) if lead else None,
            )  # fmt: skip
        writer.seal()
    return open_store(path)


def trained(folder: Path, store: Store) -> Took:
    """An epoch of our trainer, without what a run does before and after its epochs."""
    config = resolved(TrainingConfig(**TRAINING), KINDS)
    batches = Timed(Loader(EmbeddedRows(store), store, batch_size=BATCH, seed=0))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        Trainer([Student.begin("", config, Detector)], batches, None, Path(name), {}).run()
    return batches.took


def plain(store: Store) -> Took:
    """The loop that one writes without us, with all that it reads in memory."""
    torch.manual_seed(0)
    student = Detector()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    inputs = torch.from_numpy(np.array(store.column("input")))
    classes, boxes = (torch.from_numpy(np.array(store.only(name).column("label"))) for name in KINDS)
    logits = torch.from_numpy(np.array(store.only("class").column("logits")))
    vectors = torch.from_numpy(np.array(store.only("box").column("values")))
    began = clock()
    order = torch.from_numpy(np.random.default_rng(0).permutation(store.rows))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        found = student(inputs[rows])
        loss = of_classes(found["class"].flatten(0, 1), logits[rows].flatten(0, 1), classes[rows].flatten())
        loss = loss + of_boxes(found["box"].flatten(0, 1), vectors[rows].flatten(0, 1), boxes[rows].flatten(0, 1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
    return clock() - began


def of_classes(z: Tensor, members: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with hard labels, and T^2 KL(mean of the members' distributions || student)."""
    target = torch.softmax(members.float() / TEMPERATURE, dim=-1).mean(dim=1)
    log_q = torch.log_softmax(z / TEMPERATURE, dim=-1)
    soft = TEMPERATURE**2 * functional.kl_div(log_q, target, reduction="batchmean")
    return HARD * functional.cross_entropy(z, labels) + SOFT * soft


def of_boxes(s: Tensor, members: Tensor, labels: Tensor) -> Tensor:
    """The squared distance to hard boxes, where there are some, and to the members' mean."""
    known = ~labels.isnan().any(dim=-1)
    return HARD * functional.mse_loss(s[known], labels[known]) + SOFT * functional.mse_loss(s, members.mean(dim=1))


# --- reading ----------------------------------------------------------------------------------------------------------


def read_table(folder: Path, rows: int, rounds: int) -> str:
    """How many bytes a second a loader gives, of rows of positions and of flat ones."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(rows, POSITIONS, 1, 4)).astype(np.float32)
    flat = np.ascontiguousarray(outputs.reshape(rows, 1, -1))
    nothing = np.zeros((rows, 1), np.uint8)
    lines = [
        f"## Reading: {rows:,} rows of {POSITIONS} positions of 4 classes, and flat rows of {4 * POSITIONS:,} classes",
        "",
        f"Rounds: {rounds or 1}, each opens the stores anew, so that every chunk's digest is checked; batches of "
        f"{READ_BATCH} in random order. Bytes are those that a store keeps of a row: labels, and of positions the mask and a "
        "hard label each.",
        "",
        "| store | bytes a row | MB/s, CPU | MB/s, wall | to flat, CPU | to flat, wall |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for layout in ("zarr", "arrow"):
        hard = {"positions": np.full((rows, POSITIONS), -1), "flat": np.full(rows, -1)}
        stores = {
            name: written(folder / f"{name}-{layout}", {name: DenseEncoding()}, {name: each}, {name: hard[name]},
                          layout=layout, inputs=nothing)
            for name, each in (("flat", flat), ("positions", outputs))
        }  # fmt: skip
        part = Part("", "", 1, rounds, {name: reader(store) for name, store in stores.items()})
        took = interleaved(part)
        sizes = {name: store.spec.row_bytes - 16 - 1 for name, store in stores.items()}  # without key and input
        rates = {name: [sizes[name] * rows / each / 1e6 for each in found] for name, found in took.items()}
        for name in stores:
            speeds = [f"{statistics.median(float(rate[kind]) for rate in rates[name]):,.0f}" for kind in (CPU, WALL)]
            against = (
                ["1", "1"] if name == "flat" else [ratio(rates[name], rates["flat"], kind) for kind in (CPU, WALL)]
            )
            lines.append(f"| {' | '.join([f'{name}, {layout}', f'{sizes[name]:,}', *speeds, *against])} |")
    return "\n".join(lines)


def reader(store: Store) -> Callable[[], Took]:
    """An epoch over a store that is opened anew."""

    def read() -> Took:
        fresh = open_store(str(store.path))
        loader = Loader(EmbeddedRows(fresh), fresh, batch_size=READ_BATCH, seed=0)
        began = clock()
        for _ in loader.epoch(0):
            pass
        return clock() - began

    return read


def head(took: Took) -> str:
    """What was done, and on what."""
    return "\n".join(
        [
            "# What positions cost",
            "",
            f"Batches of {BATCH}, one thread, T = {TEMPERATURE:g}, forward_kl and mse with hard labels beside them, Adam. "
            "Variants take turns, every second round backwards, after one round that does not count. Times are medians over "
            "the rounds; a ratio is taken in each round: median (least to most).",
            "",
            "An epoch counts from asking for its first batch to the end of its last step. Plain torch has inputs, labels and "
            "the teacher's outputs in memory; ours reads them from the store on the way, and checks them the first time.",
            "",
            f"{machine('torch', 'numpy', 'zarr', 'blake3')} Taken in {took[WALL]:.0f} s, {took[CPU]:.0f} s of CPU time.",
        ]
    )


if __name__ == "__main__":
    main()
