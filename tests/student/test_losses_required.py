"""What a loss cannot do is said before training, and again by the loss itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from softlabels.errors import ClassMismatch, ConfigError, LabelError, MeanUnavailable
from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LOSS_NAMES, LossSpec
from softlabels.student.losses import LOSSES, require_loss, soft_sum
from tests.student.loss_reference import draw, soft_labels, soft_only

FITTING = {"label_free_rows": 0, "micro_batch": None, "reduce": "none", "classes": 7}


def require(
    name: str, args: dict[str, float] | None = None, *, logit_standardization: bool = False, **changes: object
) -> None:
    spec = LossSpec(1.0, loss=name, loss_args=args, logit_standardization=logit_standardization)
    require_loss(spec, **(FITTING | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LOSS_NAMES["softmax"])
def test_every_loss_is_to_be_had_with_its_defaults_and_what_passes_trains(rng: np.random.Generator, loss: str) -> None:
    z, v = draw(rng)
    for standardise in (False, True):
        require(loss, logit_standardization=standardise)
        require(loss, dict(LOSSES[loss].args), logit_standardization=standardise)
        options = {"temperature": 2.0, "loss": loss, "logit_standardization": standardise}
        assert soft_only(torch.tensor(z), soft_labels(v), rng.integers(0, 7, len(z)), **options).isfinite()
    if not LOSSES[loss].needs_label:
        require(loss, label_free_rows=5)
        assert soft_only(torch.tensor(z), soft_labels(v), temperature=2.0, loss=loss).isfinite()
    if not LOSSES[loss].whole_batch:
        require(loss, micro_batch=4)


@pytest.mark.parametrize(
    ("loss", "args", "message"),
    [
        (
            "kl",
            {},
            r"there is no loss 'kl'.*forward_kl, reverse_kl, js, soft_ce, logit_mse, dkd, nkd, dist, bce, mse, huber, cosine",
        ),
        ("forward_kl", {"beta": 1.0}, r"forward_kl has no argument beta; it takes none: drop loss_args"),
        ("dkd", {"gamma": 1.0}, r"dkd has no argument gamma.*alpha, beta"),
        ("dkd", {"beta": -1.0}, r"loss_args.beta must be a finite number >= 0, not -1"),
        ("dist", {"gamma": math.nan}, r"loss_args.gamma must be a finite number >= 0, not nan"),
        ("nkd", {"gamma": math.inf}, r"loss_args.gamma must be a finite number >= 0, not inf"),
        ("nkd", {"gamma": "1"}, r"loss_args.gamma must be a finite number >= 0, not '1'"),
        ("js", {"beta": True}, r"loss_args.beta must be a finite number >= 0, not True"),
        ("js", {"beta": 0.0}, r"js needs 0 < beta < 1, not 0.*forward_kl.*reverse_kl"),
        ("js", {"beta": 1}, r"js needs 0 < beta < 1, not 1"),
        ("dkd", {"alpha": 0, "beta": 0}, r"all weights of dkd are 0"),
        ("dist", {"gamma": 0, "beta": 0.0}, r"all weights of dist are 0"),
    ],
)
def test_names_and_arguments(rng: np.random.Generator, loss: str, args: dict[str, float], message: str) -> None:
    z, v = draw(rng)
    with pytest.raises(ConfigError, match=message):
        require(loss, args)
    with pytest.raises(ConfigError, match=message):
        soft_only(torch.tensor(z), soft_labels(v), np.zeros(12, int), temperature=1.0, loss=loss, loss_args=args)


@pytest.mark.parametrize("loss", ["dkd", "nkd"])
def test_rows_without_a_label(rng: np.random.Generator, loss: str) -> None:
    with pytest.raises(ConfigError, match=rf"{loss} needs each row's hard label, and 41 rows have no hard label"):
        require(loss, label_free_rows=41)
    z, v = draw(rng)
    labels = rng.integers(0, 7, len(z))
    labels[[2, 5, 6]] = -1
    with pytest.raises(LabelError, match=rf"{loss} .*3 of 12 rows have no hard label; use loss=forward_kl"):
        soft_only(torch.tensor(z), soft_labels(v), labels, temperature=1.0, loss=loss)
    labels[[2, 5, 6]] = 7
    with pytest.raises(LabelError, match="hard label 7 lies outside the student's 7 classes"):
        soft_only(torch.tensor(z), soft_labels(v), labels, temperature=1.0, loss=loss)
    with pytest.raises(ClassMismatch, match="needs a hard label for each of 12 rows, and got none"):
        soft_sum(torch.tensor(z), soft_labels(v), None, LossSpec(1.0, loss=loss))
    with pytest.raises(ClassMismatch, match=r"12 rows, and got labels of shape \(4,\)"):
        soft_sum(torch.tensor(z), soft_labels(v), torch.zeros(4).long(), LossSpec(1.0, loss=loss))


def test_a_whole_batch_loss_in_micro_batches() -> None:
    with pytest.raises(ConfigError, match=r"dist correlates over the whole batch, which micro_batch=32 would cut"):
        require("dist", micro_batch=32)


@pytest.mark.parametrize("loss", LOSS_NAMES["softmax"])
def test_standardization_that_leaves_nothing_or_has_no_members(rng: np.random.Generator, loss: str) -> None:
    with pytest.raises(ConfigError, match="every row of 2 classes into the same numbers"):
        require(loss, logit_standardization=True, classes=2)
    z, v = draw(rng, classes=2)
    labels, options = np.zeros(12, int), {"temperature": 1.0, "loss": loss, "logit_standardization": True}
    with pytest.raises(ConfigError, match="every row of 2 classes into the same numbers"):
        soft_only(torch.tensor(z), soft_labels(v), labels, **options)
    require(loss, reduce="geometric")
    with pytest.raises(MeanUnavailable, match=r"only their mean \(reduce: geometric\).*logit_standardization=false"):
        require(loss, logit_standardization=True, reduce="geometric")
    z, v = draw(rng, members=1)
    full = soft_labels(v)
    with pytest.raises(MeanUnavailable, match="reduce: geometric"):
        soft_only(torch.tensor(z), SoftLabels(full.members, full.weights, "geometric"), labels, **options)
