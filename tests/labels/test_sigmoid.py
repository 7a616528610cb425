"""Sigmoid targets: what is stored, what was lost and the three means, each against its definition in plain float64, where the
two probabilities of a class are added up by themselves so that neither end is lost.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError, LogitsError, LogitsOverflow, MeanUnavailable, NanLogits, NoPossibleClass
from softlabels.labels.bernoulli import mean_logits
from softlabels.labels.encoding import SigmoidEncoding
from softlabels.labels.lost import Lost, LostTable
from softlabels.labels.sigmoid_encode import bernoulli_kl
from softlabels.labels.soft import SoftLabels

N, M, C = 7, 3, 5
MEANS = ("arithmetic", "geometric", "tempered")
WEIGHTS = ([1.0, 1.0, 1.0], [0.5, 0.0, 2.0], [0.0, 3.0, 0.0])
KNOWN = {"temperature": 2.0, "mean": "arithmetic", "weights": [1.0] * M}


def some_logits(rng: np.random.Generator) -> np.ndarray:
    """Logits (N, M, C), of which some are far out on either side, and some certain to all members."""
    z = rng.normal(size=(N, M, C)) * np.array([0.1, 1.0, 5.0, 40.0, 90.0])
    z[2, :, 1], z[3, :, 2], z[4, 0, 3] = -np.inf, np.inf, -np.inf
    return z


def definition(z: np.ndarray, temperature: float, mean: str, weights: list[float]) -> np.ndarray:
    """log p - log(1 - p) (N, C), a number at a time."""
    share = [weight / math.fsum(weights) for weight in weights]
    found = np.empty((len(z), z.shape[2]))
    for row, own in enumerate(z):
        for c in range(z.shape[2]):
            members = [(w, float(own[m, c])) for m, w in enumerate(share) if w > 0]
            if mean == "geometric":
                found[row, c] = sum(w * value for w, value in members) / temperature
                continue
            inner = temperature if mean == "arithmetic" else 1.0
            yes = math.fsum(w / (1 + math.exp(min(-value / inner, 700))) for w, value in members)
            no = math.fsum(w / (1 + math.exp(min(value / inner, 700))) for w, value in members)
            certain = [value for _, value in members if not math.isinf(value)] == [] and len(
                {v for _, v in members}
            ) == 1
            logit = members[0][1] if certain else math.log(yes) - math.log(no)
            found[row, c] = logit if mean == "arithmetic" else logit / temperature
    return found


def soft_labels(z: np.ndarray, weights: list[float], **options: Any) -> SoftLabels:
    encoding = SigmoidEncoding(dtype="float32", **options)
    share = torch.tensor(weights) / sum(weights)
    return SoftLabels(
        encoding.members({"logits": torch.tensor(z).float()}, C), share, encoding.reduce, encoding.only_at
    )


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 100.0])
def test_the_means_are_their_definitions(
    rng: np.random.Generator, temperature: float, mean: str, weights: list[float]
) -> None:
    z = some_logits(rng).astype(np.float32)
    expected = definition(z, temperature, mean, weights)
    exact = mean_logits(z, temperature, mean, weights)
    torch_ = soft_labels(z, weights).logits(temperature, mean)
    assert torch_.dtype == torch.float32
    assert torch_.shape == (N, C)
    assert np.array_equal(np.isinf(exact), np.isinf(expected))
    for found, tolerance in ((exact, 1e-12), (torch_.double().numpy(), 2e-6)):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    columns = {"logits": z}
    p = SigmoidEncoding(dtype="float32").probabilities(
        columns, C, None, temperature=temperature, mean=mean, weights=weights
    )
    np.testing.assert_allclose(p, 1 / (1 + np.exp(np.minimum(-expected, 700))), rtol=1e-12, atol=1e-300)


def test_neither_end_is_lost_to_rounding() -> None:
    """A mean of two members that are sure to 1e-30, whose probability itself would round to 0 or 1."""
    z = np.array([[[69.0, -69.0, 80.0]], [[72.0, -72.0, 80.0]]]).transpose(1, 0, 2)
    found = soft_labels(z[:, :, [0, 1, 2, 0, 1]], [0.25, 0.75]).logits(1.0).double().numpy()[0]
    rare = math.log(0.25 * math.exp(-69) + 0.75 * math.exp(-72))
    np.testing.assert_allclose(found, [-rare, rare, 80.0, -rare, rare], rtol=1e-6)
    reference = mean_logits(z, 1.0, "arithmetic", [0.25, 0.75])[0]
    np.testing.assert_allclose(reference, [-rare, rare, 80.0], rtol=1e-14)


def test_a_geometric_mean_of_0_and_1_does_not_exist(rng: np.random.Generator) -> None:
    z = some_logits(rng)
    z[5, 0, 2], z[5, 2, 2] = -np.inf, np.inf
    words = r"one member gives a class probability 0 and another 1 \((position 5 of 7, class 2|5, 2 of those given)\)"
    with pytest.raises(NoPossibleClass, match=words):
        soft_labels(z, [1.0] * M).logits(2.0, "geometric")
    with pytest.raises(NoPossibleClass, match=words):
        mean_logits(z, 2.0, "geometric")
    assert math.isfinite(soft_labels(z, [1.0] * M).logits(2.0, "arithmetic")[5, 2])
    assert soft_labels(z, [1.0, 1.0, 0.0]).logits(2.0, "geometric")[5, 2] == -math.inf  # who says 1 does not count
    with pytest.raises(NoPossibleClass, match=r"the mean logit does not exist.*\(row 5, member 0\)"):
        SigmoidEncoding(reduce="geometric").encode(torch.tensor(z), weights=[1.0] * M)


def test_parts_of_labels(rng: np.random.Generator) -> None:
    z = some_logits(rng).astype(np.float32)
    soft = soft_labels(z, WEIGHTS[1])
    assert (soft.target, len(soft), soft.classes, soft.stored_members, soft.tail) == ("sigmoid", N, C, M, None)
    whole = soft.logits(3.0)
    assert torch.equal(soft[2:5].logits(3.0), whole[2:5])
    assert torch.equal(soft[torch.tensor([6, 0])].to("cpu").logits(3.0), whole[[6, 0]])
    assert torch.equal(soft.member(1).logits(2.0, "tempered"), torch.from_numpy(z[:, 1] / 2))


@pytest.mark.parametrize(("given", "dtype"), [("float16", "float16"), ("float32", "float16"), ("float64", "float32")])
def test_what_is_stored_is_the_nearest_number(rng: np.random.Generator, given: str, dtype: str) -> None:
    z, mask = some_logits(rng).astype(given), rng.random(N) < 0.7
    encoding = SigmoidEncoding(dtype=dtype)  # type: ignore[arg-type]
    columns, lost = encoding.encode(torch.from_numpy(z), mask=torch.from_numpy(mask))
    assert columns.keys() == {"logits"}
    assert columns["logits"].dtype == dtype
    assert np.array_equal(columns["logits"], np.where(mask[:, None, None], z, np.float16(0)).astype(dtype))
    blocks, again = encoding.encode(torch.from_numpy(z), mask=torch.from_numpy(mask), block_bytes=1)
    assert np.array_equal(blocks["logits"], columns["logits"])
    assert {line.samples for line in lost.fidelity} == {int(mask.sum()) * M}
    for one, other in zip(lost.fidelity, again.fidelity, strict=True):
        assert one.kl_sum == pytest.approx(other.kl_sum, rel=1e-9, abs=1e-15)
    encoding.check_column("logits", columns["logits"], C)
    reduced, _ = SigmoidEncoding(reduce="geometric").encode(torch.from_numpy(z), weights=WEIGHTS[1])
    expected = 0.2 * z[:, 0].astype(np.float64) + 0.8 * z[:, 2].astype(np.float64)
    np.testing.assert_allclose(reduced["logits"][:, 0], expected.astype(np.float16), rtol=2**-10)


def test_what_was_lost_is_the_sum_of_the_classes_kl(rng: np.random.Generator) -> None:
    z = some_logits(rng).astype(np.float32)
    columns, lost = SigmoidEncoding().encode(torch.from_numpy(z))
    exact, stored = z.astype(np.longdouble), columns["logits"].astype(np.longdouble)
    table = LostTable.of([lost, Lost()])
    assert list(table.fidelity) == ["1", "2", "4", "8", "20"]
    assert table.errors is None
    for t, line in table.fidelity.items():
        with np.errstate(all="ignore"):
            p, q = (1 / (1 + np.exp(-side / float(t))) for side in (exact, stored))
            no_p, no_q = (1 / (1 + np.exp(side / float(t))) for side in (exact, stored))
            terms = [np.where(a == 0, 0, a * np.log(a / b)) for a, b in ((p, q), (no_p, no_q))]
        kl = (terms[0] + terms[1]).sum(axis=-1).astype(np.float64)
        assert line.kl_mean == pytest.approx(kl.mean(), rel=1e-4, abs=1e-16)  # of the reference's own rounding
        assert line.kl_max == pytest.approx(kl.max(), rel=1e-4)
        assert line.top1_agreement == 1.0
        assert line.tail_mass_error == 0.0


def test_a_decision_that_rounding_turns_is_counted() -> None:
    z = torch.tensor([[[3.0, 1e-9]], [[3.0, 1e-3]]])
    lost = SigmoidEncoding().encode(z)[1]
    assert {line.top1_agreed for line in lost.fidelity} == {1}  # 1e-9 becomes 0, which is no yes
    assert {line.top1_agreed for line in SigmoidEncoding(dtype="float32").encode(z)[1].fidelity} == {2}


@pytest.mark.parametrize(
    ("z", "s"), [(3.0, -5.0), (-40.0, 800.0), (900.0, 2.0), (0.1, 0.1001), (-1e-3, 30.0), (700.0, 690.0), (-2.0, -1.0)]
)
def test_kl_of_two_bernoullis(z: float, s: float) -> None:
    def softplus(x: float) -> float:
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    p, no = 1 / (1 + math.exp(min(-z, 700))), 1 / (1 + math.exp(min(z, 700)))
    expected = p * (softplus(-s) - softplus(-z)) + no * (softplus(s) - softplus(z))
    found = bernoulli_kl(torch.tensor([z, -z, z], dtype=torch.float64), torch.tensor([s, -s, z], dtype=torch.float64))
    assert found.tolist() == pytest.approx([expected, expected, 0.0], rel=1e-6, abs=1e-17)


@pytest.mark.parametrize(
    ("z", "s", "kl"),
    [
        (math.inf, math.inf, 0.0),
        (-math.inf, -math.inf, 0.0),
        (1.0, math.inf, math.inf),
        (1.0, -math.inf, math.inf),
        (math.inf, -math.inf, math.inf),
        (math.inf, 1.0, math.log1p(math.exp(-1))),
    ],
)
def test_kl_of_certain_classes(z: float, s: float, kl: float) -> None:
    found = bernoulli_kl(torch.tensor([z, -z]).double(), torch.tensor([s, -s]).double())
    assert found.tolist() == pytest.approx([kl, kl])


def test_what_no_store_can_hold(rng: np.random.Generator) -> None:
    z = torch.tensor(some_logits(rng))
    for weights in (None, [1.0] * M):
        encoding = SigmoidEncoding(reduce="none" if weights is None else "geometric")
        spoilt = z.clone()
        spoilt[3, 1, 2] = torch.nan
        with pytest.raises(NanLogits, match=r"logits are NaN \(row 3, member 1\)"):
            encoding.encode(spoilt, weights=weights, block_bytes=1)
    for value in (65520.0, -1e9):
        spoilt = z.clone()
        spoilt[6, 2, 0] = value
        with pytest.raises(
            LogitsOverflow, match=r"beyond 65504, the largest float16 \(row 6, member 2\).*-inf instead"
        ):
            SigmoidEncoding().encode(spoilt)
        columns, _ = SigmoidEncoding(dtype="float32").encode(spoilt)
        assert columns["logits"][6, 2, 0] == np.float32(value)
    with pytest.raises(LogitsOverflow, match=r"beyond 3\.40282e\+38, the largest float32"):
        SigmoidEncoding(dtype="float32").encode(torch.full((1, 1, 1), 1e39, dtype=torch.float64))
    with pytest.raises(LogitsError, match="must be floats"):
        SigmoidEncoding().encode(z.long())
    with pytest.raises(ConfigError, match=r"sigmoid labels cannot be reduced to the arithmetic mean.*none, geometric"):
        SigmoidEncoding(reduce="arithmetic").encode(z, weights=[1.0] * M)
    with pytest.raises(ValueError, match="row 12: a logit is NaN"):
        SigmoidEncoding().check_column("logits", np.array([[[1.0]], [[np.inf]], [[np.nan]]]), 1, first_row=10)


def test_what_sigmoids_have_no_answer_to(rng: np.random.Generator) -> None:
    z = some_logits(rng).astype(np.float32)
    encoding, soft = SigmoidEncoding(dtype="float32"), soft_labels(z, [1.0] * M)
    for ask in (
        lambda: soft.log_probs(2.0),
        lambda: soft.values(),
        lambda: soft.mean_logits(),
        lambda: soft.standardised(),
        lambda: encoding.log_probs({"logits": z}, C, None, **KNOWN),  # type: ignore[arg-type]
        lambda: encoding.values({"logits": z}, [1.0] * M),
    ):
        with pytest.raises(
            ConfigError, match=r"labels are a Bernoulli a class \(sigmoid\) and have no .*ask for its logits"
        ):
            ask()
    with pytest.raises(ConfigError, match="there is no mean of members 'harmonic'"):
        soft.logits(2.0, "harmonic")
    with pytest.raises(ConfigError, match="finite number above 0"):
        soft.logits(0.0)
    reduced = soft_labels(z[:, :1], [1.0], reduce="geometric")
    assert torch.equal(reduced.logits(2.0, "geometric"), torch.from_numpy(z[:, 0] / 2))
    with pytest.raises(MeanUnavailable, match="cannot give the arithmetic mean"):
        reduced.logits(2.0)
    with pytest.raises(MeanUnavailable, match="cannot give the tempered mean"):
        SigmoidEncoding(reduce="geometric").check_mean("tempered", C, 1)


def test_columns_and_words() -> None:
    encoding = SigmoidEncoding()
    assert encoding.columns(C, M) == (("logits", "float16", (M, C), ("member", "class")),)
    assert encoding.columns(1, 1, 9) == (("logits", "float16", (9, 1, 1), ("position", "member", "class")),)
    assert (encoding.kind, encoding.target, encoding.first_format) == ("sigmoid", "sigmoid", 3)
    assert encoding.decoding() == {"kind": "sigmoid", "dtype": "float16", "reduce": "none"}
    assert "float32" in SigmoidEncoding(dtype="float32").words(C, "")
    assert not [what for wrong, what in encoding.rules(1, 1) if wrong]
    empty, lost = encoding.encode(torch.zeros(0, M, C))
    assert empty["logits"].shape == (0, M, C)
    assert LostTable.of([lost]) == LostTable()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8.0])
def test_what_float16_costs_at_most(rng: np.random.Generator, temperature: float) -> None:
    """As docs/targets.md says."""
    z = np.concatenate([rng.normal(size=50_000) * 4, rng.uniform(-2, 2, 50_000)]).reshape(1, 1, -1) * temperature
    columns, _ = SigmoidEncoding().encode(torch.tensor(z))
    exact, stored = torch.tensor(z) / temperature, torch.from_numpy(columns["logits"]).double() / temperature
    assert (torch.sigmoid(exact) - torch.sigmoid(stored)).abs().max() < 1.1e-4
    assert 4e-8 < bernoulli_kl(exact, stored).max() < 5.3e-8
