"""Every soft term in float64 numpy, written from its definition, and the inputs that the losses' tests share. Nothing of the
library's arithmetic is used here: distributions are plain probabilities, entries of probability 0 are left out of sums."""

from __future__ import annotations

import numpy as np
import torch

from softlabels.labels.soft import SoftLabels
from softlabels.student.losses import distillation_loss

Array = np.ndarray
PER_ROW = ("forward_kl", "reverse_kl", "js", "soft_ce", "logit_mse", "dkd", "nkd")
ALL = (*PER_ROW, "dist")
DEFAULTS = {
    "js": {"beta": 0.5},
    "dkd": {"alpha": 1.0, "beta": 8.0},
    "nkd": {"gamma": 1.5},
    "dist": {"beta": 1.0, "gamma": 1.0},
}


def draw(
    rng: np.random.Generator, rows: int = 12, members: int = 3, classes: int = 7, scale: float = 3.0
) -> tuple[Array, Array]:
    """A student's logits (B, C) and a teacher's (B, M, C)."""
    return rng.normal(0, scale, (rows, classes)), rng.normal(1, 1.3 * scale, (rows, members, classes))


def soft_labels(logits: Array, weights: Array | None = None, dtype: torch.dtype = torch.float32) -> SoftLabels:
    """(B, M, C) raw logits as `SoftLabels`."""
    shift = logits.max(axis=-1)
    members = logits.shape[1]
    share = np.full(members, 1 / members) if weights is None else weights / weights.sum()
    return SoftLabels.dense(
        torch.tensor(logits - shift[..., None]).to(dtype),
        torch.tensor(shift, dtype=torch.float32),
        torch.tensor(share, dtype=torch.float32),
    )


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def teacher(v: Array, temperature: float, mean: str, share: Array) -> Array:
    """The ensemble's probabilities (B, C)."""
    if mean == "geometric":
        return softmax(np.einsum("m,bmc->bc", share, v) / temperature)
    inner = 1.0 if mean == "tempered" else temperature
    p = np.einsum("m,bmc->bc", share, softmax(v / inner))
    if mean == "arithmetic":
        return p
    sharp = p ** (1 / temperature)
    return sharp / sharp.sum(axis=-1, keepdims=True)


def kl(p: Array, q: Array) -> float:
    """KL(p || q) of two probability vectors, over the entries where p is not 0."""
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def cross_entropy(p: Array, q: Array) -> float:
    some = p > 0
    return float(-(p[some] * np.log(q[some])).sum())


def pearson(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def apart(p: Array, label: int) -> tuple[Array, Array]:
    """The pair (p_t, 1 - p_t), its second entry as the sum of the others, and the others' shares of it."""
    others = np.delete(p, label)
    return np.array([p[label], others.sum()]), others / others.sum()


def standardised(z: Array) -> Array:
    return (z - z.mean(axis=-1, keepdims=True)) / np.sqrt(((z - z.mean(axis=-1, keepdims=True)) ** 2).mean(-1))[
        ..., None
    ]


def row_term(
    loss: str, z: Array, v: Array, p: Array, p_one: Array, label: int, t: float, args: dict[str, float]
) -> float:
    """One row's term: z (C,), v (C,) the members' mean logits, p and p_one (C,) the teacher at T and at 1."""
    q = softmax(z / t)
    if loss == "logit_mse":
        gap = (z - z.mean()) - (v - v.mean())
        return float((gap * gap).sum() / (2 * len(z)))
    if loss == "js":
        mixture = args["beta"] * p + (1 - args["beta"]) * q
        return t * t * (args["beta"] * kl(p, mixture) + (1 - args["beta"]) * kl(q, mixture))
    if loss == "dkd":
        (p_pair, p_rest), (q_pair, q_rest) = apart(p, label), apart(q, label)
        return t * t * (args["alpha"] * kl(p_pair, q_pair) + args["beta"] * kl(p_rest, q_rest))
    if loss == "nkd":
        of_label = -p_one[label] * np.log(softmax(z)[label])
        return float(of_label + args["gamma"] * t * t * cross_entropy(apart(p, label)[1], apart(q, label)[1]))
    return t * t * {"forward_kl": kl(p, q), "reverse_kl": kl(q, p), "soft_ce": cross_entropy(p, q)}[loss]


def soft_term(
    loss: str,
    z: Array,
    v: Array,
    labels: Array,
    *,
    temperature: float,
    mean: str = "arithmetic",
    weights: Array | None = None,
    standardise: bool = False,
    args: dict[str, float] | None = None,
) -> float:
    """The batch's mean of the soft term: z (B, C), v (B, M, C)."""
    share = np.full(v.shape[1], 1 / v.shape[1]) if weights is None else weights / weights.sum()
    args = {**DEFAULTS.get(loss, {}), **(args or {})}
    if standardise:
        z, v = standardised(z), standardised(v)
    p, p_one = (teacher(v, t, mean, share) for t in (temperature, 1.0))
    if loss == "dist":
        q = softmax(z / temperature)
        inter = np.mean([1 - pearson(a, b) for a, b in zip(p, q, strict=True)])
        intra = np.mean([1 - pearson(a, b) for a, b in zip(p.T, q.T, strict=True)])
        return float(args["beta"] * inter + args["gamma"] * intra)
    mean_v = np.einsum("m,bmc->bc", share, v)
    rows = [row_term(loss, z[b], mean_v[b], p[b], p_one[b], int(labels[b]), temperature, args) for b in range(len(z))]
    return float(np.mean(rows))


def soft_only(student: torch.Tensor, soft: SoftLabels, labels: Array | None = None, **options: object) -> torch.Tensor:
    """The library's soft term, averaged over the rows."""
    given = torch.full((len(student),), -1) if labels is None else torch.tensor(labels)
    return distillation_loss(student, soft, given, hard_weight=0, soft_weight=1, **options)  # type: ignore[arg-type]


def soft_gradient(z: Array, soft: SoftLabels, labels: Array | None = None, **options: object) -> Array:
    """Its gradient at z, (B, C)."""
    student = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    soft_only(student, soft, labels, **options).backward()
    assert student.grad is not None
    return student.grad.numpy().astype(np.float64)
