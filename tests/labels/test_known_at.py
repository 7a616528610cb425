"""Labels that somebody made of probabilities, known at the temperature at which those were taken, and refused at others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding
from softlabels.labels.soft import SoftLabels

N, M, C = 4, 2, 6
MEANS = ("tempered", "geometric", "arithmetic")
ENCODINGS = [
    DenseEncoding(known_at=2.0),
    TopkEncoding(k=3, tail="uniform", known_at=2.0),
    TopkEncoding(k=3, tail="renormalised", nodes=0, known_at=2.0),
    SigmoidEncoding(known_at=2.0),
]


def soft_labels(encoding: Encoding, z: np.ndarray) -> tuple[SoftLabels, dict[str, np.ndarray]]:
    columns, _ = encoding.encode(torch.from_numpy(z))
    members = encoding.members({name: torch.from_numpy(values) for name, values in columns.items()}, C)
    return SoftLabels(members, torch.full((M,), 1 / M), encoding.reduce, encoding.only_at), columns


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: f"{each.kind}-{getattr(each, 'tail', '')}")
def test_they_are_served_there_and_refused_elsewhere(rng: np.random.Generator, encoding: Encoding) -> None:
    soft, columns = soft_labels(encoding, rng.normal(size=(N, M, C)).astype(np.float32))
    free, _ = soft_labels(msgspec.structs.replace(encoding, known_at=msgspec.UNSET), rng.normal(size=(N, M, C)))
    ask: Callable[..., torch.Tensor] = soft.logits if encoding.target == "sigmoid" else soft.log_probs
    known: dict[str, Any] = {"mean": "arithmetic", "weights": [1.0] * M}
    assert torch.isfinite(ask(2.0)[:, 0]).any()
    assert encoding.probabilities(columns, C, None, temperature=2.0, **known).shape == (N, C)
    encoding.check_temperature(2.0)
    words = "known at temperature 2 only, not at 1: they were made from probabilities.*give temperature=2"
    for wrong in (
        lambda: ask(1.0),
        lambda: soft[:2].member(1).to("cpu").__getattribute__(ask.__name__)(1.0),
        lambda: ask(2.0, "tempered"),  # of which the mean at T = 1 is part
        lambda: encoding.probabilities(columns, C, None, temperature=1.0, **known),
        lambda: encoding.check_temperature(1.0),
    ):
        with pytest.raises(ConfigError, match=words):
            wrong()
    with pytest.raises(ConfigError, match="tempered mean is that of temperature 1, and the labels are known at 2 only"):
        encoding.check_mean("tempered", C, M)
    encoding.check_mean("tempered", C, 1)  # who alone has a weight
    alone = replace(soft, weights=torch.tensor([0.0, 1.0])).__getattribute__(ask.__name__)
    torch.testing.assert_close(alone(2.0, "tempered"), soft.member(1).__getattribute__(ask.__name__)(2.0))
    means = (encoding.probabilities(columns, C, None, temperature=2.0, mean=mean, weights=[0.0, 1.0]) for mean in MEANS)
    tempered, others = next(means), [*means]
    np.testing.assert_allclose(others, [tempered] * len(others))
    assert encoding.near_1 == 2.0
    assert free.known_at is None
    assert encoding.decoding()["known_at"] == 2.0
    assert "known_at" not in msgspec.structs.replace(encoding, known_at=msgspec.UNSET).decoding()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda each: f"{each.kind}-{getattr(each, 'tail', '')}")
def test_what_was_lost_is_measured_there_alone(rng: np.random.Generator, encoding: Encoding) -> None:
    z = torch.tensor(rng.normal(size=(N, M, C)))
    lost = encoding.encode(z)[1]
    everywhere = msgspec.structs.replace(encoding, known_at=msgspec.UNSET).encode(z)[1]
    assert [line.temperature for line in lost.fidelity] == [2.0]
    (alone,) = lost.fidelity
    (among,) = (line for line in everywhere.fidelity if line.temperature == 2.0)
    assert alone.samples == among.samples
    assert alone.top1_agreed == among.top1_agreed
    if alone != among:  # half a temperature is had from a square
        assert alone.kl_sum == pytest.approx(among.kl_sum, rel=1e-5)
        assert alone.kl_max == pytest.approx(among.kl_max, rel=1e-5)


def test_logits_are_the_limit_of_a_high_temperature(rng: np.random.Generator) -> None:
    soft, _ = soft_labels(DenseEncoding(known_at=2.0), rng.normal(size=(N, M, C)))
    for ask in (soft.mean_logits, soft.standardised):
        with pytest.raises(
            ConfigError, match=r"known at temperature 2 only and have no (mean logits|logits to standard)"
        ):
            ask()
    topk, _ = soft_labels(TopkEncoding(k=3, tail="uniform", known_at=2.0), rng.normal(size=(N, M, C)))
    with pytest.raises(ConfigError, match="not at 4"):
        topk.member(0).stored(4.0)


def test_a_tail_that_is_not_known_there() -> None:
    with pytest.raises(ConfigError, match=r"known at temperature 0\.5, and their tail from 1 up"):
        TopkEncoding(k=3, tail="uniform", known_at=0.5).check(1, C)
    TopkEncoding(k=3, tail="uniform", known_at=0.5, beta_max=2.0).check(1, C)
    TopkEncoding(k=3, tail="renormalised", nodes=0, known_at=0.5).check(1, C)
