"""How often the interval that `softlabels plan` gives of a gain holds what it should, and how wide it is.

Students of a synthetic set (five classes, points around five centres) are trained side by side, hard and distilled, from
training rows of their own; their gain over all of them and over many held-out rows counts as the true one. Pilots are then
drawn from these students and rows, and evaluated in two ways: held-out rows of each group's own and the standard error of the
groups' gains, and the same held-out rows for all groups (`softlabels.report.estimates.gain`). A second table says how often
the second way holds for error rates and for NLL, by the number of groups.

G groups, R training rows, N held-out rows, F features, C classes, B blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from softlabels.report.estimates import ERRORS, gain

C, F, HIDDEN, ROWS, BATCH, STEPS, T, ALPHA = 5, 6, 8, 40, 10, 80, 4.0, 0.9
GROUPS, FEWEST, BLOCKS, OF_BLOCK = 8, 4, 16, 20
Floats = NDArray[np.float64]


class Students:
    """Perceptrons of G groups in one product of matrices."""

    def __init__(self, groups: int, draw: torch.Generator) -> None:
        self.weights = [
            (torch.rand(groups, *shape, generator=draw) * 2 - 1) / fan**0.5
            for fan, out in ((F, HIDDEN), (HIDDEN, C))
            for shape in ((fan, out), (1, out))
        ]

    def train(
        self, x: Tensor, label: Tensor, teacher: Tensor, draw: torch.Generator, *, known: int, soft: bool
    ) -> None:
        """Adam on (G, R, F); hard labels are there for the first `known` rows of a group alone."""
        self.weights = [each.clone().requires_grad_() for each in self.weights]
        adam = torch.optim.Adam(self.weights, lr=0.03)
        for _ in range(STEPS):
            at = torch.randint(ROWS if soft else known, (len(x), BATCH), generator=draw)
            z = self(x.take_along_dim(at[..., None], 1))
            hard = functional.cross_entropy(z.mT, label.take_along_dim(at, 1), reduction="none") * (at < known)
            loss = hard.sum(1) / (at < known).sum(1).clamp(min=1)
            if soft:
                told = torch.softmax(teacher.take_along_dim(at[..., None], 1) / T, -1)
                kl = functional.kl_div(torch.log_softmax(z / T, -1), told, reduction="none").sum(-1).mean(1)
                loss = ALPHA * T * T * kl + (1 - ALPHA) * loss
            adam.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
            adam.step()
        self.weights = [each.detach() for each in self.weights]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (G, R, C)."""
        return _logits(self.weights, x)

    def scores(self, x: Tensor, label: Tensor) -> Floats:
        """(2, G, N): 1 where a student errs, and its NLL."""
        every = (_logits([one[n : n + 1] for one in self.weights], x[None])[0] for n in range(len(self.weights[0])))
        both = [(z.argmax(-1) != label, functional.cross_entropy(z, label, reduction="none")) for z in every]
        return np.stack([np.stack([each.numpy() for each in one]) for one in zip(*both, strict=True)]).astype(
            np.float64
        )


def _logits(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    first, shift, second, off = weights
    return torch.baddbmm(off, torch.baddbmm(shift, x, first).relu(), second)


def gains(groups: int, held_out: int, known: int, seed: int) -> Floats:
    """(2, G, N), of each hard student less its distilled one: 1 where it alone errs, -1 where the other does; and NLL."""
    draw = torch.Generator().manual_seed(seed)
    centres = 1.5 * torch.randn(C, F, generator=draw)

    def rows(*shape: int) -> tuple[Tensor, Tensor]:
        label = torch.randint(C, shape, generator=draw)
        return centres[label] + torch.randn(*shape, F, generator=draw), label

    x, label = rows(groups, ROWS)
    teacher = -(x[..., None, :] - centres).square().sum(-1) / 2
    tests = rows(held_out)
    found = []
    for soft in (False, True):
        students = Students(groups, torch.Generator().manual_seed(seed))
        students.train(x, label, teacher, draw, known=known, soft=soft)
        found.append(students.scores(*tests))
    return np.asarray(found[0] - found[1])


def pilots(every: Floats, count: int, rng: np.random.Generator, groups: int = GROUPS) -> dict[str, Floats]:
    """(count, 3) of each way: low, estimate, high."""
    found: dict[str, list[tuple[float, float, float]]] = {"rows of each group's own": [], "the same rows for all": []}
    for _ in range(count):
        table = every[rng.integers(0, len(every), groups)][:, rng.integers(0, every.shape[1], BLOCKS * OF_BLOCK)]
        own = np.array([part[number].mean() for number, part in enumerate(np.array_split(table, groups, axis=1))])
        off = ERRORS * own.std(ddof=1) / groups**0.5
        found["rows of each group's own"].append((own.mean() - off, own.mean(), own.mean() + off))
        blocks = table.reshape(groups, BLOCKS, OF_BLOCK).mean(-1)
        all_alike = gain(blocks, np.zeros_like(blocks))
        found["the same rows for all"].append((all_alike.low, all_alike.estimate, all_alike.high))
    return {name: np.array(each) for name, each in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, draw pilots, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--students", type=int, default=2000, help="groups that are trained")
    parser.add_argument("--pilots", type=int, default=4000, help="that are drawn from them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| hard labels | held-out rows | gain | standard error | holds the true gain | holds another pilot's |")
    print("| --- | --- | --- | --- | --- | --- |")
    trained = {known: gains(options.students, 3200, known, options.seed) for known in (ROWS, 12)}
    for known, (wrong, _) in trained.items():
        for name, each in pilots(wrong, options.pilots, np.random.default_rng(options.seed)).items():
            inside, again = held(each, wrong.mean())
            error = np.mean(each[:, 2] - each[:, 0]) / 2 / ERRORS
            print(f"| {known} of {ROWS} | {name} | {wrong.mean():.4f} | {error:.4f} | {inside:.1%} | {again:.1%} |")
    print("\n| groups | measure | hard labels | holds the true gain | holds another pilot's |")
    print("| --- | --- | --- | --- | --- |")
    for groups in range(FEWEST, GROUPS + 1):
        for number, measure in enumerate(("error rate", "NLL")):
            for known, each in trained.items():
                rng = np.random.default_rng(options.seed)
                drawn = pilots(each[number], options.pilots, rng, groups)["the same rows for all"]
                inside, again = held(drawn, each[number].mean())
                print(f"| {groups} | {measure} | {known} of {ROWS} | {inside:.1%} | {again:.1%} |")


def held(drawn: Floats, true: float) -> tuple[float, float]:
    """How often intervals hold the true gain, and how often the estimate of the pilot before."""
    low, estimate, high = drawn.T
    other = np.roll(estimate, 1)
    return float(np.mean((low < true) & (true < high))), float(np.mean((low < other) & (other < high)))


if __name__ == "__main__":
    main()
