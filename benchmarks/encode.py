"""How fast labels are encoded and stored, of a teacher that answers at once; beside another checkout, and beside what is the
least that it takes.

A pass of the shard loop over made-up logits: checks, encoding, what storing lost, digests, files that are flushed. Counted are
the CPU seconds of all of a process's threads, the kernel's for it too. Each measurement is a process of its own with one thread
for torch; sides take turns, and each has its best pass. What is the least: `.half()` of z - max z, and numpy's `tofile` of it
with a flush; of top-k labels `torch.topk` alone. The content digests of both sides are compared.

    python -m benchmarks.encode --beside CHECKOUT --output benchmarks/results/encode.md    about ten minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.page import machine, publish
from softlabels import Ensemble, StoreWriter, store_spec
from softlabels.labels.settings import EncodingSettings
from softlabels.objects import ObjectSpec
from softlabels.teacher.label import label_rows
from softlabels.transfer import TransferRows

CASES = {"dense": (1000, 16384, 256), "wide": (21_841, 1024, 64), "topk": (151_936, 128, 32)}  # classes, rows, batch
TITLES = {"dense": "dense, 1,000 classes", "wide": "dense, 21,841 classes", "topk": "topk, 151,936 classes"}
Found = dict[tuple[str, str, int], list[dict[str, Any]]]  # by case, side and threads
KNOWN = 64  # rows of logits that the teacher repeats


class Instant(nn.Module):
    """Logits that are there already, for input x (B, 1) from row x[0] on."""

    def __init__(self, classes: int, rows: int) -> None:
        super().__init__()
        self.known = nn.Parameter(3 * torch.randn(rows, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1) to (B, classes)."""
        start = int(x[0, 0]) % (len(self.known) - len(x) + 1)
        return self.known[start : start + len(x)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each side of each case in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--beside", type=Path, help="another checkout, measured in the same run")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--part", type=int, default=1, help="one of so many rows of each case")
    parser.add_argument("--rounds", type=int, default=3, help="every side runs once a round")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of torch; the first is compared with others"
    )
    parser.add_argument("--one", action="store_true", help="measure the first case in this process, print JSON")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measured(options.cases[0], options.part, options.threads[0])))
        return
    sides = {"here": Path(__file__).parents[1]} | ({} if options.beside is None else {"beside": options.beside})
    asked = [(side, options.threads[0]) for side in sides] + [("here", threads) for threads in options.threads[1:]]
    found: Found = {(case, *each): [] for case in options.cases for each in asked}
    for _ in range(options.rounds):
        for case, side, threads in found:
            found[case, side, threads].append(in_process(case, sides[side], options.part, threads))
    publish(report(found, options), options.output)


def in_process(case: str, checkout: Path, part: int, threads: int) -> dict[str, Any]:
    """What a process says that takes the library from a checkout."""
    command = [sys.executable, "-m", "benchmarks.encode", "--one", "--cases", case]
    command += [f"--part={part}", f"--threads={threads}"]
    own = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (checkout / "pipeline", own)))
    done = subprocess.run(command, cwd=own, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)  # noqa: S603  # our own words
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def measured(case: str, part: int, threads: int) -> dict[str, Any]:
    """CPU seconds and wall seconds of the best of two passes, CPU seconds of the least that it takes, rows, bytes of labels and
    the content digest.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    classes, rows, batch = CASES[case]
    rows = max(batch, rows // part)
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    teacher = Ensemble.of([Instant(classes, max(batch, KNOWN))], name="instant", device="cpu", batch_size=batch)
    basis = rng.normal(size=(103, classes)).astype(np.float16) if case == "topk" else None
    encoding = EncodingSettings(encoding="dense" if basis is None else "topk").made(1, classes=classes)
    spec = store_spec(
        encoding, teacher=teacher.spec, name="instant", keys=keys, classes=classes, teacher_batch=batch, basis=basis
    )
    transfer = TransferRows(
        name="instant", split="train", revision=None, source="", inputs=np.arange(rows, dtype=np.float32)[:, None],
        keys=keys, labels=np.full(rows, -1), class_names=None, prepare=ObjectSpec("none"),
    )  # fmt: skip
    digests = set()
    with TemporaryDirectory(prefix="softlabels-benchmark-") as folder:

        def stored(number: int) -> None:
            with StoreWriter(Path(folder, f"{number}"), spec, basis=basis) as writer:
                digests.add(label_rows(transfer, teacher, writer).content_digest)

        passes = [timed(partial(stored, number)) for number in range(2)]
        seconds, wall = (min(times) for times in zip(*passes, strict=True))
        logits = [teacher.models[0](torch.tensor([[float(start)]] * batch)) for start in range(0, rows, batch)]
        k = 0 if basis is None else encoding.kept(classes)
        least, _ = min(timed(lambda: bare(logits, k, Path(folder, "bare"))) for _ in range(3))
    (digest,) = digests
    return {
        "seconds": seconds,
        "wall": wall,
        "least": least,
        "rows": rows,
        "bytes": 2 * classes * rows,
        "digest": digest,
    }


def bare(logits: Sequence[Tensor], k: int, path: Path) -> None:
    """What is the least: `torch.topk`, or float16 written and flushed."""
    with path.open("wb") as file:
        for z in logits:
            if k:
                z.topk(k, dim=1)
            else:
                (z - z.amax(dim=1, keepdim=True)).half().numpy().tofile(file)
        file.flush()
        os.fsync(file.fileno())


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process that a call takes, and wall seconds."""
    began, wall = time.process_time(), time.perf_counter()
    with torch.inference_mode():
        call()
    return time.process_time() - began, time.perf_counter() - wall


def report(found: Found, options: argparse.Namespace) -> str:
    """The page."""
    lines = [
        "# Encoding: what a teacher that answers at once waits for\n",
        f"A CPU second; best of {options.rounds} processes a side, in turns; python -m benchmarks.encode. `before`: another",
        "checkout in the same run. The least: float16 of z - max z written and flushed by numpy, or `torch.topk` alone.\n",
        "| labels | before | now | ratio | the least | content digests |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    first, *others = options.threads
    for case in options.cases:
        sides = [found[key] for key in found if key[0] == case and key[2] == first]
        now = min(each["seconds"] for each in sides[0])
        before = min((each["seconds"] for each in sides[-1]), default=now) if len(sides) > 1 else None
        least = min(each["least"] for each in sides[0])
        alike = "equal" if len({each["digest"] for side in sides for each in side}) == 1 else "DIFFERENT"
        rates = [rate(case, sides[0][0], seconds) if seconds else "" for seconds in (before, now, least)]
        ratio = f"{before / now:.1f}" if before else ""
        lines.append(f"| {TITLES[case]} | {rates[0]} | {rates[1]} | {ratio} | {rates[2]} | {alike} |")
    if others:
        lines += [
            f"\nBy wall clock on {first} thread{'s' * (first > 1)} of torch and on more, and what more bring:\n",
            "| labels | " + " | ".join(f"{threads}" for threads in options.threads) + " | ratio | content digests |",
            "| --- |" + " ---: |" * (len(options.threads) + 1) + " --- |",
        ]
    for case in options.cases if others else ():
        passes = [found[case, "here", threads] for threads in options.threads]
        walls = [min(each["wall"] for each in of) for of in passes]
        alike = "equal" if len({each["digest"] for of in passes for each in of}) == 1 else "DIFFERENT"
        by_wall = " | ".join(rate(case, passes[0][0], wall) for wall in walls)
        lines.append(f"| {TITLES[case]} | {by_wall} | {walls[0] / walls[-1]:.2f} | {alike} |")
    return "\n".join([*lines, "", machine("torch", "numpy"), ""])


def rate(case: str, said: dict[str, Any], seconds: float) -> str:
    """Of dense labels MB, of others positions."""
    return f"{said['rows'] / seconds:,.0f} positions" if case == "topk" else f"{said['bytes'] / seconds / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
