"""What training from stored labels saves over a teacher in the loop, for 1, 3 and 10 students.

Offline: the teacher stage, once, then all students in one run of our trainer; every check, hash and file is in it. Online: the
plain loop of torch that one writes without us, where the teacher answers at each step, and no label is kept; each student on
its own, as when settings are tried one after the other, or all in one loop that shares the teacher's answers.

    python -m benchmarks.offline_online --output benchmarks/results/offline_online.md       two minutes of one idle core
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.page import machine
from benchmarks.peers.harness import keep, table
from benchmarks.student import (
    BATCH,
    CLASSES,
    CPU,
    HARD,
    MEMBERS,
    PIXELS,
    SMALL,
    SOFT,
    STUDENT,
    TEACHER,
    TEMPERATURE,
    TRAINING,
    clock,
    label,
    made_up,
    named,
    teacher,
)  # fmt: skip
from softlabels.models.device import warm_up
from softlabels.models.mlp import MLP
from softlabels.store import Store
from softlabels.stream import Loader
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer
from softlabels.teacher.ensemble import Ensemble
from softlabels.transfer import TransferRows

COUNTS = (1, 3, 10)
HEAD = (
    "student", "students", "teacher stage, s", "training, s", "online, each on its own, s", "online, in one loop, s",
    "own / offline", "loop / offline",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="the page goes here too, and its numbers beside it as JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warm_up()
    rows, ensemble = made_up(options.rows), teacher(MEMBERS)
    online(made_up(BATCH), ensemble, SMALL, 1, 1)  # the first backward pass of a process takes a second
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        for hidden in (STUDENT, SMALL):
            began = clock()
            store = label(Path(folder) / str(hidden[0]), rows, ensemble)
            stage = spent(began)
            alone = online(rows, ensemble, hidden, 1, options.epochs)
            for count in COUNTS:
                trained = offline(Path(folder), rows, store, hidden, count, options.epochs)
                loop = alone if count == 1 else online(rows, ensemble, hidden, count, options.epochs)
                found.append(
                    {
                        "student": named(hidden),
                        "students": count,
                        "stage": stage,
                        "trained": trained,
                        "own": count * alone,
                    }
                    | {"loop": loop}
                )
    lines = [
        "# What training from stored labels saves over a teacher in the loop",
        "",
        f"`python -m benchmarks.offline_online --rows {options.rows} --epochs {options.epochs}`: a teacher of {MEMBERS} "
        f"networks {named(TEACHER)}, {options.rows:,} made-up rows, epochs: {options.epochs}, in batches of {BATCH}, Adam, one "
        f"thread, T = {TEMPERATURE:g}. Seconds of the processor. Online, each on its own, is one student's time by their "
        "number. More epochs favour stored labels further: the teacher stage is paid once, and online again in every epoch.",
        "",
        machine("torch", "numpy"),
        "",
        *table(HEAD, [show(each) for each in found]),
    ]
    keep(lines, found, options.output)


def spent(began: Any) -> float:
    """Seconds of the processor."""
    return float((clock() - began)[CPU])


def offline(folder: Path, rows: TransferRows, store: Store, hidden: tuple[int, int], count: int, epochs: int) -> float:
    """Students side by side over one pass an epoch; beginning, reading and checkpoints are in it."""
    began = clock()
    config = TrainingConfig(**{**TRAINING, "epochs": epochs})
    students = [Student.begin(f"s{n}", config, lambda: MLP(PIXELS, hidden, CLASSES)) for n in range(count)]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        Trainer(students, Loader(rows, store, batch_size=BATCH, seed=0), None, Path(name), {}).run()
    return spent(began)


def online(rows: TransferRows, ensemble: Ensemble, hidden: tuple[int, int], count: int, epochs: int) -> float:
    """Plain torch: the teacher answers for each batch, and every student takes a step."""
    began = clock()
    torch.manual_seed(0)
    students = [MLP(PIXELS, hidden, CLASSES) for _ in range(count)]
    optimizers = [torch.optim.Adam(student.parameters(), lr=1e-3) for student in students]
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(rows.keys))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            inputs, labels = torch.from_numpy(rows.inputs[chosen]), torch.from_numpy(rows.labels[chosen])
            with torch.no_grad():
                answers = [model(inputs) for model in ensemble.models]
            for student, optimizer in zip(students, optimizers, strict=True):
                logits = student(inputs)
                loss = HARD * functional.cross_entropy(logits, labels) + SOFT * by_answers(logits, answers)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return spent(began)


def by_answers(logits: torch.Tensor, answers: list[torch.Tensor]) -> torch.Tensor:
    """T^2 KL(mean of the members' distributions || student)."""
    target = torch.softmax(torch.stack(answers) / TEMPERATURE, dim=-1).mean(dim=0)
    log_q = torch.log_softmax(logits / TEMPERATURE, dim=-1)
    return TEMPERATURE**2 * functional.kl_div(log_q, target, reduction="batchmean")


def show(found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    ours = found["stage"] + found["trained"]
    seconds = [f"{found[name]:.2f}" for name in ("stage", "trained", "own", "loop")]
    return [
        found["student"],
        str(found["students"]),
        *seconds,
        *(f"{found[name] / ours:.2f}" for name in ("own", "loop")),
    ]


if __name__ == "__main__":
    main()
