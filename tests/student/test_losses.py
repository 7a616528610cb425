"""Every loss against a float64 reference written from its definition, the identities of the distillation loss, and the
faults that other tools shipped: each of them would fail here."""

from __future__ import annotations

import dataclasses
import math
from inspect import Parameter, signature
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from softlabels.errors import ClassMismatch, ConfigError, LabelError, LogitsError, MeanUnavailable, NoPossibleClass
from softlabels.labels.ensemble import log_probs
from softlabels.labels.soft import SoftLabels
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, distillation_loss
from tests.student.kind_reference import OTHERS
from tests.student.loss_reference import ALL, PER_ROW, draw, soft_gradient, soft_labels, soft_only, soft_term, softmax

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 20.0)


def test_every_loss_has_a_definition() -> None:
    assert sorted((*ALL, *OTHERS)) == sorted(LOSSES)


def hard_reference(z: np.ndarray, labels: np.ndarray) -> float:
    rows = [-math.log(softmax(row)[y]) for row, y in zip(z, labels, strict=True) if y >= 0]
    return sum(rows) / len(rows) if rows else 0.0


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "tempered"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("loss", ALL)
def test_matches_the_definition(rng: np.random.Generator, loss: str, temperature: float, mean: str) -> None:
    z, v = draw(rng)
    labels = rng.integers(0 if loss in ("dkd", "nkd") else -1, 7, len(z))
    got = distillation_loss(
        torch.tensor(z),
        soft_labels(v),
        torch.tensor(labels),
        temperature=temperature,
        hard_weight=0.3,
        soft_weight=1.7,
        loss=loss,
        mean=mean,
    )
    want = 0.3 * hard_reference(z, labels) + 1.7 * soft_term(loss, z, v, labels, temperature=temperature, mean=mean)
    assert got.dtype == torch.float32
    assert got.shape == ()
    assert got.item() == pytest.approx(want, rel=2e-4, abs=1e-4)


@pytest.mark.parametrize(("classes", "standardise"), [(2, False), (3, False), (10, False), (3, True), (10, True)])
@pytest.mark.parametrize("scale", [3.0, 20.0])
@pytest.mark.parametrize("loss", ALL)
def test_values_and_gradients_of_soft_and_peaked_rows_match_the_definition(
    rng: np.random.Generator, loss: str, scale: float, classes: int, standardise: bool
) -> None:
    """Gradients, along random directions, against central differences of the float64 definition."""
    z, v = draw(rng, rows=6, classes=classes, scale=scale)
    labels, weights = rng.integers(0, classes, len(z)), rng.uniform(0.2, 1, 3)
    options = {"temperature": float(rng.choice([1.0, 3.0, 8.0]))}

    def reference(student: np.ndarray) -> float:
        return soft_term(loss, student, v, labels, weights=weights, standardise=standardise, **options)

    soft = soft_labels(v, weights)
    options |= {"loss": loss, "logit_standardization": standardise}  # type: ignore[dict-item]
    got = soft_only(torch.tensor(z), soft, labels, **options)
    options = {"temperature": options["temperature"]}
    want = reference(z)
    assert got.item() == pytest.approx(want, rel=1e-3, abs=1e-3)
    gradient = soft_gradient(z, soft, labels, loss=loss, logit_standardization=standardise, **options)
    directions = rng.normal(size=(6, *z.shape))
    slopes = [(reference(z + 1e-5 * step) - reference(z - 1e-5 * step)) / 2e-5 for step in directions]
    size = np.abs(gradient[None] * directions).sum(axis=(1, 2)).max()
    np.testing.assert_allclose((gradient * directions).sum(axis=(1, 2)), slopes, rtol=2e-3, atol=5e-4 * size + 1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_matches_torchs_own_forms(rng: np.random.Generator, temperature: float) -> None:
    z, v = draw(rng, members=1)
    student, teacher = torch.tensor(z, dtype=torch.float32), torch.tensor(v[:, 0], dtype=torch.float32)
    log_q, log_p = (torch.log_softmax(x / temperature, dim=-1) for x in (student, teacher))
    forms = {
        "forward_kl": functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean"),
        "reverse_kl": functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean"),
        "soft_ce": functional.cross_entropy(student / temperature, log_p.exp()),
    }
    for loss, form in forms.items():
        got = soft_only(student, soft_labels(v), temperature=temperature, loss=loss)
        assert got.item() == pytest.approx(temperature**2 * form.item(), rel=1e-4, abs=1e-4), loss


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("loss", ALL)
def test_a_student_that_is_the_teacher_is_at_the_documented_minimum(
    rng: np.random.Generator, loss: str, members: int
) -> None:
    """0 for divergences, with a gradient of 0; soft_ce is the entropy there, nkd goes on to pull towards the label."""
    _, v = draw(rng, members=members)
    labels, temperature = rng.integers(0, 7, len(v)), 3.0
    student = v.mean(axis=1) if loss == "logit_mse" else temperature * log_probs(v, temperature)
    options = {"temperature": temperature, "loss": loss}
    got = soft_only(torch.tensor(student), soft_labels(v), labels, **options).item()
    gradient = soft_gradient(student, soft_labels(v), labels, **options)
    p, p_one = (np.exp(log_probs(v, t)) for t in (temperature, 1.0))
    rows, pull = np.arange(len(v)), np.zeros_like(p)
    want = 0.0
    if loss == "soft_ce":
        want = 9 * -(p * np.log(p)).sum(axis=-1).mean()
    if loss == "nkd":
        others = p.copy()
        others[rows, labels] = 0
        others /= others.sum(axis=-1, keepdims=True)
        log_q = np.log(softmax(student))[rows, labels]
        entropy = -(others * np.log(np.where(others > 0, others, 1))).sum(axis=-1)
        want = (-p_one[rows, labels] * log_q + 1.5 * 9 * entropy).mean()
        pull = p_one[rows, labels][:, None] * (softmax(student) - np.eye(7)[labels]) / len(v)
    assert got == pytest.approx(want, rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(gradient, pull, atol=2e-6)


def test_at_high_temperature_the_gradient_is_that_of_the_centred_logit_mse(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    soft = soft_labels(v)
    centred = (z - z.mean(axis=-1, keepdims=True)) - (v[:, 0] - v[:, 0].mean(axis=-1, keepdims=True))
    limit = centred / z.shape[1] / len(z)  # (z - v) / N, averaged over the batch
    mse = soft_gradient(z, soft, temperature=1.0, loss="logit_mse")
    np.testing.assert_allclose(mse, limit, atol=1e-6)
    for loss in ("forward_kl", "soft_ce", "reverse_kl"):
        far = soft_gradient(z, soft, temperature=1000.0, loss=loss)
        near = soft_gradient(z, soft, temperature=10.0, loss=loss)
        assert np.abs(far - limit).max() < 0.03 * np.abs(limit).max(), loss
        assert np.abs(far - limit).max() < np.abs(near - limit).max(), loss


def test_the_value_of_forward_kl_tends_to_logit_mse_too(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=1)
    student, soft = torch.tensor(z), soft_labels(v)
    kl = soft_only(student, soft, temperature=100.0).item()
    assert kl == pytest.approx(soft_only(student, soft, temperature=1.0, loss="logit_mse").item(), rel=0.15)


def test_mean_of_the_members_kls_differs_from_the_kl_to_their_arithmetic_mean_by_a_constant(
    rng: np.random.Generator,
) -> None:
    z, v = draw(rng)
    weights = rng.uniform(0.2, 1, v.shape[1])
    share = weights / weights.sum()
    members = [soft_labels(v[:, [m]]) for m in range(v.shape[1])]
    of_mean = soft_gradient(z, soft_labels(v, weights), temperature=2.0)
    mean_of = sum(s * soft_gradient(z, member, temperature=2.0) for s, member in zip(share, members, strict=True))
    np.testing.assert_allclose(of_mean, mean_of, atol=1e-6)

    def difference(student: np.ndarray) -> float:
        parts = sum(
            s * soft_only(torch.tensor(student), member, temperature=2.0).item()
            for s, member in zip(share, members, strict=True)
        )
        return float(parts) - soft_only(torch.tensor(student), soft_labels(v, weights), temperature=2.0).item()

    assert difference(z) == pytest.approx(difference(rng.normal(0, 2, z.shape)), rel=1e-3)
    assert difference(z) > 0


@pytest.mark.parametrize("loss", PER_ROW)
@pytest.mark.parametrize("cuts", [[5], [1, 6, 7], [2, 4, 6, 8, 10]])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(
    rng: np.random.Generator, loss: str, cuts: list[int]
) -> None:
    z, v = draw(rng)
    labels = torch.tensor(rng.integers(-1, 7, len(z)))
    labels[:3] = -1  # whole micro-batches without a label
    labels[3] = 2
    if loss in ("dkd", "nkd"):
        labels.clamp_(0)
    soft = soft_labels(v)
    options = {"temperature": 3.0, "hard_weight": 0.4, "soft_weight": 0.6, "loss": loss}
    whole = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    loss_whole = distillation_loss(whole, soft, labels, **options)  # type: ignore[arg-type]
    loss_whole.backward()

    cut = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    edges, total = [0, *cuts, len(z)], 0.0
    counts = {"positions": len(z), "labelled": int((labels >= 0).sum())}
    for start, stop in pairwise(edges):
        part = distillation_loss(
            cut[start:stop],
            soft[start:stop],
            labels[start:stop],
            **options,
            **counts,  # type: ignore[arg-type]
        )
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss_whole.item(), rel=1e-5)
    assert whole.grad is not None
    assert cut.grad is not None
    np.testing.assert_allclose(cut.grad.numpy(), whole.grad.numpy(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", ALL)
def test_classes_that_are_impossible_on_both_sides_do_not_count(rng: np.random.Generator, loss: str) -> None:
    z, v = draw(rng)
    labels = rng.integers(0, 7, len(z))
    padded_z = np.concatenate([z, np.full((len(z), 3), -np.inf)], axis=1)
    padded_v = np.concatenate([v, np.full((*v.shape[:2], 3), -np.inf)], axis=2)
    options = {"temperature": 2.0, "hard_weight": 0.5, "soft_weight": 0.5, "loss": loss}
    plain = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    padded = torch.tensor(padded_z, dtype=torch.float32, requires_grad=True)
    a = distillation_loss(plain, soft_labels(v), torch.tensor(labels), **options)  # type: ignore[arg-type]
    b = distillation_loss(padded, soft_labels(padded_v), torch.tensor(labels), **options)  # type: ignore[arg-type]
    a.backward()
    b.backward()
    assert b.item() == pytest.approx(a.item(), rel=1e-5)
    assert plain.grad is not None
    assert padded.grad is not None
    np.testing.assert_allclose(padded.grad[:, :7].numpy(), plain.grad.numpy(), rtol=1e-4, atol=1e-7)
    assert (padded.grad[:, 7:] == 0).all()


@pytest.mark.parametrize("loss", ["forward_kl", "soft_ce"])
def test_a_class_that_only_the_teacher_excludes_adds_nothing_and_pushes_the_student_down(
    rng: np.random.Generator, loss: str
) -> None:
    z, v = draw(rng)
    v[:, :, 2] = -np.inf
    p = np.exp(log_probs(v, 2.0))
    q = softmax(z / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = {"forward_kl": p * (np.log(p) - np.log(q)), "soft_ce": -p * np.log(q)}[loss]
    want = 4 * np.where(p > 0, terms, 0).sum(axis=-1).mean()
    student = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    got = soft_only(student, soft_labels(v), temperature=2.0, loss=loss)
    got.backward()
    assert got.item() == pytest.approx(want, rel=1e-4)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), 2 * (q - p) / len(z), atol=1e-5)  # T^2 * (q - p) / T
    assert (student.grad[:, 2] > 0).all()


def test_a_student_that_excludes_what_the_teacher_allows_has_an_infinite_forward_kl(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    z[0, 1] = -np.inf
    assert soft_only(torch.tensor(z), soft_labels(v), temperature=2.0).item() == math.inf
    got = soft_only(torch.tensor(z), soft_labels(v), temperature=2.0, loss="reverse_kl")
    assert math.isfinite(got.item())  # q = 0 there: 0 * log 0


def test_a_one_sided_impossible_class_is_refused_where_the_loss_is_undefined(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    v[3, :, 0] = -np.inf
    with pytest.raises(LogitsError, match=r"reverse_kl is infinite.*forward_kl"):
        soft_only(torch.tensor(z), soft_labels(v), temperature=2.0, loss="reverse_kl")
    with pytest.raises(LogitsError, match=r"logit_mse is undefined.*forward_kl"):
        soft_only(torch.tensor(z), soft_labels(v), temperature=2.0, loss="logit_mse")


def test_members_without_a_common_class_do_not_pass_as_a_loss_of_zero() -> None:
    v = np.array([[[0.0, -np.inf], [-np.inf, 0.0]]])
    with pytest.raises(NoPossibleClass, match="position 0 of 1"):
        soft_only(torch.zeros(1, 2), soft_labels(v), temperature=1.0, mean="geometric")


def test_rows_without_labels_take_no_cross_entropy_and_the_mean_is_over_the_others(rng: np.random.Generator) -> None:
    z, _ = draw(rng)
    labels = np.full(len(z), -1)
    student = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    nothing = hard_only(student, torch.tensor(labels))
    nothing.backward()
    assert nothing.item() == 0.0
    assert student.grad is not None
    assert (student.grad == 0).all()
    labels[[2, 5]] = [1, 4]
    got = hard_only(torch.tensor(z), torch.tensor(labels)).item()
    assert got == pytest.approx(hard_reference(z, labels), rel=1e-5)
    kept = functional.cross_entropy(torch.tensor(z[[2, 5]]), torch.tensor([1, 4])).item()
    assert got == pytest.approx(kept, rel=1e-5)


def hard_only(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return distillation_loss(student, None, labels, temperature=1.0, hard_weight=1.0, soft_weight=0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", ALL)
def test_a_half_precision_student_is_computed_in_float32(
    rng: np.random.Generator, loss: str, dtype: torch.dtype
) -> None:
    z, v = draw(rng, rows=16, classes=100)
    student = torch.tensor(z).to(dtype).requires_grad_()
    labels = rng.integers(0, 100, len(z))
    options = {"temperature": 4.0, "hard_weight": 0.5, "soft_weight": 0.5, "loss": loss}
    got = distillation_loss(student, soft_labels(v), torch.tensor(labels), **options)  # type: ignore[arg-type]
    same = distillation_loss(student.float(), soft_labels(v), torch.tensor(labels), **options)  # type: ignore[arg-type]
    got.backward()
    assert got.dtype == torch.float32
    assert got.item() == same.item()
    rounded = student.detach().double().numpy()
    want = 0.5 * hard_reference(rounded, labels) + 0.5 * soft_term(loss, rounded, v, labels, temperature=4.0)
    assert got.item() == pytest.approx(want, rel=1e-4)
    assert student.grad is not None
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


def test_classic_faults(rng: np.random.Generator) -> None:
    """Each of these shipped in a well-known tool; the right value is far from the wrong one."""
    z, v = draw(rng, rows=16, members=1, classes=50)
    temperature = 4.0
    got = soft_only(torch.tensor(z), soft_labels(v), temperature=temperature).item()
    p, q = softmax(v[:, 0] / temperature), softmax(z / temperature)
    kl = (p * np.log(p / q)).sum(axis=-1)
    wrong = {
        "divided by batch * classes": 16 * kl.mean() / 50,
        "T^2 dropped": kl.mean(),
        "cross-entropy called KL": 16 * -(p * np.log(q)).sum(axis=-1).mean(),
        "probabilities where log-probabilities belong": 16 * (p * (np.log(p) - q)).sum(axis=-1).mean(),
        "softmax of probabilities": 16 * (softmax(p) * np.log(softmax(p) / softmax(q))).sum(axis=-1).mean(),
    }
    top = np.argsort(-v[:, 0], axis=-1)[:, :5]
    pk, qk = (np.take_along_axis(x, top, axis=-1) for x in (p, q))
    pk, qk = (x / x.sum(axis=-1, keepdims=True) for x in (pk, qk))
    wrong["top-k renormalised on both sides"] = 16 * (pk * np.log(pk / qk)).sum(axis=-1).mean()
    assert got == pytest.approx(16 * kl.mean(), rel=1e-4)
    for fault, value in wrong.items():
        assert abs(value - got) > 0.1 * got, fault


def test_t_squared_stays_when_there_is_no_hard_term(rng: np.random.Generator) -> None:
    z, v = draw(rng)
    labels = torch.tensor(rng.integers(0, 7, len(z)))
    options = {"temperature": 5.0, "soft_weight": 1.0}
    alone = distillation_loss(torch.tensor(z), soft_labels(v), labels, hard_weight=0.0, **options)  # type: ignore[arg-type]
    both = distillation_loss(torch.tensor(z), soft_labels(v), labels, hard_weight=2.0, **options)  # type: ignore[arg-type]
    assert both.item() - alone.item() == pytest.approx(2 * hard_reference(z, labels.numpy()), rel=1e-4)


def test_its_keywords_are_those_of_a_spec() -> None:
    taken = {name: each.default for name, each in signature(distillation_loss).parameters.items()}
    of_spec = {each.name: each.default for each in dataclasses.fields(LossSpec)}
    assert taken.keys() - of_spec.keys() == {"student", "soft", "labels", "positions", "labelled"}
    required = {name for name in of_spec if taken[name] is Parameter.empty}
    assert required == {"hard_weight", "soft_weight"}
    assert taken["temperature"] is None  # for vectors, which have none
    alike = of_spec.keys() - required - {"temperature"}
    assert {name: of_spec[name] for name in alike}.items() <= taken.items()


def test_a_spec_that_exists_can_be_had() -> None:
    spec = LossSpec(2.0, hard_weight=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.temperature = 1.0  # type: ignore[misc]
    for temperature in (0.0, math.nan):
        with pytest.raises(ConfigError, match="temperature"):
            dataclasses.replace(spec, temperature=temperature)
    with pytest.raises(
        ConfigError, match=r"weights must be finite numbers >= 0, not hard_weight=0\.5, soft_weight=inf"
    ):
        dataclasses.replace(spec, soft_weight=math.inf)
    each = spec.per_position(torch.tensor([3, -1, 2, 1, -1]), positions=None, labelled=None)
    assert (each.hard_weight, each.soft_weight) == (0.5 / 3, 1 / 5)
    each = spec.per_position(torch.tensor([-1]), positions=8, labelled=0)
    assert (each.hard_weight, each.soft_weight) == (0.5, 1 / 8)


def test_what_does_not_fit_is_refused_by_name(rng: np.random.Generator) -> None:
    z, v = draw(rng, members=2)
    student, soft, labels = torch.tensor(z), soft_labels(v), torch.zeros(len(z), dtype=torch.int64)
    for temperature in (0.0, -1.0, math.nan, math.inf, None):
        with pytest.raises(ConfigError, match="temperature"):
            soft_only(student, soft, temperature=temperature)
    with pytest.raises(ConfigError, match=r"'kl'.*forward_kl, reverse_kl, js, soft_ce"):
        soft_only(student, soft, temperature=1.0, loss="kl")
    with pytest.raises(ConfigError, match=r"'harmonic'.*arithmetic, geometric, tempered"):
        soft_only(student, soft, temperature=1.0, mean="harmonic")
    with pytest.raises(ConfigError, match="weights must be finite"):
        distillation_loss(student, soft, labels, temperature=1.0, hard_weight=-1.0, soft_weight=1.0)
    with pytest.raises(ConfigError, match=r"needs soft labels.*alpha=0"):
        distillation_loss(student, None, labels, temperature=1.0, hard_weight=0.0, soft_weight=1.0)
    with pytest.raises(ClassMismatch, match=r"\(12, 6\).*\(12, 7\)"):
        soft_only(student[:, :6], soft, temperature=1.0)
    with pytest.raises(ClassMismatch, match=r"\(5, 7\).*\(12, 7\)"):
        soft_only(student[:5], soft, temperature=1.0)
    with pytest.raises(ClassMismatch, match="one float logit"):
        soft_only(student[:, :, None], soft, temperature=1.0)
    with pytest.raises(MeanUnavailable, match="arithmetic"):
        soft_only(
            student,
            SoftLabels.dense(soft.members.logits[:, :1], soft.members.shift[:, :1], torch.ones(1), "geometric"),
            temperature=1.0,
        )
    for label in (7, -2):
        with pytest.raises(LabelError, match=f"hard label {label} lies outside the student's 7 classes"):
            hard_only(student, torch.tensor([*labels[:-1].tolist(), label]))
    with pytest.raises(
        LabelError, match=r"hard label 310 lies .* 1 classes .*; one output has no classes: say .*label_as: values"
    ):
        hard_only(student[:, :1], torch.full((len(labels),), 310))
