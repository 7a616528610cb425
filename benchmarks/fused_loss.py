"""What the fused linear and loss saves: peak memory and time against logits that are held, at the size of a language model.

    python -m benchmarks.fused_loss --output benchmarks/results/fused_loss.md

Every way computes forward KL and cross-entropy with hard labels and their gradients at hidden states and output matrix, two of
them the full KL of lowrank labels, three the KL of the K largest classes scaled to 1; but for the last, which takes the three
matrix products alone. Memory is the peak of a process of its own for each way: on a CPU its resident size (VmHWM, reset before
the step), on CUDA what torch allocates. Time is taken in one process, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.page import machine, publish
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.soft import SoftLabels
from softlabels.labels.topk_soft import TopkMembers
from softlabels.student.fused import block_positions, linear_distillation_loss
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import distillation_loss
from softlabels.student.memory import keep_freed_memory

LOWRANK = TopkEncoding(k=16, tail="lowrank", rank=64, fine=16)
RENORMALISED = TopkEncoding(k=16, tail="renormalised", nodes=0)
HARD, SOFT = 0.1, 0.9
ENCODED = 32  # positions whose labels are made; the others repeat them
MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    """Positions, classes, width of the hidden states, temperature."""

    positions: int
    classes: int
    width: int
    temperature: float


@dataclass
class Problem:
    """Hidden states (N, d) and matrix (C, d) with gradients; labels of both kinds; the K classes (N, K) and their p at T."""

    size: Size
    hidden: Tensor
    weight: Tensor
    labels: Tensor
    lowrank: SoftLabels
    renormalised: SoftLabels
    ids: Tensor
    p: Tensor

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Taken away."""
        found = self.hidden.grad, self.weight.grad
        self.hidden.grad = self.weight.grad = None
        assert found[0] is not None
        assert found[1] is not None
        return found[0], found[1]


def made_up(size: Size, device: torch.device) -> Problem:
    """Random states, and labels of random logits."""
    torch.manual_seed(0)
    few = torch.randn(ENCODED, 1, size.classes) * 3
    basis = torch.randn(1 + LOWRANK.rank, size.classes).half()
    lowrank, renormalised = (
        _labels(few, encoding, size, basis if encoding is LOWRANK else None).to(device)
        for encoding in (LOWRANK, RENORMALISED)
    )
    ids, log_p, _ = renormalised.stored(size.temperature)
    return Problem(
        size,
        torch.randn(size.positions, size.width, device=device).requires_grad_(),
        (torch.randn(size.classes, size.width, device=device) / size.width**0.5).requires_grad_(),
        torch.randint(size.classes, (size.positions,), device=device),
        lowrank,
        renormalised,
        ids,
        log_p.exp(),
    )


def _labels(few: Tensor, encoding: TopkEncoding, size: Size, basis: Tensor | None) -> SoftLabels:
    columns, _ = encoding.encode(few, basis=basis)
    each = torch.arange(size.positions) % len(few)
    basis = None if basis is None else basis.float()  # as batches have it
    return SoftLabels(TopkMembers.of(columns, encoding=encoding, classes=size.classes, basis=basis), torch.ones(1))[
        each
    ]


# --- the ways ---------------------------------------------------------------------------------------------------------


def fused(problem: Problem, soft: SoftLabels) -> None:
    """Ours."""
    size = problem.size
    spec = LossSpec(size.temperature, HARD, SOFT)
    loss = linear_distillation_loss(
        problem.hidden, problem.weight, None, soft, problem.labels, spec, classes=size.classes
    )
    loss.backward()  # type: ignore[no-untyped-call]


def held(problem: Problem) -> None:
    """The same loss of logits that are held."""
    logits = problem.hidden @ problem.weight.t()
    loss = distillation_loss(
        logits, problem.lowrank, problem.labels,
        temperature=problem.size.temperature, hard_weight=HARD, soft_weight=SOFT,
    )  # fmt: skip
    loss.backward()  # type: ignore[no-untyped-call]


def scattered(problem: Problem) -> None:
    """What one writes without us: the K probabilities put into a zero array of positions x classes."""
    _scattered_loss(problem, problem.hidden, slice(None)).backward()  # type: ignore[no-untyped-call]


def chunked(problem: Problem) -> None:
    """The same a chunk of positions at a time, as many as suit the device, gradients added up: the way of Liger Kernel's
    chunked losses, in plain torch.
    """
    states, gradient = problem.hidden.detach(), torch.empty_like(problem.hidden)
    step = block_positions(problem.size.classes, states.device)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        leaf = states[part].requires_grad_()
        _scattered_loss(problem, leaf, part).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        gradient[part] = leaf.grad
    problem.hidden.grad = gradient


def products(problem: Problem) -> None:
    """The three products that no way is without, of all positions at once: logits, and with them in the place of their gradient
    those at states and matrix.
    """
    states, matrix = problem.hidden.detach(), problem.weight.detach()
    logits = states @ matrix.t()
    problem.hidden.grad, problem.weight.grad = logits @ matrix, logits.t() @ states


def _scattered_loss(problem: Problem, states: Tensor, part: slice) -> Tensor:
    t, z = problem.size.temperature, states @ problem.weight.t()
    target = torch.zeros_like(z).scatter_(1, problem.ids[part], problem.p[part])
    soft = functional.kl_div(functional.log_softmax(z / t, dim=-1), target, reduction="sum") * t**2
    hard = functional.cross_entropy(z, problem.labels[part], reduction="sum")
    return (soft * SOFT + hard * HARD) / problem.size.positions


WAYS: dict[str, tuple[str, Callable[[Problem], None]]] = {
    "held": ("lowrank, logits held", held),
    "fused": ("lowrank, fused", lambda problem: fused(problem, problem.lowrank)),
    "scattered": ("top k scaled to 1, logits held", scattered),
    "chunked": ("top k scaled to 1, in chunks", chunked),
    "renormalised": ("top k scaled to 1, fused", lambda problem: fused(problem, problem.renormalised)),
    "products": ("the products alone, logits held", products),
}
HELD_ARRAYS = 7  # float32 arrays of positions x classes that logits held come to
SAME = (("held", "fused"), ("scattered", "chunked"), ("scattered", "renormalised"))


# --- memory -----------------------------------------------------------------------------------------------------------


def own_memory(way: str, size: Size, device: torch.device) -> int:
    """In a process of its own: bytes at the peak beyond states, matrix, their gradients and labels."""
    WAYS[way][1](made_up(replace(size, positions=8, classes=256), device))  # threads and libraries take their memory
    problem = made_up(size, device)
    gradients = 4 * (problem.hidden.numel() + problem.weight.numel())
    before = _peak_anew(device)
    WAYS[way][1](problem)
    return _peak(device) - before - gradients


def _peak_anew(device: torch.device) -> int:
    """Bytes in use now; the peak counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's mark of the largest resident size
    return _bytes("/proc/self/status", "VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _bytes("/proc/self/status", "VmHWM")


def _bytes(path: str, name: str) -> int:
    return next(1024 * int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(name))


def memory(way: str, size: Size, device: str) -> int:
    """`own_memory` of a child process."""
    given = {"measure": way, "device": device, **vars(size)}
    words = [sys.executable, "-m", "benchmarks.fused_loss", *(f"--{name}={value}" for name, value in given.items())]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root})  # noqa: S603
    if done.returncode:
        sys.exit(f"measuring {way} failed ({done.returncode}): {done.stderr}")
    return int(json.loads(done.stdout)["bytes"])


def bearable(size: Size, room: float) -> Size:
    """The size with its positions halved until logits that are held fit into `room` bytes."""
    while size.positions > 1 and HELD_ARRAYS * 4 * size.positions * size.classes > room:
        size = replace(size, positions=size.positions // 2)
    return size


# --- time -------------------------------------------------------------------------------------------------------------


def times(problem: Problem, rounds: int, device: torch.device) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every round, after one that does not count; the ways take turns."""
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            cpu, wall = time.process_time(), time.perf_counter()
            WAYS[way][1](problem)
            if device.type == "cuda":
                torch.cuda.synchronize()
            took[way].append((time.process_time() - cpu, time.perf_counter() - wall))
            problem.gradients()
    return {way: found[1:] for way, found in took.items()}


def differences(problem: Problem) -> list[float]:
    """Largest difference of a gradient between two ways of the same loss, as a share of its largest value."""
    found = []
    for first, second in SAME:
        WAYS[first][1](problem)
        want = problem.gradients()
        WAYS[second][1](problem)
        found += [((a - b).abs().max() / a.abs().max()).item() for a, b in zip(want, problem.gradients(), strict=True)]
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed", type=int, default=512, help="positions of the timing on a CPU")
    parser.add_argument("--room", type=float, default=14.0, help="GiB that a way may take")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--measure", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="also write the page here")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    size = Size(options.positions, options.classes, options.width, options.temperature)
    device = torch.device(options.device)
    if options.measure:
        print(json.dumps({"bytes": own_memory(options.measure, size, device)}))
        return
    keep_freed_memory()  # as training does
    text = page(size, options, device)
    publish(text, options.output)


def page(size: Size, options: argparse.Namespace, device: torch.device) -> str:
    """The whole of it."""
    timed = replace(size, positions=size.positions if device.type == "cuda" else options.timed)
    problem = made_up(timed, device)
    took = times(problem, options.rounds, device)
    return "\n".join(
        [
            *head(size, device), "", "## Memory", "",
            "The peak of a process of its own beyond hidden states, output matrix, their gradients and the labels; "
            + ("what torch's allocator counts." if device.type == "cuda" else "its resident size.")
            + " Held logits grow with the positions, blocks do not.", "",
            "| how | positions | MiB | this / fused lowrank |", "| --- | ---: | ---: | ---: |",
            *memory_lines(size, options), "", "## Time", "",
            f"{timed.positions:,} positions, loss and gradients; medians of {options.rounds} rounds; a ratio is taken in each "
            "round: median (least to most).", "",
            "| how | CPU, s | wall, s | this / fused lowrank, CPU |", "| --- | ---: | ---: | ---: |",
            *(time_line(way, took) for way in WAYS), "",
            f"Gradients of two ways of the same loss differ by at most {max(differences(problem)):.1e} of the largest.", "",
        ]
    )  # fmt: skip


def head(size: Size, device: torch.device) -> list[str]:
    """What was done, on which machine."""
    return [
        "# The fused linear and loss", "",
        f"Forward KL at T = {size.temperature:g} from sparse labels (k = {LOWRANK.k}; lowrank: {LOWRANK.rank} basis vectors) "
        f"and cross-entropy with hard labels, {size.classes:,} classes, hidden states of {size.width} numbers, float32; loss "
        "and gradients at hidden states and output matrix. lowrank: the full KL, the teacher's tail rebuilt. Top k scaled to "
        "1: the KL of the stored classes alone; with logits held and in chunks it is written in plain torch (`scatter`, "
        "`kl_div`).", "",
        machine("torch", device=device),
    ]  # fmt: skip


def memory_lines(size: Size, options: argparse.Namespace) -> list[str]:
    """A line a way; of ours one more where not all positions could be compared."""
    compared = bearable(size, options.room * 1024 * MIB)
    used = {way: memory(way, compared, options.device) for way in WAYS}
    lines = [
        f"| {WAYS[way][0]} | {compared.positions:,} | {used[way] / MIB:,.0f} | {used[way] / max(used['fused'], 1):.1f} |"
        for way in WAYS
    ]
    if compared != size:
        whole = memory("fused", size, options.device)
        lines.append(f"| {WAYS['fused'][0]} | {size.positions:,} | {whole / MIB:,.0f} | |")
    return lines


def time_line(way: str, took: dict[str, list[tuple[float, float]]]) -> str:
    """A line of the table."""
    cells = [f"{statistics.median(each[clock] for each in took[way]):.2f}" for clock in (0, 1)]
    ratios = [own[0] / ours[0] for own, ours in zip(took[way], took["fused"], strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})"
    cells.append("1" if way == "fused" else f"{statistics.median(ratios):.2f}{spread}")
    return f"| {WAYS[way][0]} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
