"""Training on rows of tokens: what counts, what pads, micro-batches, models with and without an output matrix, resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from softlabels.errors import ClassMismatch, ConfigError, Interrupted
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.stream.batch import Batch
from softlabels.student.config import TrainingConfig, require_temperatures
from softlabels.student.evaluate import Asked, evaluate_student, evaluate_teacher
from softlabels.student.learner import Learner, Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import LOSSES, soft_sum
from softlabels.student.metrics import FEW, Metrics
from softlabels.student.outputs import batch_loss, blocks
from softlabels.student.seeding import torch_rng
from softlabels.student.trainer import Trainer
from tests.student import batches
from tests.student.loss_reference import soft_labels
from tests.student.sparse_samples import Sparse

ROWS, LENGTH, CLASSES, OUTPUTS, WIDTH = 24, 7, 11, 14, 6
POSITIONS = LENGTH - 1
CPU = torch.device("cpu")


class Net(nn.Module):
    """A language model that looks one token back; `whole` gives logits only."""

    def __init__(self, *, whole: bool = False, outputs: int = OUTPUTS, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(CLASSES, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, outputs)
        if not whole:
            self.hidden, self.output_matrix = self._hidden, lambda: (self.head.weight, self.head.bias)

    def _hidden(self, inputs: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.embed(inputs[:, 0, :-1].long())))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self._hidden(inputs))


def token_batch(rng: np.random.Generator, kind: str = "lowrank") -> Batch:
    tokens = rng.integers(0, CLASSES, (ROWS, LENGTH))
    document = 1 + (rng.random((ROWS, LENGTH)) < 0.3).cumsum(axis=1)
    document -= document[:, :1] - 1
    document[np.arange(LENGTH) >= rng.integers(3, LENGTH + 1, (ROWS, 1))] = 0
    mask = (document[:, :-1] == document[:, 1:]) & (document[:, :-1] > 0)
    labels = np.where(mask, tokens[:, 1:], -1)
    count = ROWS * POSITIONS
    if kind == "dense":
        soft = soft_labels(rng.normal(0, 2, (count, 1, CLASSES)))
    else:
        soft = Sparse(rng, kind, positions=count, classes=CLASSES, always=True).soft
    inputs = torch.tensor(np.stack([tokens, document], axis=1), dtype=torch.int32)
    return batches.plain(inputs, torch.tensor(labels), soft, np.arange(ROWS), torch.tensor(mask), CLASSES)


class Rows:
    """A batch cut into batches, the same at every epoch."""

    def __init__(self, batch: Batch, size: int) -> None:
        self.batch, self.size, self.steps_per_epoch = batch, size, -(-len(batch) // size)
        self.order_digest = f"{size}"

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for first in range(start * self.size, len(self.batch), self.size):
            yield self.batch[first : first + self.size]


def loss_of(net: nn.Module, batch: Batch, **options: Any) -> Tensor:
    given = {"loss": "forward_kl", "temperature": 2.0, "hard_weight": 0.4, "soft_weight": 0.6} | options
    return batch_loss(batches.outputs_of(net, batch), batch, LossSpec(**given))


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("kind", ["dense", "lowrank", "bucket"])
@pytest.mark.parametrize("loss", ["forward_kl", "js"])
def test_only_positions_that_count_are_learnt_and_padding_outputs_take_no_part(
    rng: np.random.Generator, kind: str, loss: str
) -> None:
    batch, net = token_batch(rng, kind), Net()
    assert batch.mask is not None
    assert batch.soft is not None
    valid = batch.mask.flatten()
    z = net(batch.inputs).flatten(0, 1)[valid][:, :CLASSES]
    labels = batch.labels.flatten()[valid]
    assert (labels >= 0).all()
    hard = functional.cross_entropy(z, labels)
    soft = soft_sum(z, batch.soft[valid], None, LossSpec(2.0, loss=loss)) / valid.sum()
    want = 0.4 * hard + 0.6 * soft
    expected = gradients(net, want)
    for model in (net, _same(net, Net(whole=True))):
        got = loss_of(model, batch, loss=loss)
        assert got.item() == pytest.approx(want.item(), rel=1e-5)
        for own, other in zip(gradients(model, got), expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def _same(net: nn.Module, other: nn.Module) -> nn.Module:
    other.load_state_dict(net.state_dict())
    return other


def test_what_stands_at_a_position_that_does_not_count_changes_nothing(rng: np.random.Generator) -> None:
    batch, net = token_batch(rng, "dense"), Net()
    assert batch.mask is not None
    before = loss_of(net, batch)
    expected = gradients(net, before)
    batch.soft.members.logits[~batch.mask.flatten()] = torch.randn(CLASSES)  # type: ignore[union-attr]
    padding = batch.inputs[:, 1] == 0
    batch.inputs[:, 0][padding] = 3
    after = loss_of(net, batch)
    assert after.item() == before.item()
    assert all(torch.equal(a, b) for a, b in zip(gradients(net, after), expected, strict=True))


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_label_that_is_off_by_one_is_not_the_same_loss(rng: np.random.Generator, shift: int) -> None:
    """Teachers one position off, or classes one off: the student that is right for the one is wrong for the other."""
    batch = token_batch(rng, "dense")
    eye = Net()
    logits = batch.soft.log_probs(1.0)  # type: ignore[union-attr]

    def kl(states: Tensor) -> float:
        eye.hidden = lambda inputs: states.reshape(ROWS, POSITIONS, CLASSES)
        eye.output_matrix = lambda: (torch.eye(CLASSES), None)
        return loss_of(eye, batch, temperature=1.0, hard_weight=0.0, soft_weight=1.0).item()

    assert kl(logits) < 1e-5
    assert kl(logits.roll(shift, dims=0)) > 0.5  # positions
    assert kl(logits.roll(shift, dims=1)) > 0.5  # a shifted vocabulary


def train(
    folder: Path, batch: Batch, *, net: Any = Net, stop: int | None = None, **changes: Any
) -> tuple[Any, nn.Module]:
    settings = {"epochs": 3, "batch_size": 8, "threads": 1, "device": "cpu", "temperature": 2.0, "alpha": 0.6}
    student = Student.begin("", TrainingConfig(**settings | changes), net)
    rows = Rows(batch, 8)
    trainer = Trainer([student], rows, rows, folder, {"store": "abc"})
    steps = iter(range(1000))
    [result] = trainer.run(lambda: stop is not None and next(steps) == stop)
    return result, student.model


@pytest.mark.parametrize("kind", ["dense", "lowrank"])
def test_a_run_does_not_depend_on_micro_batches_nor_on_whether_logits_are_held(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    batch = token_batch(rng, kind)
    results = [
        train(tmp_path / name, batch, **changes)
        for name, changes in {
            "whole": {}, "micro": {"micro_batch": 3}, "dense": {"net": lambda: Net(whole=True)},
        }.items()
    ]  # fmt: skip
    for result, model in results[1:]:
        assert result.kept_validation == pytest.approx(results[0][0].kept_validation, rel=1e-5)
        assert result.scores["kl"]["2"] == pytest.approx(results[0][0].scores["kl"]["2"], rel=1e-5)
        for own, other in zip(model.parameters(), results[0][1].parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=2e-5)
    assert results[0][0].scores["rows"] == batch.positions
    assert results[0][0].scores["labelled"] == batch.positions


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    batch = token_batch(rng)
    options: dict[str, Any] = {"net": lambda: Net(dropout=0.3), "micro_batch": 3, "hard_label_fraction": 1.0}
    _, unbroken = train(tmp_path / "unbroken", batch, **options)
    for stop in (2, 3):
        with pytest.raises(Interrupted):
            train(tmp_path / "stopped", batch, stop=stop, **options)
    _, resumed = train(tmp_path / "stopped", batch, **options)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), unbroken.parameters(), strict=True))
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("unbroken", "stopped")]
    losses = [[part for part in text.split(", ") if "loss" in part] for text in lines]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(tmp_path: Path, rng: np.random.Generator, precision: str) -> None:
    batch = token_batch(rng)
    full, _ = train(tmp_path / "full", batch)
    half, model = train(tmp_path / "half", batch, precision=precision)
    assert half.kept_validation == pytest.approx(full.kept_validation, rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_labels_are_dropped_by_row(rng: np.random.Generator) -> None:
    batch = token_batch(rng)
    labelled = np.arange(ROWS) % 3 == 0
    config = TrainingConfig(batch_size=8, device="cpu", hard_weight=1.0, soft_weight=0.0, epochs=1)
    learner = Learner(Student("", Net(), config, labelled, torch_rng()), device=CPU, total_steps=1, augment=None)
    loss = learner.step(batch, batch, 0)
    some = batch.labels[torch.from_numpy(labelled)]
    assert learner.standing.labelled[""] == (some >= 0).sum()
    net = Net()
    torch.manual_seed(0)
    assert np.isfinite(loss)
    kept = torch.where(torch.from_numpy(labelled)[:, None], batch.labels, -1)
    own = batches.plain(batch.inputs, kept, None, batch.rows, batch.mask, CLASSES)
    want = functional.cross_entropy(net(batch.inputs).flatten(0, 1)[:, :CLASSES], kept.flatten(), ignore_index=-1)
    got = loss_of(net, own, hard_weight=1.0, soft_weight=0.0)
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["dense", "lowrank", "renormalised"])
def test_scores_count_positions(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    batch, net = token_batch(rng, kind), Net()
    assert batch.mask is not None
    valid = batch.mask.flatten()
    z = net(batch.inputs).detach().flatten(0, 1)[valid][:, :CLASSES].double()
    labels = batch.labels.flatten()[valid]
    monkeypatch.setattr("softlabels.student.outputs.block_positions", lambda classes, device: 5)
    for model in (net, _same(net, Net(whole=True))):
        scores = evaluate_student(model, Rows(batch, 9), {"": Asked([2.0])}, device=CPU)
        assert scores["rows"] == scores["labelled"] == len(z)
        assert scores["nll"] == pytest.approx(functional.cross_entropy(z, labels).item(), rel=1e-6)
        assert scores["errors"] == int((z.argmax(1) != labels).sum())
        p = batch.soft[valid].log_probs(2.0).double()  # type: ignore[index]
        gap = torch.where(p.exp() > 0, p.exp() * (p - torch.log_softmax(z / 2, 1)), 0.0).sum(1)
        assert scores["kl"]["2"] == pytest.approx(gap.mean().item(), rel=1e-5)
    ensemble, members = evaluate_teacher(Rows(batch, 9), {"": Asked([2.0])}, device=CPU)
    teacher = batch.soft[valid].log_probs(1.0, "arithmetic", labels).double()  # type: ignore[index]
    if kind != "renormalised":
        assert ensemble["nll"] == pytest.approx(-teacher.gather(1, labels[:, None]).mean().item(), rel=1e-5)
    assert ensemble["rows"] == len(z)
    assert ensemble["kl"]["2"] == pytest.approx(0.0, abs=1e-7)
    assert members[0]["kl"]["1"] == pytest.approx(0.0, abs=1e-6)


def test_many_classes_are_scored_in_float32(rng: np.random.Generator) -> None:
    classes = FEW + 100
    z, labels = torch.tensor(rng.normal(0, 3, (20, classes))), torch.tensor(rng.integers(0, classes, 20))
    soft = soft_labels(rng.normal(0, 3, (20, 1, classes)))
    metrics = Metrics((4.0,))
    metrics.update(z.float(), labels, soft)
    scores = metrics.result()
    assert scores["nll"] == pytest.approx(functional.cross_entropy(z, labels).item(), rel=1e-6)
    for t in (1.0, 4.0):
        p = torch.log_softmax(soft.members.logits[:, 0].double() / t, 1)  # type: ignore[union-attr]
        want = (p.exp() * (p - torch.log_softmax(z / t, 1))).sum(1).mean().item()
        assert scores["kl"][f"{t:g}"] == pytest.approx(want, rel=1e-5)


def test_models_that_do_not_fit(rng: np.random.Generator) -> None:
    batch = token_batch(rng)
    for whole in (False, True):
        with pytest.raises(ClassMismatch, match="10 outputs, and there are 11 classes"):
            loss_of(Net(outputs=10, whole=whole), batch)
        with pytest.raises(ClassMismatch, match="10 outputs, and there are 11 classes"):
            list(blocks(batches.outputs_of(Net(outputs=10, whole=whole), batch), batch))
    with pytest.raises(ClassMismatch, match=r"24 rows of 6 positions has shape \(24, 3\)"):
        loss_of(nn.Sequential(nn.Flatten(), _Floats(), nn.Linear(2 * LENGTH, 3)), batch)


class _Floats(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.float()


def test_a_loss_over_the_whole_batch_takes_all_positions_at_once(rng: np.random.Generator) -> None:
    assert LOSSES["dist"].whole_batch
    batch, net = token_batch(rng, "dense"), Net()
    got = loss_of(net, batch, loss="dist")
    want = loss_of(_same(net, Net(whole=True)), batch, loss="dist")
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    assert len(list(blocks(batches.outputs_of(net, batch), batch, whole=True))) == 1


@pytest.mark.parametrize(
    ("beta_max", "temperature", "refused"),
    [
        (1.0, 1.0, None), (1.0, 2.0, None), (1.0, 0.9, "0.9"), (1.0, "linear:4:0.5", "0.5"), (1.0, "cosine:0.7:2", "0.7"),
        (2.0, 0.5, None), (0.5, 4.0, None), (0.5, 1.0, "at 1"),
    ],
)  # fmt: skip
def test_temperatures_that_the_labels_do_not_know(beta_max: float, temperature: Any, refused: str | None) -> None:
    config = TrainingConfig(temperature=temperature)
    encoding = TopkEncoding(k=4, tail="bucket", beta_max=beta_max)
    require_temperatures(DenseEncoding(), config)
    if refused is None:
        require_temperatures(encoding, config)
        return
    with pytest.raises(ConfigError, match=f"at temperatures from {1 / beta_max:g} up, not .*{refused}"):
        require_temperatures(encoding, config)
