"""What topk labels of one member say at many temperatures at once is what their distributions say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk_reference import topk_log_probs

CLASSES, ROWS = 120, 24
TEMPERATURES = (1.0, 2.5, 20.0)


def cross_entropy(p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    return -np.where(p > 0, p * np.where(p > 0, log_q, 0.0), 0.0).sum(axis=-1)


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "bucket", "renormalised"])
def test_summary(rng: np.random.Generator, tail: str) -> None:
    rank = 5 if tail == "lowrank" else 0
    encoding = TopkEncoding(k=9, tail=tail, rank=rank, fine=min(rank, 2), nodes=0 if tail == "renormalised" else 8)  # type: ignore[arg-type]
    basis = rng.normal(size=(1 + rank, CLASSES)).astype(np.float16) if tail in ("lowrank", "prior") else None
    if basis is not None:
        basis[0, 7:40] = -65504  # classes that the prior holds for impossible
    z = rng.normal(size=(ROWS, 1, CLASSES)) * 4
    z[:4, :, 12:] = -np.inf  # nearly no tail
    z[4:6, :, 9:] = -np.inf  # none
    columns, _ = encoding.encode(torch.tensor(z), basis=None if basis is None else torch.tensor(basis))
    others = [rng.normal(size=(ROWS, CLASSES)).astype(np.float32) * 3 for _ in range(2)]
    ids = np.sort(rng.integers(-1, CLASSES, (ROWS, 30)), axis=1)
    found = encoding.summary(columns, CLASSES, basis, temperatures=TEMPERATURES, ids=ids, others=others)
    assert found is not None
    for at, temperature in enumerate(TEMPERATURES):
        log_p = topk_log_probs(columns, encoding, CLASSES, basis, temperature)[:, 0]
        p = np.exp(log_p)
        own = np.take_along_axis(p, ids.clip(min=0), axis=1)
        assert np.allclose(np.exp(found.log_p[at])[ids >= 0], own[ids >= 0], rtol=1e-5, atol=1e-7)
        assert np.allclose(found.entropy[at], cross_entropy(p, log_p), rtol=1e-5, atol=1e-5)
        assert np.allclose(np.exp(found.top[at]), p.max(axis=1), rtol=1e-6)
        assert np.allclose(found.total[at], p.sum(axis=0), rtol=1e-5, atol=1e-5)
        for number, other in enumerate(others):
            log_q = np.log(np.exp(other.astype(float) / temperature))
            norm = np.log(np.exp(log_q).sum(axis=1))
            assert np.allclose(found.norm[number, at], norm, rtol=1e-5)
            assert np.allclose(found.cross[number, at], cross_entropy(p, log_q - norm[:, None]), rtol=1e-5, atol=1e-5)
    # what carries a class from one temperature to another
    first, last = TEMPERATURES[0], TEMPERATURES[-1]
    curve = np.where(found.in_tail, found.shift[..., 1:], found.shift[..., :1])
    with np.errstate(invalid="ignore"):
        carried = (found.log_p[0] - curve[0]) * first / last + curve[-1]
    usable = np.isfinite(carried) & (ids >= 0)
    assert np.allclose(carried[usable], found.log_p[-1][usable], atol=1e-5)


def test_several_members_are_decoded(rng: np.random.Generator) -> None:
    encoding = TopkEncoding(k=4, tail="uniform", nodes=4)
    columns, _ = encoding.encode(torch.tensor(rng.normal(size=(3, 2, 10))))
    assert encoding.summary(columns, 10, None, temperatures=[1.0], ids=np.zeros((3, 0), np.int64)) is None
