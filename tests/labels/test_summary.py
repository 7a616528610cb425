"""What labels say at many temperatures at once, and sparsely, is what their distributions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.labels.encoding import DenseEncoding, Encoding, TopkEncoding

CLASSES, ROWS, MEMBERS = 120, 24, 3
TEMPERATURES = (1.0, 2.5, 20.0)
WEIGHTS = np.array([0.5, 0.0, 0.5])


def cross_entropy(p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return -np.where(p > 0, p * np.where(p > 0, log_q, 0.0), 0.0).sum(axis=-1)


def distributions(
    encoding: Encoding, columns: dict[str, np.ndarray], basis: np.ndarray | None, at: float
) -> np.ndarray:
    """(N, M, C) float64."""
    z = encoding.member_logits(columns, CLASSES, basis, at)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def labels_of(
    rng: np.random.Generator, kind: str, members: int
) -> tuple[Encoding, dict[str, np.ndarray], np.ndarray | None, np.ndarray]:
    """An encoding, columns, its basis and hard labels: some classes are impossible, some tails empty."""
    rank = 5 if kind == "lowrank" else 0
    encoding: Encoding = DenseEncoding()
    if kind != "dense":
        nodes = 0 if kind == "renormalised" else 8
        encoding = TopkEncoding(k=9, tail=kind, rank=rank, fine=min(rank, 2), nodes=nodes)  # type: ignore[arg-type]
    basis = rng.normal(size=(1 + rank, CLASSES)).astype(np.float16) if kind in ("lowrank", "prior") else None
    if basis is not None:
        basis[0, 7:40] = -65504  # classes that the prior holds for impossible
    z = rng.normal(size=(ROWS, members, CLASSES)) * 4
    z[:4, :, 12:] = -np.inf  # nearly no tail
    z[4:6, :, 9:] = -np.inf  # none
    labels = rng.integers(0, 9, ROWS)
    given = None if basis is None else torch.tensor(basis)
    columns, _ = encoding.encode(torch.tensor(z), basis=given, labels=torch.tensor(labels))
    return encoding, columns, basis, labels


KINDS = [
    (kind, members) for kind in ("dense", "lowrank", "prior", "uniform", "renormalised") for members in (1, MEMBERS)
]


@pytest.mark.parametrize(("kind", "members"), [*KINDS, ("bucket", 1)])
def test_summary(rng: np.random.Generator, kind: str, members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("summary", "topk_summary", "dense_summary"):
        monkeypatch.setattr(f"softlabels.labels.{module}.NUMBERS", 10 * 9 * members * 30)  # several blocks
    encoding, columns, basis, _ = labels_of(rng, kind, members)
    weights = WEIGHTS if members == MEMBERS else np.ones(1)
    others = [rng.normal(size=(ROWS, CLASSES)).astype(np.float32) * 3 for _ in range(2)]
    ids = np.sort(rng.integers(-1, CLASSES, (ROWS, 30)), axis=1)
    found = encoding.summary(
        columns, CLASSES, basis, weights=weights, temperatures=TEMPERATURES, ids=ids, others=others
    )
    there = np.broadcast_to((ids >= 0)[:, None], found.in_tail.shape)
    for at, temperature in enumerate(TEMPERATURES):
        own = distributions(encoding, columns, basis, temperature)
        p = np.einsum("m,nmc->nc", weights, own)
        asked = np.take_along_axis(own, ids.clip(min=0)[:, None], axis=2)
        assert np.allclose(np.exp(found.log_p[at])[there], asked[there], rtol=2e-5, atol=1e-7)
        with np.errstate(divide="ignore"):
            assert np.allclose(found.own_entropy[at], cross_entropy(own, np.log(own)), rtol=1e-5, atol=1e-5)
            assert np.allclose(found.entropy[at], cross_entropy(p, np.log(p)), rtol=1e-5, atol=1e-5)
        assert np.allclose(found.own_top[at], own.max(axis=2), rtol=1e-6)
        assert np.allclose(found.top[at], p.max(axis=1), rtol=1e-6)
        assert np.allclose(found.total[at], p.sum(axis=0), rtol=1e-5, atol=1e-5)
        for number, other in enumerate(others):
            log_q = other.astype(float) / temperature
            norm = np.log(np.exp(log_q).sum(axis=1))
            assert np.allclose(found.norm[number, at], norm, rtol=1e-5)
            assert np.allclose(found.cross[number, at], cross_entropy(p, log_q - norm[:, None]), rtol=1e-5, atol=1e-5)
    # what carries a class from one temperature to another
    first, last = TEMPERATURES[0], TEMPERATURES[-1]
    curve = np.where(found.in_tail, found.shift[..., 1:], found.shift[..., :1])
    with np.errstate(invalid="ignore"):
        carried = (found.log_p[0] - curve[0]) * first / last + curve[-1]
    usable = np.isfinite(carried) & there
    assert np.allclose(carried[usable], found.log_p[-1][usable], atol=2e-5)


@pytest.mark.parametrize(("kind", "members"), [pair for pair in KINDS if pair[0] != "dense"])
def test_probabilities_of_kept_classes(rng: np.random.Generator, kind: str, members: int) -> None:
    encoding, columns, basis, labels = labels_of(rng, kind, members)
    weights = WEIGHTS if members == MEMBERS else np.ones(1)
    found = encoding.kept_probabilities(columns, CLASSES, weights, temperature=1.0, labels=labels)
    assert found is not None
    own = distributions(encoding, columns, basis, 1.0)
    kept = np.zeros(own.shape, np.bool_)
    np.put_along_axis(kept, columns["top_class"].astype(np.int64), True, axis=2)
    mass = np.where(kept, 0.0, own).sum(axis=2)
    even = np.where(kept, own, (mass / (CLASSES - 9))[:, :, None])  # the tail is one number
    mean = np.einsum("m,nmc->nc", weights, even)
    said = np.repeat(found.rest[:, None], CLASSES, axis=1)
    rows, places = np.nonzero(found.ids >= 0)
    said[rows, found.ids[rows, places]] = found.p[rows, places]
    others = np.ones(said.shape, np.bool_)
    others[np.arange(ROWS), labels] = kept[np.arange(ROWS), :, labels].all(axis=1)
    assert np.allclose(said[others], mean[others], rtol=1e-5, atol=1e-9)
    assert all(len({*row[row >= 0]}) == (row >= 0).sum() for row in found.ids)
    assert np.array_equal(found.ids[:, 0], labels)
    # a label in the tail has what its stored logit says
    peak = np.log(own.max(axis=2))
    exact = np.exp(np.minimum(columns["label_logit"].astype(float) + peak, np.log(np.maximum(mass, 1e-300))))
    wanted = np.where(kept[np.arange(ROWS), :, labels], own[np.arange(ROWS), :, labels], exact) @ weights
    assert np.allclose(found.p[:, 0], wanted, rtol=1e-5, atol=1e-9)
