"""The losses of flags and vectors against float64 references written from their definitions, in all that a loss goes through:
gradients, micro-batches, half precision, blocks of positions, class weights, training and validation."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from softlabels.errors import Interrupted
from softlabels.objects import ObjectSpec
from softlabels.stream.batch import Batch
from softlabels.student.config import TrainingConfig
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import distillation_loss
from softlabels.student.outputs import batch_loss
from softlabels.student.trainer import Trainer
from tests.student import batches, runs
from tests.student.kind_reference import OTHERS, Rows, distance, draw, gradient, probabilities, reference, sigmoid

BOTH = {"hard_weight": 0.3, "soft_weight": 1.7}
SOFT = {"hard_weight": 0.0, "soft_weight": 1.0}
SETTINGS = [("bce", t, mean) for t in (0.5, 1.0, 4.0) for mean in ("arithmetic", "geometric", "tempered")]
SETTINGS += [(loss, 1.0, "arithmetic") for loss in OTHERS[1:]]


def options_of(loss: str, temperature: float = 1.0, mean: str = "arithmetic") -> dict[str, Any]:
    """As a caller gives them: values have neither temperature nor mean."""
    return {"loss": loss} | ({"temperature": temperature, "mean": mean} if loss == "bce" else {})


@pytest.mark.parametrize(("loss", "temperature", "mean"), SETTINGS)
def test_values_and_gradients_are_those_of_the_definition(
    rng: np.random.Generator, loss: str, temperature: float, mean: str
) -> None:
    """Gradients, along random directions, against central differences."""
    rows, options = draw(rng, loss), options_of(loss, temperature, mean)

    def wanted(z: np.ndarray) -> float:
        return reference(loss, replace(rows, z=z), temperature=temperature, mean=mean, **BOTH)

    got = distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, **options, **BOTH)
    assert (got.dtype, got.shape) == (torch.float32, ())
    assert got.item() == pytest.approx(wanted(rows.z), rel=2e-6)
    found = gradient(rows, **options, **BOTH)
    for step in rng.normal(size=(4, *rows.z.shape)):
        slope = (wanted(rows.z + 1e-5 * step) - wanted(rows.z - 1e-5 * step)) / 2e-5
        assert (found * step).sum() == pytest.approx(slope, abs=1e-4 * np.abs(found * step).sum())


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("loss", "temperature", "mean"), SETTINGS)
def test_a_student_that_is_the_teacher_is_at_the_minimum(
    rng: np.random.Generator, loss: str, temperature: float, mean: str, members: int
) -> None:
    """0 of distances, the teacher's entropy of bce; with a gradient of 0."""
    rows = draw(rng, loss, members=members)
    z = np.einsum("m,bmc->bc", rows.share, rows.v)
    least = 0.0
    if loss == "bce":
        p = probabilities(rows, temperature, mean)
        z = temperature * np.log(p / (1 - p))
        least = temperature**2 * -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(axis=-1).mean()
    rows = replace(rows, z=z)
    got = distillation_loss(torch.tensor(z), rows.soft, rows.hard, **options_of(loss, temperature, mean), **SOFT)
    assert got.item() == pytest.approx(least, rel=1e-5, abs=2e-7)
    assert np.abs(gradient(rows, **options_of(loss, temperature, mean), **SOFT)).max() < 1e-6


@pytest.mark.parametrize("loss", OTHERS)
def test_micro_batches_add_up(rng: np.random.Generator, loss: str) -> None:
    rows, options = draw(rng, loss), options_of(loss, 3.0) | BOTH
    known = rows.labels >= 0 if loss == "bce" else ~np.isnan(rows.labels)
    counts = {"positions": len(rows.z), "labelled": int(known.any(axis=1).sum())}
    parts = [rows.at(slice(*ends)) for ends in pairwise([0, 1, 6, 12])]  # the first without a label
    value = sum(distillation_loss(torch.tensor(p.z), p.soft, p.hard, **options, **counts).item() for p in parts)
    assert value == pytest.approx(
        distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, **options).item(), rel=1e-5
    )
    slopes = np.concatenate([gradient(part, **options, **counts) for part in parts])
    np.testing.assert_allclose(slopes, gradient(rows, **options), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("loss", OTHERS)
def test_a_student_of_another_precision_is_computed_in_float32(
    rng: np.random.Generator, loss: str, dtype: torch.dtype
) -> None:
    """And never without the constant that its outputs share, which a softmax does not see."""
    rows, options = draw(rng, loss), options_of(loss, 4.0) | BOTH
    student = torch.tensor(rows.z + 5).to(dtype).requires_grad_()
    got = distillation_loss(student, rows.soft, rows.hard, **options)
    got.backward()  # type: ignore[no-untyped-call]
    seen = replace(rows, z=student.detach().double().numpy())
    temperature = options.get("temperature", 1.0)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(reference(loss, seen, temperature=temperature, **BOTH), rel=1e-5)
    assert student.grad is not None
    assert (student.grad.dtype, bool(student.grad.isfinite().all())) == (dtype, True)


@pytest.mark.parametrize("weights", [(0.3, 1.7), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("loss", OTHERS)
def test_blocks_of_positions_give_the_loss_and_gradients_of_the_whole(
    rng: np.random.Generator, loss: str, weights: tuple[float, float]
) -> None:
    rows, temperature = draw(rng, loss), 2.0 if loss == "bce" else 1.0
    valid = torch.tensor(rng.random(12) < 0.7)
    leaves = [torch.tensor(rng.normal(size=shape)).float().requires_grad_() for shape in ((12, 4), (5, 4), (5,))]
    hidden, matrix, bias = leaves
    spec = LossSpec(temperature, *weights, loss=loss)
    want = distillation_loss(
        (hidden @ matrix.t() + bias)[valid], rows.soft[valid], rows.hard[valid],
        **options_of(loss, temperature), hard_weight=weights[0], soft_weight=weights[1],
    )  # fmt: skip
    expected = torch.autograd.grad(want, leaves)
    for block in (1, 4, 100):
        got = linear_distillation_loss(
            hidden, matrix, bias, rows.soft, rows.hard, spec, classes=5, valid=valid, block_bytes=4 * 5 * block
        )
        assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-7)
        for own, other in zip(torch.autograd.grad(got, leaves), expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", OTHERS)
def test_positions_of_rows_are_flattened_and_those_that_are_masked_play_no_part(
    rng: np.random.Generator, loss: str
) -> None:
    """Of a model with an output matrix and of one without."""
    rows, mask = draw(rng, loss), torch.tensor(rng.random((4, 3)) < 0.6)
    mask[:, 0] = True
    batch = batches.plain(torch.randn(4, 3, 6), rows.hard.unflatten(0, (4, 3)), rows.soft, np.arange(4), mask, 5)
    head, spec = nn.Linear(6, 5), LossSpec(2.0 if loss == "bce" else 1.0, **BOTH, loss=loss)
    kept = mask.flatten()
    z = head(batch.inputs).flatten(0, 1)[kept]
    options = options_of(loss, 2.0) | BOTH
    want = distillation_loss(z, rows.soft[kept], rows.hard[kept], **options)  # type: ignore[arg-type]
    expected = torch.autograd.grad(want, list(head.parameters()))
    for model in (head, WithMatrix(head)):
        got = batch_loss(batches.outputs_of(model, batch), batch, spec)
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
        for own, other in zip(torch.autograd.grad(got, list(head.parameters())), expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


class WithMatrix(nn.Module):
    """The same model by its hidden states and output matrix."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.hidden, self.output_matrix = lambda inputs: inputs, lambda: (head.weight, head.bias)


def test_a_flags_weight_is_that_of_its_class_in_both_terms(rng: np.random.Generator) -> None:
    rows, w = draw(rng, "bce"), rng.uniform(0.2, 5, 5)
    options = options_of("bce", 3.0) | BOTH
    got = distillation_loss(
        torch.tensor(rows.z), rows.soft, rows.hard, **options, class_weights=torch.tensor(w).float()
    )
    assert got.item() == pytest.approx(reference("bce", rows, temperature=3.0, weights=w, **BOTH), rel=1e-5)


def test_t_squared_keeps_the_gradient_of_bce_at_its_size(rng: np.random.Generator) -> None:
    """It tends to (z - v) / 4, and so stays where T grows."""
    rows = draw(rng, "bce", members=1)
    limit = (rows.z - rows.v[:, 0]) / 4 / len(rows.z)
    far, near = (gradient(rows, **options_of("bce", t), **SOFT) for t in (1000.0, 10.0))
    assert np.abs(far - limit).max() < 1e-3 * np.abs(limit).max()
    assert np.abs(near - limit).max() < 0.3 * np.abs(limit).max()


@pytest.mark.parametrize("sign", [1, -1])
def test_flags_that_are_all_but_sure_keep_their_gradient(sign: int) -> None:
    """Where float32 rounds a probability to 1, its distance from it is still known."""
    v = sign * np.array([[[12.0, 20.0, 30.0, np.inf]]])
    rows = Rows("sigmoid", sign * np.array([[13.0, 18.0, 40.0, 50.0]]), v, np.full((1, 4), -1), np.ones(1))
    got = gradient(rows, **options_of("bce"), **SOFT)
    with np.errstate(over="ignore"):  # 1 - sigma(z) = sigma(-z)
        want = -sign * (sigmoid(-np.abs(rows.z)) - sigmoid(-np.abs(v[:, 0])))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_flags_that_are_impossible_on_both_sides_do_not_count(rng: np.random.Generator) -> None:
    rows = draw(rng, "bce", members=1)
    rows.v[:, 0, 2], rows.z[:, 2] = -np.inf, -np.inf
    rows.v[:, 0, 3], rows.z[:, 3] = np.inf, np.inf
    options = options_of("bce", 2.0) | SOFT
    kept = [0, 1, 4]
    fewer = replace(rows, z=rows.z[:, kept], v=rows.v[:, :, kept], labels=rows.labels[:, kept])
    got = distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, **options)
    assert got.item() == pytest.approx(reference("bce", fewer, temperature=2.0, **SOFT), rel=1e-5)
    assert (gradient(rows, **options)[:, [2, 3]] == 0).all()
    rows.v[0, 0, 2] = -3.0  # which the student alone holds for impossible
    assert distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, **options).item() == np.inf


def test_distances_are_torchs_own(rng: np.random.Generator) -> None:
    rows = draw(rng, "mse", members=1)
    s, v = torch.tensor(rows.z).float(), torch.tensor(rows.v[:, 0]).float()
    forms = {
        "mse": functional.mse_loss(s, v),
        "huber": functional.huber_loss(s, v, delta=0.7),
        "cosine": functional.cosine_embedding_loss(s, v, torch.ones(12)),
    }
    for loss, form in forms.items():
        args = {"loss_args": {"delta": 0.7}} if loss == "huber" else {}
        got = distillation_loss(s, rows.soft, rows.hard, loss=loss, **args, **SOFT)  # type: ignore[arg-type]
        assert got.item() == pytest.approx(form.item(), rel=1e-6), loss


def test_a_large_delta_is_half_of_mse(rng: np.random.Generator) -> None:
    rows = draw(rng, "huber")
    args: Any = {"delta": 1e6}
    got = distillation_loss(torch.tensor(rows.z), rows.soft, rows.hard, loss="huber", loss_args=args, **BOTH)
    assert got.item() == pytest.approx(reference("mse", rows, **BOTH) / 2, rel=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_cosine_has_no_scale_and_a_bounded_gradient(rng: np.random.Generator, size: float) -> None:
    """At the zero vector too, where it points along the teacher's."""
    rows = draw(rng, "cosine", members=1)
    options = {"loss": "cosine"} | SOFT
    got = distillation_loss(torch.tensor(rows.z) * size, rows.soft, rows.hard, **options)
    want = reference("cosine", rows, **SOFT)
    if size >= 1:
        assert got.item() == pytest.approx(want, rel=1e-5)
    scaled = replace(rows, v=rows.v * size)  # where the student is as small as its teacher is, too
    got = distillation_loss(torch.tensor(rows.z) * size, scaled.soft, rows.hard, **options)
    assert got.item() == pytest.approx(want, rel=1e-5)
    nothing = replace(rows, z=np.zeros_like(rows.z))
    assert distillation_loss(torch.tensor(nothing.z), rows.soft, rows.hard, **options).item() == 1.0
    along = rows.v[:, 0] / np.sqrt((rows.v[:, 0] ** 2).sum(axis=-1, keepdims=True))
    length = np.sqrt((rows.v[:, 0] ** 2).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(gradient(nothing, **options), -along * 1000 / length / len(along), rtol=1e-5)
    undirected = replace(rows, v=np.zeros_like(rows.v))
    assert distillation_loss(torch.tensor(rows.z), undirected.soft, rows.hard, **options).item() == 0.0
    for z in (rows.z, nothing.z):
        assert (gradient(replace(undirected, z=z), **options) == 0).all()


class Fixed(runs.MemoryBatches):
    """Rows of any kind of labels in order."""

    def __init__(self, batch: Batch, size: int) -> None:
        super().__init__(batch, size, seed=None)


@pytest.mark.parametrize("loss", OTHERS)
def test_a_trained_step_and_the_validation_loss_are_those_of_the_definition(
    rng: np.random.Generator, loss: str, tmp_path: Path
) -> None:
    """A model of one matrix, a step of plain SGD in micro-batches; the labels of some rows may not be used."""
    rows, labelled = draw(rng, loss), np.arange(12) % 3 > 0
    own = replace(rows, labels=np.where(labelled[:, None], rows.labels, -1 if loss == "bce" else np.nan))
    batches = Fixed(rows.batch, 12)
    temperature = {"temperature": 2.0} if loss == "bce" else {}
    config = TrainingConfig(
        **temperature, epochs=1, alpha=0.6, loss=loss, micro_batch=5, threads=1, device="cpu",
        optimizer=ObjectSpec("torch.optim.SGD", {"lr": 0.5}),
    )  # fmt: skip
    student = Student.begin("", config, lambda: nn.Linear(5, 5), labelled=labelled)
    weight, bias = (each.detach().double().numpy().copy() for each in student.model.parameters())
    inputs = rows.batch.inputs.double().numpy()
    options = {"temperature": temperature.get("temperature", 1.0), "hard_weight": 0.4, "soft_weight": 0.6}

    def slope(at: np.ndarray, step: np.ndarray) -> float:
        ends = (reference(loss, replace(own, z=at + sign * 1e-5 * step), **options) for sign in (1, -1))
        return float(next(ends) - next(ends)) / 2e-5

    z = inputs @ weight.T + bias
    at_z = np.array([[slope(z, one) for one in each] for each in np.eye(60).reshape(12, 5, 12, 5)])
    weight, bias = weight - 0.5 * at_z.T @ inputs, bias - 0.5 * at_z.sum(axis=0)
    [result] = Trainer([student], batches, batches, tmp_path / "run", {}).run()
    assert next(student.model.parameters()).detach().numpy() == pytest.approx(weight, abs=1e-5)
    after = reference(loss, replace(rows, z=inputs @ weight.T + bias), **options)
    assert result.kept_validation == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("loss", OTHERS)
def test_training_in_half_precision_learns_and_goes_on_to_the_same_bits(
    rng: np.random.Generator, loss: str, precision: Any, tmp_path: Path
) -> None:
    rows = draw(rng, loss, rows=60)
    batch = replace(rows, z=rows.v.mean(axis=1) / 4).batch  # inputs from which the teacher's outputs can be told

    def begin(folder: str) -> Trainer:
        config = TrainingConfig(
            epochs=5, batch_size=20, micro_batch=8, loss=loss, precision=precision, threads=1, device="cpu",
            ema=0.5, optimizer=ObjectSpec("torch.optim.Adam", {"lr": 0.05}),
        )  # fmt: skip
        student = Student.begin("", config, lambda: nn.Linear(5, 5))
        return Trainer([student], runs.MemoryBatches(batch, 20), Fixed(batch, 17), tmp_path / folder, {})

    [whole] = begin("whole").run()
    asked = iter(range(8))
    with pytest.raises(Interrupted):
        begin("stopped").run(lambda: next(asked) == 7)
    [result] = begin("stopped").run()
    assert result.weights.read_bytes() == whole.weights.read_bytes()
    assert (result.scores, result.kept_validation) == (whole.scores, whole.kept_validation)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    first, last = (line["kl"]["4"] if loss == "bce" else line["validation_loss"] for line in (lines[0], lines[-2]))
    assert last < 0.9 * first


def test_the_reference_of_a_distance_can_tell(rng: np.random.Generator) -> None:
    s, v = rng.normal(size=(2, 5))
    assert len({round(distance(loss, s, v), 6) for loss in ("mse", "huber", "cosine")}) == 3
