"""Students over one pass: each ends as it would alone; schedules, precision, clipping and moving average do what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from softlabels.errors import ConfigError, Interrupted, SpecMismatch
from softlabels.objects import ObjectSpec
from softlabels.student.average import WeightAverage
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.losses import distillation_loss
from softlabels.student.schedule import ends, value_at
from softlabels.student.trainer import Trainer
from tests.student.runs import SWEEP, MemoryBatches, examples, net, run, sweep

SGD = ObjectSpec("torch.optim.SGD", {"lr": 0.5})


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("times", None)
    return found


def test_a_student_ends_as_it_would_alone(tmp_path: Path) -> None:
    together = sweep(tmp_path / "together").run()
    for number in range(len(SWEEP)):
        [alone] = sweep(tmp_path / f"alone{number}", chosen=[number]).run()
        assert alone.weights.read_bytes() == together[number].weights.read_bytes()
        name = f"s{number}"
        assert lines(tmp_path / f"alone{number}" / name) == lines(tmp_path / "together" / name)
        assert (alone.kept_epoch, alone.scores) == (together[number].kept_epoch, together[number].scores)
    assert len({result.weights.read_bytes() for result in together}) == len(SWEEP)


def test_a_student_that_changes_its_inputs_changes_no_other_student(tmp_path: Path) -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.net(inputs.mul_(3))

    config, batches = TrainingConfig(epochs=2), MemoryBatches(examples(), 32)
    students = [Student.begin(name, config, Scaling) for name in ("one", "two")]
    held_out = MemoryBatches(examples(), 64, seed=None)
    trainer = Trainer(students, batches, held_out, tmp_path / "run", {}, augment=lambda inputs: inputs.add_(1))
    one, two = trainer.run()
    assert (one.weights.read_bytes(), one.scores) == (two.weights.read_bytes(), two.scores)


def test_a_sweep_stopped_at_any_step_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = sweep(tmp_path / "whole").run()
    for stop in (0, 3, 5, 12):
        asked = iter(range(stop + 1))
        with pytest.raises(Interrupted):
            sweep(tmp_path / f"stopped{stop}").run(lambda asked=asked, stop=stop: next(asked) == stop)  # type: ignore[misc]
        again = sweep(tmp_path / f"stopped{stop}").run()
        assert [r.weights.read_bytes() for r in again] == [r.weights.read_bytes() for r in whole]


def test_students_that_cannot_share_a_pass_are_refused(tmp_path: Path) -> None:
    students = [Student.begin(f"s{n}", TrainingConfig(epochs=n + 1), net) for n in range(2)]
    batches = MemoryBatches(examples(), 32)
    with pytest.raises(ConfigError, match="students trained side by side differ in epochs: 1 and 2"):
        Trainer(students, batches, None, tmp_path, {})


def test_students_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    students = [Student.begin("T=1", TrainingConfig(temperature=T), net) for T in (1.0000001, 1.0000002)]
    with pytest.raises(ConfigError, match="two students would share a folder: T=1"):
        Trainer(students, MemoryBatches(examples(), 32), None, tmp_path, {})


def test_another_sweep_is_refused_by_the_student_that_differs(tmp_path: Path) -> None:
    sweep(tmp_path, epochs=1).run()
    with pytest.raises(SpecMismatch, match=r"training\.s0\.clip_norm: 1.0 here, 2.0 in this run"):
        sweep(tmp_path, epochs=1, clip_norm=2.0).run()


def test_a_schedule_reaches_the_loss_at_every_step(tmp_path: Path) -> None:
    """Plain SGD by hand, with the temperature and the weights of each step worked out here."""
    data, settings = examples(rows=60), {"temperature": "cosine:8:2", "hard_weight": "linear:1:0", "soft_weight": 0.5}
    torch.manual_seed(3)
    model = nn.Linear(12, 5)
    by_hand = nn.Linear(12, 5)
    by_hand.load_state_dict(model.state_dict())
    whole = MemoryBatches(data, 20, seed=None)
    run(
        tmp_path, model=model, epochs=2, batch_size=20, optimizer=SGD, scheduler=None, train=whole, validation=None,
        **settings,
    )  # fmt: skip
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5)
    for step in range(6):
        batch = list(whole.epoch(0))[step % 3]
        loss = distillation_loss(
            by_hand(batch.inputs), batch.soft, batch.labels, hard_weight=1 - step / 5, soft_weight=0.5,
            temperature=8 - 6 * (1 - math.cos(math.pi * step / 5)) / 2,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for got, want in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    last = lines(tmp_path)[1]
    assert (last["temperature"], last["hard_weight"], last["soft_weight"]) == pytest.approx((2.0, 0.0, 0.5))


def test_epochs_are_judged_by_what_the_schedule_ends_with(tmp_path: Path) -> None:
    model, data = net(), examples(seed=1, rows=60)
    result = run(tmp_path, model=model, temperature="linear:9:2", alpha="linear:0:0.7", epochs=1)
    with torch.no_grad():
        logits = model.eval()(data.inputs)
    options: dict[str, Any] = {"temperature": 2.0, "hard_weight": 0.3, "soft_weight": 0.7}
    assert result.kept_validation == pytest.approx(
        distillation_loss(logits, data.soft, data.labels, **options).item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("setting", "values"),
    [(4.0, [4, 4, 4]), ("linear:20:4", [20, 12, 4]), ("cosine:1:0", [1, 0.5, 0]), ("linear:2:2", [2, 2, 2])],
)
def test_schedules(setting: float | str, values: list[float]) -> None:
    assert [value_at(setting, share) for share in (0.0, 0.5, 1.0)] == pytest.approx(values)


@pytest.mark.parametrize("wrong", ["20:4", "linear:20", "linear:a:b", "step:1:2", "linear:1:2:3", ""])
def test_what_is_no_schedule_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"alpha is .*linear:20:4"):
        ends(wrong, name="alpha")
    with pytest.raises(ConfigError, match=r"temperature is .*linear:20:4"):
        TrainingConfig(temperature=wrong)


@pytest.mark.parametrize(
    "given",
    [{"alpha": "linear:0:1.5"}, {"temperature": "linear:0:4"}, {"hard_weight": "linear:1:-1", "soft_weight": 1.0}],
)
def test_both_ends_of_a_schedule_are_checked(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainingConfig(**given)


def test_the_moving_average_is_the_one_of_its_formula(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(model, decay=0.5)
    want = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for value in model.parameters():
                value.copy_(torch.tensor(rng.normal(size=value.shape)))
        model.train()(torch.tensor(rng.normal(size=(8, 3)).astype(np.float32)))
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            counts = name.endswith("num_batches_tracked")
            want[name] = value.double() if counts else decay * want[name] + (1 - decay) * value.double()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), want[name], rtol=1e-5, atol=1e-6)
    assert average.model[1].num_batches_tracked == 30  # type: ignore[union-attr]


class Tied(nn.Module):
    """Two layers with one weight, and a mask that makes a class impossible."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.mask: torch.Tensor
        self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))


def test_the_moving_average_moves_tied_weights_once_and_leaves_masks_alone() -> None:
    model = Tied()
    before = model.first.weight.detach().clone()
    average = WeightAverage(model, decay=0.9)
    with torch.no_grad():
        model.first.weight += 1
    average.update(model)
    assert isinstance(average.model, Tied)
    assert average.model.second.weight is average.model.first.weight
    torch.testing.assert_close(average.model.first.weight, before + 0.9)  # the first step's decay is 1 / 10
    assert torch.equal(average.model.mask, model.mask)


def test_the_moving_average_is_what_is_judged_and_kept(tmp_path: Path) -> None:
    plain, averaged = net(), net()
    run(tmp_path / "plain", model=plain, validation=None)
    model = averaged
    result = run(tmp_path / "ema", model=model, ema=0.8)
    state = torch.load(tmp_path / "ema" / "checkpoint.pt", weights_only=True)["state"]["learners"][0]
    if result.kept_epoch == 4:
        for name, value in load_file(result.weights).items():
            assert torch.equal(value, state["average"]["model"][name])
    assert any(not torch.equal(state["model"][n], state["average"]["model"][n]) for n in state["model"])
    data = examples(seed=1, rows=60)
    predicted = model.eval()(data.inputs).argmax(dim=-1)
    assert int((predicted != data.labels)[data.labels >= 0].sum()) == result.scores["errors"]


def test_clipping_bounds_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """One step of SGD with rate 1 moves the weights by exactly the bound, however the batch is cut."""
    for micro in (None, 7):
        model = nn.Linear(12, 5)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        run(
            tmp_path / str(micro), model=model, clip_norm=1e-2, epochs=1, micro_batch=micro, scheduler=None,
            optimizer=ObjectSpec("torch.optim.SGD", {"lr": 1.0}), validation=None, batch_size=150,
            train=MemoryBatches(examples(), 150),
        )  # fmt: skip
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert (after - before).norm().item() == pytest.approx(1e-2, rel=1e-3)


def test_units_stay_within_the_norm(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))
    run(tmp_path, model=model, max_norm=0.4, optimizer=SGD, scheduler=None, keep="last")
    norms = torch.cat([layer.weight.norm(dim=1) for layer in (model[0], model[2])])  # type: ignore[union-attr, operator]
    assert norms.max() <= 0.4 + 1e-6
    assert norms.max() > 0.39
    assert model[2].bias.norm() > 0  # type: ignore[union-attr, operator]


class Seeing(nn.Module):
    """Remembers in which dtype its layer computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)
        self.seen: set[torch.dtype] = set()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs)
        self.seen.add(logits.dtype)
        return logits


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_is_that_of_the_forward_pass_alone(tmp_path: Path, precision: str) -> None:
    model = Seeing()
    result = run(tmp_path, model=model, precision=precision, optimizer=SGD)
    assert model.seen == {getattr(torch, precision)}
    assert {value.dtype for value in load_file(result.weights).values()} == {torch.float32}
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["learners"][0]
    assert bool(state["scaler"]) == (precision == "float16")
    assert result.scores["errors"] < 0.7 * result.scores["labelled"]


def test_keep_last_keeps_the_last_epoch_though_another_was_better(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 12, "optimizer": ObjectSpec("torch.optim.SGD", {"lr": 0.9}), "scheduler": None}
    better = 0
    for seed in range(4):
        best = run(tmp_path / f"best{seed}", seed=seed, **options)
        last = run(tmp_path / f"last{seed}", seed=seed, keep="last", **options)
        assert last.kept_epoch == 12
        *epochs, end = lines(tmp_path / f"last{seed}")
        assert end["validation_loss"] == epochs[-1]["validation_loss"]
        better += best.kept_epoch < 12
        same = best.weights.read_bytes() == last.weights.read_bytes()
        assert same == (best.kept_epoch == 12)
    assert better > 0
