"""What soft labels cost in time, and what they save.

Teacher stage against the bare forward pass of the same models; a student's epoch with stored labels against hard labels
only, and against online distillation, where the teacher runs in the training loop; a sweep of temperatures side by side
against one run after the other. MNIST rows, networks of Hinton et al. 2015 (784-1200-1200-10 teaches 784-800-800-10), one
CPU thread. Variants take turns, and every ratio is that of two neighbours in a round.

    python -m benchmarks.student --data mnist --output benchmarks/results/student.md
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.page import machine, publish
from softlabels.models.device import warm_up
from softlabels.models.mlp import MLP
from softlabels.models.weights import weights_digest
from softlabels.objects import ObjectSpec
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.stream import Loader
from softlabels.stream.batch import Batch
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set

TEACHER, STUDENT, SMALL = (1200, 1200), (800, 800), (30, 30)
MEMBERS, CLASSES, PIXELS = 3, 10, 784
BATCH, TEACHER_BATCH = 128, 500
TEMPERATURE, HARD, SOFT = 20.0, 0.1, 1.0  # as in the recipe `mnist`
SWEEP = (1.0, 2.0, 4.0, 8.0, 20.0)
ADAM = ObjectSpec("torch.optim.Adam", {"lr": 1e-3})
TRAINING: dict[str, Any] = {
    "temperature": TEMPERATURE,
    "hard_weight": HARD,
    "soft_weight": SOFT,
    "optimizer": ADAM,
    "batch_size": BATCH,
    "epochs": 1,
    "validation": 0.0,
    "threads": 1,
    "device": "cpu",
}
WALL, CPU = 0, 1

Took = NDArray[np.float64]  # (2,) seconds: wall, CPU time of the process
Variant = Callable[[], Took]


@dataclass(frozen=True)
class Part:
    """Variants that take turns.

    Attributes:
        title: of its table.
        unit: what `per` counts.
        per: times are divided by it.
        rounds: how often each variant runs, after a round that does not count; with 0 rounds that one counts.
        variants: by name; the first is what the others are compared with.
        also: pairs of names that are compared as well, the first with the second.
    """

    title: str
    unit: str
    per: int
    rounds: int
    variants: dict[str, Variant]
    also: tuple[tuple[str, str], ...] = ()


class Timed:
    """A loader's batches; `took` is the time from asking for an epoch's first batch to the end of the step on its last."""

    def __init__(self, batches: Loader) -> None:
        self._batches, self.took = batches, np.zeros(2)
        self.steps_per_epoch, self.order_digest = batches.steps_per_epoch, batches.order_digest

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's."""
        began = clock()
        yield from self._batches.epoch(epoch, start)
        self.took += clock() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Label once, time every part, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    place = os.environ.get("SOFTLABELS_DATA")
    parser.add_argument(
        "--data", default=place and f"{place}/mnist", help="folder of MNIST, or its hub id ylecun/mnist"
    )
    parser.add_argument("--rows", type=int, default=12_800, help="training rows of a timed epoch: a part of the 60,000")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=["teacher", "epoch", "sweep"], nargs="*", help="parts; all by default")
    parser.add_argument("--quick", action="store_true", help="few made-up rows, one round: shows that this script runs")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args(argv)
    if options.quick:
        options.rows, options.rounds = 256, 0
    elif options.data is None:
        sys.exit("this takes the rows of MNIST: give --data FOLDER, or SOFTLABELS_DATA, the folder that holds mnist/")
    torch.set_num_threads(1)
    warm_up()
    every = made_up(options.rows) if options.quick else mnist(options.data)
    rows = first(every, options.rows)
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as name:
        folder, began = Path(name), clock()
        parts = {
            "teacher": lambda: [teacher_part(folder, every, options.rounds)],
            "epoch": lambda: [epoch_part(folder, rows, hidden, options.rounds) for hidden in (STUDENT, SMALL)],
            "sweep": lambda: [sweep_part(folder, rows, hidden, options.rounds) for hidden in (STUDENT, SMALL)],
        }
        tables = [
            table(part, interleaved(part))
            for chosen, make in parts.items()
            if chosen in (options.only or parts)
            for part in make()  # type: ignore[no-untyped-call]  # lambdas
        ]
        text = "\n\n".join([head(options, clock() - began), *tables]) + "\n"
    publish(text, options.output)


def clock() -> Took:
    """Wall time, and CPU time of this process with all its threads."""
    return np.array([time.perf_counter(), time.process_time()])


def interleaved(part: Part) -> dict[str, list[Took]]:
    """What each variant took in each round; every second round runs backwards, so that a drift of the machine cancels."""
    took: dict[str, list[Took]] = {name: [] for name in part.variants}
    for number in range(part.rounds + 1):
        names = list(part.variants)[:: 1 if number % 2 else -1]
        for name in names:
            took[name].append(part.variants[name]())
    return {name: each[1:] or each for name, each in took.items()}


# --- the data and the models ------------------------------------------------------------------------------------------


def mnist(source: str) -> TransferRows:
    """The 60,000 training rows, prepared once and mapped from then on."""
    scale = ObjectSpec("softlabels.transfer.scale", {"divisor": 255})
    return load_transfer_set(TransferSetConfig(source=source, prepare=scale, splits={"train": "train"}), "train")


def made_up(count: int) -> TransferRows:
    """Noise of MNIST's shape."""
    rng = np.random.default_rng(0)
    inputs = rng.random((count, 28, 28), np.float32)
    keys, labels = rng.integers(0, 256, (count, 16), np.uint8), rng.integers(0, CLASSES, count)
    return TransferRows("noise", "train", None, "noise", inputs, keys, labels, None, ObjectSpec("none"))


def first(rows: TransferRows, count: int) -> TransferRows:
    """The first rows alone."""
    return dataclasses.replace(rows, inputs=rows.inputs[:count], keys=rows.keys[:count], labels=rows.labels[:count])


def teacher(members: int) -> Ensemble:
    """Networks as they are initialised: the time does not depend on what they have learnt."""
    torch.manual_seed(0)
    models = [MLP(PIXELS, TEACHER, CLASSES, dropout=0.25, input_dropout=0.1) for _ in range(members)]
    of = tuple(MemberSpec(model="MLP", weights=weights_digest(model)) for model in models)
    spec = TeacherSpec(name="ensemble", precision="float32", members=of)
    return Ensemble(models, spec, torch.device("cpu"), batch_size=TEACHER_BATCH)


def label(folder: Path, rows: TransferRows, ensemble: Ensemble) -> Store:
    """The teacher stage: sentinels run twice, labels computed, checked, hashed and written, the store sealed."""
    classes = check_sentinels(ensemble, rows.inputs)[""]
    spec = store_spec(
        teacher=ensemble.spec,
        name=rows.name,
        keys=rows.keys,
        classes=classes,
        preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
        teacher_batch=TEACHER_BATCH,
    )
    with StoreWriter(folder, spec, environment=ensemble.environment()) as writer:
        label_rows(rows, ensemble, writer)
    return open_store(folder)


# --- the parts --------------------------------------------------------------------------------------------------------


def teacher_part(folder: Path, rows: TransferRows, rounds: int) -> Part:
    """The teacher stage on all rows, and the forward passes of which it cannot do less."""
    ensemble = teacher(MEMBERS)

    def bare() -> Took:
        began = clock()
        with torch.inference_mode():
            for start in range(0, len(rows.keys), TEACHER_BATCH):
                batch = torch.from_numpy(np.array(rows.inputs[start : start + TEACHER_BATCH]))
                for model in ensemble.models:
                    model(batch)
        return clock() - began

    def stage() -> Took:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            began = clock()
            label(Path(name) / "store", rows, ensemble)
            return clock() - began

    return Part(
        f"Teacher stage: {len(rows.keys):,} rows through {MEMBERS} members into a sealed store",
        "1,000 rows, ms",
        len(rows.keys),
        rounds // 3,
        {"bare forward pass": bare, "teacher stage, every check on": stage},
    )


def epoch_part(folder: Path, rows: TransferRows, hidden: tuple[int, int], rounds: int) -> Part:
    """A student's epoch: hard labels, stored labels, and the teacher in the loop."""
    ensembles = {members: teacher(members) for members in (MEMBERS, 1)}
    stores = {count: label(folder / f"epoch-{hidden[0]}-{count}", rows, each) for count, each in ensembles.items()}

    def ours(store: Store | None, **settings: Any) -> Variant:
        return lambda: trained(folder, rows, store, [settings], hidden)

    variants = {"hard labels": ours(None, hard_weight=1.0, soft_weight=0.0)}
    for count, loss in ((MEMBERS, "forward_kl"), (1, "forward_kl"), (MEMBERS, "dkd"), (MEMBERS, "dist")):
        variants[f"stored labels of {count}, {loss}"] = ours(stores[count], loss=loss)
    variants["plain torch loop, hard labels"] = lambda: plain(rows, None, hidden)
    variants[f"plain torch loop, teacher of {MEMBERS} in it"] = lambda: plain(rows, ensembles[MEMBERS], hidden)
    variants["plain torch loop, teacher of 1 in it"] = lambda: plain(rows, ensembles[1], hidden)
    return Part(
        f"A student's epoch: {len(rows.keys):,} rows, {named(hidden)}",
        "step, ms",
        -(-len(rows.keys) // BATCH),
        rounds,
        variants,
        also=tuple((f"plain torch loop, teacher of {n} in it", f"stored labels of {n}, forward_kl") for n in stores),
    )


def sweep_part(folder: Path, rows: TransferRows, hidden: tuple[int, int], rounds: int) -> Part:
    """A student for each temperature: side by side over one pass, and one run after the other."""
    part = first(rows, max(BATCH, len(rows.keys) // 2)) if hidden == STUDENT else rows
    store = label(folder / f"sweep-{hidden[0]}", part, teacher(MEMBERS))
    settings: list[dict[str, Any]] = [{"temperature": temperature} for temperature in SWEEP]
    return Part(
        f"Five temperatures: {len(part.keys):,} rows, {named(hidden)}",
        "step of all five, ms",
        -(-len(part.keys) // BATCH),
        rounds,
        {
            "five runs, one after the other": lambda: sum(
                (trained(folder, part, store, [each], hidden) for each in settings), np.zeros(2)
            ),
            "one run, side by side": lambda: trained(folder, part, store, settings, hidden),
        },
    )


def trained(
    folder: Path,
    rows: TransferRows,
    store: Store | None,
    settings: list[dict[str, Any]],
    hidden: tuple[int, int],
) -> Took:
    """An epoch of our trainer, a student for each of `settings`, without what a run does before and after its epochs."""
    students = [
        Student.begin(f"s{number}", TrainingConfig(**{**TRAINING, **each}), lambda: MLP(PIXELS, hidden, CLASSES))
        for number, each in enumerate(settings)
    ]
    batches = Timed(Loader(rows, store, batch_size=BATCH, seed=0))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        Trainer(students, batches, None, Path(name), {}).run()
    return batches.took


def plain(rows: TransferRows, ensemble: Ensemble | None, hidden: tuple[int, int]) -> Took:
    """The loop that one writes without us; a teacher is asked for each batch anew."""
    torch.manual_seed(0)
    student = MLP(PIXELS, hidden, CLASSES)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    began = clock()
    order = np.random.default_rng(0).permutation(len(rows.keys))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        inputs, labels = torch.from_numpy(rows.inputs[chosen]), torch.from_numpy(rows.labels[chosen])
        logits = student(inputs)
        loss = functional.cross_entropy(logits, labels)
        if ensemble is not None:
            loss = HARD * loss + SOFT * by_hand(logits, inputs, ensemble.models)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
    return clock() - began


def by_hand(logits: Tensor, inputs: Tensor, models: list[nn.Module]) -> Tensor:
    """T^2 KL(mean of the members' distributions || student)."""
    with torch.no_grad():
        members = torch.stack([model(inputs) for model in models])
        target = torch.softmax(members / TEMPERATURE, dim=-1).mean(dim=0)
    log_q = torch.log_softmax(logits / TEMPERATURE, dim=-1)
    return TEMPERATURE**2 * functional.kl_div(log_q, target, reduction="batchmean")


# --- the page ---------------------------------------------------------------------------------------------------------


def named(hidden: tuple[int, int]) -> str:
    """A network by its widths."""
    return "-".join(map(str, (PIXELS, *hidden, CLASSES)))


def head(options: argparse.Namespace, took: Took) -> str:
    """What was done, and on what."""
    rows = "Made-up rows" if options.quick else "MNIST's training rows"
    return "\n".join(
        [
            "# What soft labels cost in time, and what they save",
            "",
            f"{rows}, teachers {named(TEACHER)}, Adam, batches of {BATCH}, one thread, "
            f"labels float16, T = {TEMPERATURE:g}. Variants take turns, every second round backwards, after one round that "
            "does not count. Times are medians over the rounds; a ratio is taken in each round: median (least to most).",
            "",
            "CPU time is the process's, with its reading threads; it is what the ratios rest on where a machine is shared, "
            "since wall time then also measures the neighbours. An epoch counts from asking for its first batch to the end "
            "of its last step; setting up and checkpoints, alike for all, are left out.",
            "",
            f"{machine('torch', 'numpy', 'zarr', 'blake3')} Taken in {took[WALL]:.0f} s, {took[CPU]:.0f} s of CPU time.",
        ]
    )


def table(part: Part, took: dict[str, list[Took]]) -> str:
    """A part's Markdown table: times, and ratios to the first variant."""
    base = next(iter(took))
    lines = [
        f"## {part.title}",
        "",
        f"Rounds: {len(took[base])}. CPU and wall time a {part.unit}.",
        "",
        "| how | CPU | wall | ratio, CPU | ratio, wall |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    scale = 1e6 if part.unit.startswith("1,000") else 1e3
    for name, each in took.items():
        times = [f"{statistics.median(t[kind] for t in each) / part.per * scale:.3g}" for kind in (CPU, WALL)]
        found = ["1", "1"] if name == base else [ratio(each, took[base], kind) for kind in (CPU, WALL)]
        lines.append(f"| {' | '.join([name, *times, *found])} |")
    for one, other in part.also:
        found = [ratio(took[one], took[other], kind) for kind in (CPU, WALL)]
        lines += ["", f"{one}, against {other}: {found[0]} in CPU time, {found[1]} in wall time."]
    return "\n".join(lines)


def ratio(these: list[Took], those: list[Took], kind: int) -> str:
    """Median of the rounds' ratios, and their range."""
    found = sorted(float(a[kind] / b[kind]) for a, b in zip(these, those, strict=True))
    return f"{statistics.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})"


if __name__ == "__main__":
    main()
