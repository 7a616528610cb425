"""The fused linear and loss against the dense loss and a float64 reference: values and gradients, whatever the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from softlabels.errors import ClassMismatch, ConfigError, LabelError
from softlabels.labels.soft import SoftLabels
from softlabels.labels.stored import IMPOSSIBLE
from softlabels.student import fused, fused_terms
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.loss_spec import LOSS_NAMES, LossSpec
from softlabels.student.losses import LOSSES, distillation_loss
from tests.student.loss_reference import soft_labels
from tests.student.sparse_samples import TAILS, Sparse

CLASSES, WIDTH, OUTPUTS, POSITIONS = 13, 5, 16, 9
SUMS = [name for name in LOSS_NAMES["softmax"] if not LOSSES[name].whole_batch]
OF_TAIL = [
    (tail, loss)
    for tail in TAILS
    for loss in ("forward_kl", "reverse_kl", "js", "soft_ce", "dkd", "nkd")
    if not (tail in ("bucket", "renormalised") and loss in ("dkd", "nkd"))
    and (tail, loss) != ("renormalised", "reverse_kl")
]


class Student:
    """Hidden states, matrix and bias with gradients."""

    def __init__(
        self, rng: np.random.Generator, dtype: torch.dtype = torch.float64, positions: int = POSITIONS
    ) -> None:
        def leaf(*shape: int) -> Tensor:
            return torch.tensor(rng.normal(size=shape), dtype=dtype).requires_grad_()

        self.leaves = leaf(positions, WIDTH), leaf(OUTPUTS, WIDTH), leaf(OUTPUTS)

    def logits(self) -> Tensor:
        hidden, weight, bias = self.leaves
        return (hidden @ weight.t() + bias)[:, :CLASSES]

    def gradients(self, loss: Tensor) -> list[np.ndarray]:
        return [g.double().numpy() for g in torch.autograd.grad(3 * loss, self.leaves)]

    def fused(self, soft: SoftLabels | None, labels: Tensor, block: int = 4, **options: Any) -> Tensor:
        """In blocks of `block` positions."""
        valid = options.pop("valid", None)
        spec = LossSpec(**{"temperature": 2.0, "hard_weight": 0.3, "soft_weight": 1.7} | options)
        return linear_distillation_loss(
            *self.leaves, soft, labels, spec, classes=CLASSES, valid=valid, block_bytes=4 * CLASSES * block
        )


def dense_labels(rng: np.random.Generator, members: int = 2, positions: int = POSITIONS) -> SoftLabels:
    return soft_labels(rng.normal(0, 3, (positions, members, CLASSES)))


def hard(rng: np.random.Generator, loss: str = "", positions: int = POSITIONS) -> Tensor:
    return torch.tensor(rng.integers(0 if loss in ("dkd", "nkd") else -1, CLASSES, positions))


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> None:
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=tolerance * (np.abs(other).max() + 1e-3))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("weights", [(0.0, 1.0), (0.4, 0.6), (1.0, 0.0)])
@pytest.mark.parametrize("loss", SUMS)
def test_dense_labels_give_the_loss_and_gradients_of_the_dense_way(
    rng: np.random.Generator, loss: str, weights: tuple[float, float], temperature: float
) -> None:
    student, soft, labels = Student(rng, torch.float32), dense_labels(rng), hard(rng, loss)
    options = {"temperature": temperature, "hard_weight": weights[0], "soft_weight": weights[1], "loss": loss}
    want = distillation_loss(student.logits(), soft, labels, **options)
    expected = student.gradients(want)
    for block in (1, 4, POSITIONS, 100):
        got = student.fused(soft, labels, block, **options)
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)
        assert_close(student.gradients(got), expected, 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("tail", "loss"), OF_TAIL)
def test_sparse_labels_give_the_loss_and_gradients_of_the_dense_way(
    rng: np.random.Generator, tail: str, loss: str, temperature: float
) -> None:
    for k in (4, CLASSES):
        sparse, student, labels = Sparse(rng, tail, k=k), Student(rng, torch.float32), hard(rng, loss)
        if tail != "renormalised":  # none is left where all classes are stored; else reverse_kl needs some
            sparse.columns["tail_odds"][:] = -np.inf if k == CLASSES else 0.3
        options = {"temperature": temperature, "hard_weight": 0.4, "soft_weight": 0.6, "loss": loss}
        want = distillation_loss(student.logits(), sparse.soft, labels, **options)
        got = student.fused(sparse.soft, labels, **options)
        assert got.item() == pytest.approx(want.item(), rel=2e-5, abs=2e-6)
        assert_close(student.gradients(got), student.gradients(want), 2e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", ["forward_kl", "soft_ce", "js"])
@pytest.mark.parametrize("tail", ["lowrank", "prior"])
def test_classes_that_the_prior_holds_for_impossible(
    rng: np.random.Generator, tail: str, loss: str, temperature: float
) -> None:
    """All of the first position's tail among them."""
    sparse, student = Sparse(rng, tail, always=True), Student(rng, torch.float32)
    assert sparse.basis is not None
    sparse.basis[0, np.setdiff1d(np.arange(CLASSES), sparse.outcomes(1.0)[0][0])] = IMPOSSIBLE
    soft, labels = sparse.as_soft(), hard(rng)
    p, z = torch.tensor(sparse.probabilities(temperature)), student.logits().double() / temperature
    assert (p == 0).any()
    if loss != "js":
        entropy = 0 if loss == "soft_ce" else (p * p.clamp_min(1e-300).log()).sum(dim=-1)
        want = temperature**2 * (entropy - (p * z.log_softmax(dim=-1)).sum(dim=-1)).mean()
        assert student.fused(
            soft, labels, hard_weight=0.0, soft_weight=1.0, loss=loss, temperature=temperature
        ).item() == (pytest.approx(want.item(), rel=1e-5))
    options = {"temperature": temperature, "hard_weight": 0.4, "soft_weight": 0.6, "loss": loss}
    want = distillation_loss(student.logits(), soft, labels, **options)
    got = student.fused(soft, labels, **options)
    assert got.item() == pytest.approx(want.item(), rel=2e-5)
    assert_close(student.gradients(got), student.gradients(want), 2e-5)


@pytest.mark.parametrize("temperature", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("hard_weight", [0.0, 0.4])
@pytest.mark.parametrize("loss", ["forward_kl", "soft_ce"])
@pytest.mark.parametrize("tail", ["dense", *TAILS])
def test_matches_the_definition_in_float64(
    rng: np.random.Generator, tail: str, loss: str, hard_weight: float, temperature: float
) -> None:
    sparse = Sparse(rng, "lowrank" if tail == "dense" else tail)
    soft, p = sparse.soft, torch.tensor(sparse.probabilities(temperature))
    if tail == "dense":
        soft = dense_labels(rng)
        p = soft.log_probs(temperature).exp().double()
    student, labels = Student(rng), hard(rng)
    z = student.logits()
    log_q = torch.log_softmax(z / temperature, dim=-1)
    if tail == "bucket":
        ids, stored, mass = (torch.tensor(each) for each in sparse.outcomes(temperature))
        others = log_q.exp().scatter(1, ids, 0.0).sum(dim=1, keepdim=True)
        log_q, p = torch.cat([log_q.gather(1, ids), others.log()], 1), torch.cat([stored, mass[:, None]], 1)
    of_soft = temperature**2 * torch.where(p > 0, p * ((p.log() if loss == "forward_kl" else 0) - log_q), 0.0).sum()
    own = labels >= 0
    of_hard = -torch.log_softmax(z, dim=-1)[own, labels[own]].sum()
    want = 1.7 * of_soft / POSITIONS + hard_weight * of_hard / max(int(own.sum()), 1)
    got = student.fused(soft, labels, temperature=temperature, hard_weight=hard_weight, loss=loss)
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(want.item(), rel=2e-6, abs=2e-6)
    assert_close(student.gradients(got), student.gradients(want), 3e-6)


@pytest.mark.parametrize("tail", TAILS)
def test_gradients_are_those_of_the_value(rng: np.random.Generator, tail: str) -> None:
    soft, student, labels = Sparse(rng, tail).soft, Student(rng), hard(rng)

    slopes = student.gradients(student.fused(soft, labels))
    for leaf, slope in zip(student.leaves, slopes, strict=True):
        step = torch.tensor(rng.normal(size=tuple(leaf.shape)))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * 1e-5 * step
                values.append(3 * student.fused(soft, labels).item())
                leaf -= sign * 1e-5 * step
        assert (values[0] - values[1]) / 2e-5 == pytest.approx((slope * step.numpy()).sum(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("tail", TAILS)
def test_nothing_is_left_to_learn_where_the_student_is_the_decoded_teacher(rng: np.random.Generator, tail: str) -> None:
    sparse = Sparse(rng, tail)
    z = torch.tensor(np.log(np.maximum(sparse.probabilities(2.0), 1e-30)) * 2, dtype=torch.float32).requires_grad_()
    eye = torch.eye(CLASSES)
    loss = linear_distillation_loss(
        z, eye, None, sparse.soft, torch.full((POSITIONS,), -1), LossSpec(temperature=2.0), classes=CLASSES
    )
    assert abs(loss.item()) < 1e-5
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-6


def test_ensembles_of_sparse_labels(rng: np.random.Generator) -> None:
    for mean in ("arithmetic", "geometric", "tempered"):
        sparse, student, labels = Sparse(rng, "lowrank", members=3, always=True), Student(rng, torch.float32), hard(rng)
        want = distillation_loss(
            student.logits(), sparse.soft, labels, temperature=2.0, hard_weight=0.3, soft_weight=1.7, mean=mean
        )
        got = student.fused(sparse.soft, labels, mean=mean)
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
        assert_close(student.gradients(got), student.gradients(want), 1e-5)


@pytest.mark.parametrize("kind", ["dense", "lowrank", "bucket"])
def test_positions_that_do_not_count_change_nothing_and_micro_batches_add_up(
    rng: np.random.Generator, kind: str
) -> None:
    positions = 24
    soft = dense_labels(rng, 1, positions) if kind == "dense" else Sparse(rng, kind, positions=positions).soft
    student, labels = Student(rng, positions=positions), hard(rng, positions=positions)
    valid = torch.tensor(rng.random(positions) < 0.7)
    labels[~valid] = -1
    whole = student.fused(soft, labels, valid=valid)
    expected = student.gradients(whole)
    hidden, weight, bias = student.leaves
    assert (expected[0][~valid] == 0).all()
    assert np.abs(expected[0][valid]).min() > 0
    spec = LossSpec(temperature=2.0, hard_weight=0.3, soft_weight=1.7)
    alone = linear_distillation_loss(hidden[valid], weight, bias, soft[valid], labels[valid], spec, classes=CLASSES)
    assert whole.item() == pytest.approx(alone.item(), rel=1e-7)  # the teacher's side is float32
    assert_close(student.gradients(alone), expected, 1e-6)
    count, labelled = int(valid.sum()), int((labels >= 0).sum())
    parts = [
        linear_distillation_loss(
            hidden[part], weight, bias, soft[part], labels[part], spec,
            classes=CLASSES, valid=valid[part], positions=count, labelled=labelled,
        )
        for part in (slice(0, 5), slice(5, 16), slice(16, 24))
    ]  # fmt: skip
    total = torch.stack(parts).sum()
    assert total.item() == pytest.approx(whole.item(), rel=1e-7)
    assert_close(student.gradients(total), expected, 1e-6)


def test_outputs_that_pad_the_vocabulary_do_not_count(rng: np.random.Generator) -> None:
    student, soft, labels = Student(rng), Sparse(rng, "lowrank").soft, hard(rng)
    before = student.fused(soft, labels)
    gradients = student.gradients(before)
    assert (gradients[1][CLASSES:] == 0).all()
    assert (gradients[2][CLASSES:] == 0).all()
    with torch.no_grad():
        student.leaves[1][CLASSES:] += 100
        student.leaves[2][CLASSES:] += 100
    assert student.fused(soft, labels).item() == before.item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("matrix", ["same", "float32"])
def test_half_precision_states(rng: np.random.Generator, dtype: torch.dtype, matrix: str) -> None:
    exact, soft, labels = Student(rng, torch.float32), Sparse(rng, "lowrank").soft, hard(rng)
    hidden, weight, bias = exact.leaves
    with torch.no_grad():
        for leaf in exact.leaves:
            leaf.copy_(leaf.to(dtype))
    want = exact.fused(soft, labels)
    half = Student(rng)
    others = (weight, bias) if matrix == "float32" else (weight.to(dtype), bias.to(dtype))
    half.leaves = tuple(each.detach().requires_grad_() for each in (hidden.to(dtype), *others))  # type: ignore[assignment]
    got = half.fused(soft, labels)
    rough = 2e-2 if dtype == torch.bfloat16 else 3e-3
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=rough)
    found = torch.autograd.grad(got, half.leaves)
    assert [each.dtype for each in found] == [leaf.dtype for leaf in half.leaves]
    assert_close([3 * each.double().numpy() for each in found], exact.gradients(want), 2 * rough)


def test_tiny_gradients_survive_float16(rng: np.random.Generator) -> None:
    """A step is scaled up after the loss: what the loss itself keeps must not be float16."""
    soft, labels = Sparse(rng, "lowrank").soft, hard(rng)
    leaves = [leaf.detach().half().requires_grad_() for leaf in Student(rng, torch.float32).leaves]
    spec = LossSpec(temperature=1.0, hard_weight=1e-6, soft_weight=1e-6)
    loss = linear_distillation_loss(*leaves, soft, labels, spec, classes=CLASSES)
    for gradient in torch.autograd.grad(loss * 2**20, leaves):
        assert (gradient != 0).float().mean() > 0.7


def test_no_array_of_positions_by_classes_is_held(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products have a block's size, and what the loss makes of them an eighth of it."""
    positions, block, seen, products = 40, 16, [], []
    real, product = fused_terms.softmax_and_sum, fused.aligned_product
    monkeypatch.setattr(fused_terms, "softmax_and_sum", lambda z: (seen.append(z.shape), real(z))[1])
    monkeypatch.setattr(fused, "aligned_product", lambda a, b: (products.append(len(a)), product(a, b))[1])
    student, labels = Student(rng, torch.float32, positions), hard(rng, positions=positions)
    student.fused(Sparse(rng, "lowrank", positions=positions).soft, labels, block)
    assert sum(shape[0] for shape in seen) == 2 * positions  # at T and at 1
    assert max(shape[0] for shape in seen) == block // 8
    assert products == [16, 16, 8]
    assert fused.block_positions(1 << 17, torch.device("cpu")) == 64


def test_without_gradients_nothing_is_kept(rng: np.random.Generator) -> None:
    student, soft, labels = Student(rng), Sparse(rng, "prior").soft, hard(rng)
    want = student.fused(soft, labels)
    with torch.no_grad():
        got = student.fused(soft, labels)
    assert not got.requires_grad
    assert got.item() == want.item()
    student.leaves[1].requires_grad_(False)
    hidden, _, bias = student.leaves
    first = torch.autograd.grad(student.fused(soft, labels), (hidden, bias))
    again = student.fused(soft, labels)
    again.backward()
    assert torch.equal(hidden.grad, first[0])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="requested twice"):
        again.backward()


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    student, soft, labels = Student(rng), dense_labels(rng), hard(rng)
    hidden, weight, bias = student.leaves

    def refuse(error: type[Exception], message: str, *given: Any, **changes: Any) -> None:
        classes = changes.pop("classes", CLASSES)
        options = {"temperature": 1.0, "hard_weight": 0.5, "soft_weight": 0.5} | changes
        with pytest.raises(error, match=message):
            linear_distillation_loss(*given, LossSpec(**options), classes=classes)

    refuse(ClassMismatch, "do not fit", hidden, weight[:, :-1], bias, soft, labels)
    refuse(ClassMismatch, "the bias has shape", hidden, weight, bias[:-1], soft, labels)
    refuse(ClassMismatch, "16 outputs, and there are 17 classes", hidden, weight, bias, soft, labels, classes=17)
    refuse(ClassMismatch, r"\(positions, classes\) = \(9, 13\)", hidden, weight, bias, soft, labels, classes=12)
    refuse(ClassMismatch, r"labels of shape \(8,\)", hidden, weight, bias, soft, labels[:-1])
    refuse(ClassMismatch, r"= \(8, 13\)", hidden, weight, bias, soft[:8], labels)
    refuse(LabelError, "hard label 13 lies outside", hidden, weight, bias, soft, torch.full_like(labels, 13))
    refuse(ConfigError, "dist needs the whole batch", hidden, weight, bias, soft, labels, loss="dist")
    refuse(ConfigError, "needs soft labels and there are none", hidden, weight, bias, None, labels)
    refuse(ConfigError, "temperature", hidden, weight, bias, soft, labels, temperature=0.0)
    for wrong in (-1.0, float("nan"), float("inf")):
        refuse(ConfigError, "weights must be finite", hidden, weight, bias, soft, labels, hard_weight=wrong)
        refuse(ConfigError, "weights must be finite", hidden, weight, bias, soft, labels, soft_weight=wrong)
    refuse(
        ConfigError, "from 1 up, not at 0.5", hidden, weight, bias, Sparse(rng, "prior").soft, labels, temperature=0.5
    )
    refuse(
        ConfigError,
        "dist is not available|needs the whole batch",
        hidden,
        weight,
        bias,
        Sparse(rng, "prior").soft,
        labels,
        loss="dist",
    )


def test_a_class_that_is_impossible_to_the_student(rng: np.random.Generator) -> None:
    student = Student(rng, torch.float32)
    with torch.no_grad():
        student.leaves[2][3] = -torch.inf
    logits = rng.normal(0, 3, (POSITIONS, 1, CLASSES))
    logits[:, :, 3] = -np.inf
    labels = torch.full((POSITIONS,), 1)
    want = distillation_loss(
        student.logits(), soft_labels(logits), labels, temperature=2.0, hard_weight=0.3, soft_weight=1.7
    )
    got = student.fused(soft_labels(logits), labels)
    assert np.isfinite(got.item())
    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    assert_close(student.gradients(got), student.gradients(want), 1e-5)
    assert student.fused(dense_labels(rng), labels).item() == np.inf
