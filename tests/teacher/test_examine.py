"""What a sample says of a teacher's distributions, against the definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.teacher.examine import examine

WEIGHTS = np.array([3.0, 1.0])


def test_flatness_and_tails_of_an_ensemble(rng: np.random.Generator) -> None:
    logits = rng.normal(0, 3, (50, 2, 12))
    logits[:5, :, 3] += 40  # sure
    logits[7, 0, 2] = -np.inf
    blocks = [torch.from_numpy(part) for part in (logits[:20], logits[20:])]
    found = examine(blocks, WEIGHTS, encodings={}, tails=[2, 5])
    assert found.samples == 50
    for t in (1.0, 2.0, 4.0, 8.0, 20.0):
        p = (softmax(logits / t, axis=2) * np.array([0.75, 0.25])[:, None]).sum(axis=1)
        ordered = -np.sort(-p, axis=1)
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1).mean()
        name = f"{t:g}"
        assert found.flatness.entropy[name] == pytest.approx(entropy)
        assert found.flatness.top[name] == pytest.approx(ordered[:, 0].mean())
        for k in (2, 5):
            assert found.flatness.tail[str(k)][name] == pytest.approx(ordered[:, k:].sum(axis=1).mean(), abs=1e-12)
        if t == 1:
            assert found.flatness.sure == np.mean(ordered[:, 0] > 0.99) > 0.09
    assert found.flatness.most == pytest.approx(np.log(12))


def test_what_encodings_lose_is_what_they_say_of_the_same_rows(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(0, 2, (60, 2, 40)).astype(np.float32))
    tried = {"dense": DenseEncoding(), "topk": TopkEncoding(k=4, tail="uniform", rank=0, fine=0, nodes=9)}
    found = examine([logits[:25], logits[25:]], WEIGHTS, encodings=tried)
    assert {*found.lost} == {"dense", "topk"}
    assert found.lost["dense"]["1"].kl_mean < 1e-6 < found.lost["topk"]["1"].kl_mean  # type: ignore[operator]
    one_pass = tried["topk"].encode(logits)[1].fidelity
    assert found.lost["topk"]["4"].kl_mean == pytest.approx(
        next(each.kl_sum / each.samples for each in one_pass if each.temperature == 4)  # type: ignore[operator]
    )
