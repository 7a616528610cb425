"""Whether tail classes drawn at random, weighted so that forward KL's gradient is unbiased at every T, teach better than a
lowrank tail of the same bytes.

Both know the k largest logits and the tail's mass. A draw is a class of the tail and its logit: its probability over that of
the proposal, p_i / r_i, is what it counts for, and the mean over the draws is an unbiased estimate of p. Draws are stored once
and seen again in every epoch. The gradient at the student's logits is (q - p) / T: its error is that of p whoever the student.

    python -m benchmarks.sampled_tail --store stores/lm-dense --output benchmarks/results/sampled_tail.md

n positions, C classes, K stored classes, m draws, H hidden units.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.any_temperature.logits import made_up, spread
from benchmarks.page import publish
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.tail_basis import find_basis
from softlabels.labels.topk_soft import TopkMembers
from softlabels.store import open_store, store_splits
from softlabels.teacher.reencode import DensePilot

TEMPERATURES = (1.0, 2.0, 4.0)
TAIL_BYTES = (16, 24)
K, NODES, DIRECTIONS, HIDDEN = 2, 4, 96, 128
BLOCK, BATCH = 256, 128
STUDENTS = ("uniform", "prior", "near")


@dataclass(frozen=True)
class Problem:
    """Teacher logits (n, C) float32 of positions to train on and of others, prior and basis (1 + R, C) float16, and hidden
    states (n, H) of a student for both: a fixed random layer over the teacher's leading directions.
    """

    train: Tensor
    held_out: Tensor
    basis: Tensor
    states: Tensor
    held_out_states: Tensor

    @staticmethod
    def of(z: Tensor, held_out: int, basis: Tensor) -> Problem:
        """Of logits (n, C), the last `held_out` of which are held out."""
        draw = torch.Generator().manual_seed(0)
        directions = torch.linalg.qr(basis[1 : 1 + DIRECTIONS].float().t()).Q
        seen = (z - basis[0].float()) @ directions
        seen /= seen.std(dim=0)
        weights = torch.randn(seen.shape[1], HIDDEN, generator=draw) * 1.5 / seen.shape[1] ** 0.5
        states = torch.cat([torch.tanh(seen @ weights), torch.ones(len(z), 1)], dim=1)
        return Problem(z[:-held_out], z[-held_out:], basis, states[:-held_out], states[-held_out:])


Target = Callable[[Tensor, float], Tensor]  # numbers of positions (n,), T -> estimate of p (n, C)


def exact(z: Tensor) -> Target:
    """The distribution itself."""
    return lambda at, temperature: torch.softmax(z[at] / temperature, dim=-1)


def lowrank(z: Tensor, basis: Tensor, tail_bytes: int) -> Target:
    """What the store gives: coefficients of 4 bits and their scale."""
    encoding = TopkEncoding(k=K, nodes=NODES, rank=2 * (tail_bytes - 2))
    vectors = basis[: 1 + encoding.rank]
    columns, _ = encoding.encode(z[:, None], basis=vectors)
    members = TopkMembers.of(columns, encoding=encoding, classes=z.shape[1], basis=vectors)
    return lambda at, temperature: members[at].log_probs(0, temperature).exp()


def sampled(z: Tensor, proposal: Tensor, draws: int, *, normalised: bool = False) -> Target:
    """`draws` classes of each tail from softmax(`proposal`) (n or 1, C) over the tail; `normalised`: scaled to the tail's mass,
    which is known, at the price of a bias.
    """
    top = z.topk(K, dim=-1).indices
    draw = torch.Generator().manual_seed(1)
    ids = torch.empty(len(z), draws, dtype=torch.int64)
    log_r = torch.empty(len(z), draws)
    for start in range(0, len(z), BLOCK):
        at = slice(start, start + BLOCK)
        tail = (proposal[at] if len(proposal) > 1 else proposal.expand(len(z[at]), -1)).scatter(1, top[at], -torch.inf)
        log_proposal = torch.log_softmax(tail, dim=-1)
        ids[at] = torch.multinomial(log_proposal.exp(), draws, replacement=True, generator=draw)
        log_r[at] = log_proposal.gather(1, ids[at])

    def estimate(at: Tensor, temperature: float) -> Tensor:
        log_p = torch.log_softmax(z[at] / temperature, dim=-1)
        found = torch.zeros_like(log_p).scatter_(1, top[at], log_p.gather(1, top[at]).exp())
        weights = (log_p.gather(1, ids[at]) - log_r[at]).exp() / draws
        if normalised:
            mass = 1 - found.sum(dim=-1, keepdim=True)
            weights = weights * (mass / weights.sum(dim=-1, keepdim=True))
        return found.scatter_add_(1, ids[at], weights)

    return estimate


def ways(problem: Problem) -> dict[str, Target]:
    """Name to labels. A draw of the teacher's own distribution takes 4 bytes, a class and its logit; one of the store's prior
    2, as the class can be drawn again from a seed.
    """
    z, prior = problem.train, problem.basis[:1].float()
    found = {}
    for size in TAIL_BYTES:
        found[f"lowrank, {size} bytes"] = lowrank(z, problem.basis, size)
        found[f"sampled from p at T = 1, {size} bytes"] = sampled(z, z, size // 4)
        found[f"sampled from p at T = 2, {size} bytes"] = sampled(z, z / 2, size // 4)
        found[f"the same, scaled to the mass, {size} bytes"] = sampled(z, z / 2, size // 4, normalised=True)
        found[f"sampled from the prior, {size} bytes"] = sampled(z, prior, size // 2)
    return found


# --- gradients --------------------------------------------------------------------------------------------------------


def students(problem: Problem, at: Tensor, temperature: float) -> dict[str, Tensor]:
    """Logits / T of made-up students at positions `at`: one that knows nothing, one that knows the prior, and one that is
    near: the teacher's logits with noise of deviation 1.
    """
    noise = torch.randn(len(at), problem.train.shape[1], generator=torch.Generator().manual_seed(int(at[0])))
    prior = problem.basis[:1].float().expand_as(noise)
    return {
        "uniform": torch.zeros_like(noise),
        "prior": prior / temperature,
        "near": (problem.train[at] + noise) / temperature,
    }


def gradient_errors(problem: Problem, target: Target, temperature: float) -> dict[str, tuple[float, float]]:
    """Of each student: the error of the gradient at the logits (root mean square over positions) and at the output matrix
    (of the mean over all positions), as shares of the exact gradient.
    """
    count, classes, width = *problem.train.shape, problem.states.shape[1]
    error_square, error_matrix = 0.0, torch.zeros(width, classes)
    squares, matrices = dict.fromkeys(STUDENTS, 0.0), {name: torch.zeros(width, classes) for name in STUDENTS}
    for at in torch.split(torch.arange(count), BLOCK):
        p = torch.softmax(problem.train[at] / temperature, dim=-1)
        error = target(at, temperature) - p
        error_square += error.square().sum().item()
        error_matrix += problem.states[at].t() @ error
        for name, logits in students(problem, at, temperature).items():
            gradient = torch.softmax(logits, dim=-1) - p
            squares[name] += gradient.square().sum().item()
            matrices[name] += problem.states[at].t() @ gradient
    return {
        name: (math.sqrt(error_square / squares[name]), (error_matrix.norm() / matrices[name].norm()).item())
        for name in STUDENTS
    }


# --- training ---------------------------------------------------------------------------------------------------------


def trained(problem: Problem, target: Target, temperature: float, steps: int) -> float:
    """Mean KL(teacher || student) at T in the positions held out, of an output matrix that was trained on labels at T."""
    torch.manual_seed(0)
    layer = nn.Linear(problem.states.shape[1], problem.train.shape[1], bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    draw = torch.Generator().manual_seed(2)
    for _ in range(steps):
        at = torch.randint(len(problem.train), (BATCH,), generator=draw)
        log_q = torch.log_softmax(layer(problem.states[at]) / temperature, dim=-1)
        loss = -(target(at, temperature) * log_q).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        log_q = torch.log_softmax(layer(problem.held_out_states) / temperature, dim=-1)
        log_p = torch.log_softmax(problem.held_out / temperature, dim=-1)
        return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean().item()


# --- the page ---------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampled_tail", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--store", type=Path, help="a dense store, or a folder of splits; without one a made-up teacher"
    )
    parser.add_argument("--positions", type=int, default=2048, help="to train on; half as many are held out")
    parser.add_argument("--steps", type=int, default=150, help=f"of training, {BATCH} positions each; 0: none")
    parser.add_argument("--output", type=Path, help="also write the page here")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    publish(page(load(options), options), options.output)


def load(options: argparse.Namespace) -> Problem:
    """The store's logits, or made-up ones."""
    held_out = options.positions // 2
    if options.store is None:
        teacher = made_up(500, 128, 1.5, pilot=400, count=options.positions + held_out)
        pilot, z = teacher.pilot, teacher.positions
    else:
        splits = store_splits(options.store)
        store = open_store(splits.get("train", next(iter(splits.values()))))
        pilot, z = DensePilot(store, torch.device("cpu")), spread(store, options.positions + held_out)
        z = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(3))]
    return Problem.of(z, held_out, torch.from_numpy(find_basis(pilot, DIRECTIONS)))


def page(problem: Problem, options: argparse.Namespace) -> str:
    """The whole of it."""
    lines = [
        "# Sampled tails against lowrank tails", "",
        f"{'Real logits' if options.store else 'Made-up logits'}: {len(problem.train):,} positions of "
        f"{problem.train.shape[1]:,} classes; k = {K}, {NODES} nodes, and the tail's bytes beside. Errors are shares of the "
        "exact gradient of forward KL: at the logits of a position (root mean square) / at the output matrix, of the mean over "
        f"all positions. Last: an output matrix over {HIDDEN} fixed random features is trained for {options.steps} steps of "
        f"{BATCH} positions on labels at T; KL(teacher || student) at T in positions held out.", "",
    ]  # fmt: skip
    targets = {"exact": exact(problem.train)} | ways(problem)
    for temperature in TEMPERATURES:
        lines += [
            f"## T = {temperature:g}", "",
            f"| labels | {' | '.join(f'student: {name}' for name in STUDENTS)} | KL after training |",
            f"| --- |{' ---: |' * (len(STUDENTS) + 1)}",
        ]  # fmt: skip
        for name, target in targets.items():
            errors = gradient_errors(problem, target, temperature)
            cells = [f"{at_logits:.3f} / {at_matrix:.3f}" for at_logits, at_matrix in errors.values()]
            cells.append(
                f"{trained(problem, target, temperature, options.steps):.4f}" if options.steps else "not trained"
            )
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


if __name__ == "__main__":
    main()
