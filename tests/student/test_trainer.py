"""The training loop: what reaches the loss, what is kept, what the folder holds, how a run stops and goes on."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional

from softlabels.errors import (
    ConfigError,
    DamagedStore,
    DiskFull,
    Interrupted,
    LogitsError,
    RunExists,
    SpecMismatch,
)
from softlabels.labels.ensemble import log_probs
from softlabels.labels.soft import SoftLabels
from softlabels.objects import ObjectSpec
from softlabels.stream.batch import Batch
from softlabels.student.checkpoint import load_checkpoint, save_checkpoint
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.losses import distillation_loss
from softlabels.student.metrics import Metrics
from softlabels.student.trainer import Trainer
from softlabels.system.local import LocalFolder
from tests.student import batches
from tests.student.runs import CLASSES, COSINE, INPUTS, MemoryBatches, examples, net, run, take, trainer

ADAM = ObjectSpec("torch.optim.AdamW", {"lr": 0.01})
SGD = ObjectSpec("torch.optim.SGD", {"lr": 0.5})


def lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    text = (folder / "metrics.jsonl").read_text()
    found = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    for line in found:
        line.pop("times", None)
    return found


def linear() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(INPUTS, CLASSES)


class NoBatches(MemoryBatches):
    """A loader that must not be read."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        raise AssertionError("batches were read")


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0, "alpha": 1.0},
        {"temperature": 7.0, "alpha": 0.6},
        {"temperature": 7.0, "hard_weight": 2.0, "soft_weight": 0.5},
        {"temperature": 3.0, "alpha": 0.6, "mean": "geometric"},
        {"temperature": 3.0, "alpha": 0.6, "loss": "reverse_kl"},
        {},
    ],
)
def test_every_setting_of_the_loss_reaches_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    """One step of plain SGD against the same step written by hand."""
    data = examples(rows=40)
    model, by_hand = linear(), linear()
    whole = MemoryBatches(data, 40, seed=None)
    run(
        tmp_path, model=model, epochs=1, batch_size=40, optimizer=SGD, scheduler=None, train=whole, validation=None,
        **changes,
    )  # fmt: skip

    temperature = changes.get("temperature", 4.0)
    soft_weight = changes.get("soft_weight", changes.get("alpha", 0.9))
    hard_weight = changes.get("hard_weight", 1 - soft_weight)
    assert data.soft is not None
    teacher = log_probs(data.soft.members.logits.double().numpy(), temperature, changes.get("mean", "arithmetic"))
    log_p = torch.tensor(teacher).float()
    z = by_hand(data.inputs)
    log_q = torch.log_softmax(z / temperature, dim=-1)
    sides = (log_p, log_q) if changes.get("loss") == "reverse_kl" else (log_q, log_p)
    kl = functional.kl_div(*sides, log_target=True, reduction="batchmean")
    loss = hard_weight * functional.cross_entropy(z, data.labels, ignore_index=-1) + soft_weight * temperature**2 * kl
    loss.backward()
    torch.optim.SGD(by_hand.parameters(), lr=0.5).step()
    assert lines(tmp_path)[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-4)
    for got, want in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_micro_batches_do_not_change_the_step(tmp_path: Path) -> None:
    weights = []
    for micro in (None, 32, 7, 1):
        result = run(tmp_path / str(micro), model=linear(), micro_batch=micro, epochs=2)
        weights.append(load_file(result.weights)["weight"])
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-6)


def test_hard_labels_alone_need_no_store_and_look_at_no_soft_labels(tmp_path: Path) -> None:
    class Untouchable(SoftLabels):
        def log_probs(self, temperature: float, mean: str = "arithmetic") -> torch.Tensor:
            raise AssertionError("soft labels were computed")

        def __getitem__(self, index: object) -> SoftLabels:
            raise AssertionError("soft labels were cut")

        def to(self, device: object) -> SoftLabels:
            return self

    data = examples()
    plain = MemoryBatches(batches.plain(data.inputs, data.labels, None, data.rows), 32)
    options = {"alpha": 0.0, "validation": plain, "epochs": 8, "optimizer": ADAM}
    without = run(tmp_path / "without", train=plain, **options)
    assert "kl" not in without.scores
    assert "agreement" not in without.scores
    assert without.scores["errors"] < 0.6 * without.scores["labelled"]

    class Carrying(MemoryBatches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for batch in super().epoch(epoch, start):
                yield batches.plain(batch.inputs, batch.labels, Untouchable(*(torch.zeros(0),) * 3), batch.rows)

    carried = Carrying(batches.plain(data.inputs, data.labels, None, data.rows), 32)
    with_store = run(tmp_path / "with", train=carried, **options)
    assert with_store.weights.read_bytes() == without.weights.read_bytes()


def test_a_soft_loss_without_a_store_is_refused(tmp_path: Path) -> None:
    data = examples()
    plain = MemoryBatches(batches.plain(data.inputs, data.labels, None, data.rows), 32)
    with pytest.raises(ConfigError, match=r"needs soft labels.*store"):
        run(tmp_path, train=plain)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    model = net()
    options = {"epochs": 12, "optimizer": ObjectSpec("torch.optim.SGD", {"lr": 0.9}), "scheduler": None}
    best_epochs = set()
    for seed in range(4):
        result = run(tmp_path / str(seed), model=model, seed=seed, **options)
        *epochs, end = lines(tmp_path / str(seed))
        losses = [line["validation_loss"] for line in epochs]
        assert result.kept_epoch == 1 + int(np.argmin(losses))
        assert result.kept_validation == min(losses)
        best_epochs.add(result.kept_epoch)
        kept = epochs[result.kept_epoch - 1]
        assert end == {
            "end": True,
            "kept_epoch": result.kept_epoch,
            "steps": 60,
            "validation_loss": min(losses),
            **result.scores,
        }
        assert {name: kept[name] for name in result.scores} == dict(result.scores)
        of_file = net()
        of_file.load_state_dict(load_file(result.weights))
        for m in (of_file, model):  # the file's weights, and what the model holds when `run` returns
            m.eval()
            data = examples(seed=1, rows=60)
            predicted = m(data.inputs).argmax(dim=-1)
            labelled = data.labels >= 0
            assert int((predicted != data.labels)[labelled].sum()) == result.scores["errors"]
    assert best_epochs != {12}


def test_of_equal_epochs_the_first_is_kept(tmp_path: Path) -> None:
    still = ObjectSpec("torch.optim.SGD", {"lr": 0.0})
    assert run(tmp_path, model=linear(), optimizer=still, scheduler=None).kept_epoch == 1


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    model = net()
    result = run(tmp_path, model=model, validation=None)
    assert (result.kept_epoch, result.kept_validation, result.scores) == (4, None, {})
    final = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]["learners"][0]["model"]
    for name, tensor in load_file(result.weights).items():
        assert torch.equal(tensor, final[name]), name
    assert "validation_loss" not in lines(tmp_path)[0]


@pytest.mark.parametrize("mean", ["geometric", "tempered"])
@pytest.mark.parametrize("loss", ["forward_kl", "soft_ce"])
def test_validation_takes_the_mean_and_the_loss_that_are_trained(tmp_path: Path, mean: str, loss: str) -> None:
    model, data = net(), examples(seed=1, rows=60)
    result = run(tmp_path, model=model, mean=mean, loss=loss, alpha=0.7, temperature=2.0, epochs=1)
    with torch.no_grad():
        logits = model.eval()(data.inputs)
    options = {"temperature": 2.0, "hard_weight": 0.3, "soft_weight": 0.7, "loss": loss, "mean": mean}
    expected = distillation_loss(logits, data.soft, data.labels, **options)
    assert result.kept_validation == pytest.approx(expected.item(), rel=1e-5)
    metrics = Metrics((2.0,), mean)
    metrics.update(logits, data.labels, data.soft)
    assert result.scores["kl"] == pytest.approx(metrics.result()["kl"], rel=1e-5)


def test_the_validation_loss_is_that_of_the_whole_split_at_once(tmp_path: Path) -> None:
    data = examples(seed=5, rows=61, unlabelled=2)
    losses = []
    for size in (61, 20, 3):
        held_out = MemoryBatches(data, size, seed=None)
        run(tmp_path / str(size), validation=held_out, epochs=1)
        losses.append(lines(tmp_path / str(size))[0]["validation_loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_metrics_are_strict_json_with_the_agreed_names(tmp_path: Path) -> None:
    run(tmp_path, temperature=2.5)
    *epochs, end = lines(tmp_path)
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    assert [line["step"] for line in epochs] == [5, 10, 15, 20]
    names = {"errors", "accuracy", "nll", "ece", "brier", "agreement", "kl", "labelled", "rows"}
    for line in epochs:
        assert set(line) == names | {"epoch", "step", "train_loss", "validation_loss", "lr"}
        assert set(line["kl"]) == {"1", "2.5"}
    assert names < set(end)


def test_the_schedule_is_stepped_once_a_step_over_the_whole_run(tmp_path: Path) -> None:
    run(tmp_path, micro_batch=5)
    want = [1e-3 * (1 + math.cos(math.pi * step / 20)) / 2 for step in (5, 10, 15, 20)]
    assert [line["lr"] for line in lines(tmp_path)[:-1]] == pytest.approx(want, abs=1e-12)


def test_stopped_at_any_step_and_gone_on_is_never_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    for stops in ([0], [1], [4], [5], [6], [19], [3, 1, 7], [5, 5, 5], [1] * 18):
        folder = tmp_path / f"stopped{stops}"
        done = 0
        for stop in stops:
            asked = iter(range(stop + 1))
            with pytest.raises(Interrupted, match=rf"epoch {(done + stop) // 5 + 1} of 4, after step {done + stop};"):
                run(folder, lambda asked=asked: next(asked) == stop)  # noqa: B023
            done += stop
        result = run(folder)
        assert result.weights.read_bytes() == whole.weights.read_bytes(), stops
        assert lines(folder) == lines(tmp_path / "whole"), stops
        assert (result.kept_epoch, result.kept_validation, result.scores, result.steps) == (
            whole.kept_epoch,
            whole.kept_validation,
            whole.scores,
            whole.steps,
        )


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [
        ("SGD", ObjectSpec("torch.optim.lr_scheduler.MultiStepLR", {"milestones": [4, 9]})),
        ("RMSprop", ObjectSpec("torch.optim.lr_scheduler.OneCycleLR", {"max_lr": 0.01, "total_steps": "total_steps"})),
        ("Adam", ObjectSpec("torch.optim.lr_scheduler.LinearLR", {"total_iters": "total_steps"})),
        ("Adagrad", None),
    ],
)
def test_other_optimizers_and_schedules_go_on_alike(
    tmp_path: Path, optimizer: str, scheduler: ObjectSpec | None
) -> None:
    options = {"optimizer": ObjectSpec(f"torch.optim.{optimizer}", {"lr": 0.01}), "scheduler": scheduler}
    whole = run(tmp_path / "whole", **options)
    asked = iter(range(8))
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", lambda: next(asked) == 7, **options)
    assert run(tmp_path / "stopped", **options).weights.read_bytes() == whole.weights.read_bytes()
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def test_checkpoints_every_third_epoch_end_alike(tmp_path: Path) -> None:
    """The folder's log runs ahead of the checkpoint; a death there must leave no line twice."""

    class Dying(MemoryBatches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            if epoch == 5:
                raise KeyboardInterrupt
            return super().epoch(epoch, start)

    options = {"epochs": 7, "checkpoint_every": 3}
    run(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "died", train=Dying(examples(), 32), **options)
    assert len(lines(tmp_path / "died")) == 5
    run(tmp_path / "died", **options)
    assert lines(tmp_path / "died") == lines(tmp_path / "whole")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("died", "whole")]
    assert weights[0] == weights[1]


def test_tensorboard_shows_each_epoch_once_after_a_death(tmp_path: Path) -> None:
    test_checkpoints_every_third_epoch_end_alike(tmp_path)
    events = EventAccumulator(str(tmp_path / "died" / "tensorboard"))
    events.Reload()
    *epochs, _ = lines(tmp_path / "died")
    for name in ("train_loss", "validation_loss", "errors", "lr"):
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [line["step"] for line in epochs]
        assert [event.value for event in scalars] == pytest.approx([line[name] for line in epochs], rel=1e-6)
    assert [event.value for event in events.Scalars("kl/4")] == pytest.approx([line["kl"]["4"] for line in epochs])


def test_a_run_that_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    held = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}
    model = net()
    idle = NoBatches(examples(), 32)
    again = run(tmp_path, model=model, train=idle)
    assert again == first
    assert held == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()
    }
    for name, tensor in load_file(first.weights).items():
        assert torch.equal(model.state_dict()[name], tensor), name
    content = first.weights.read_bytes()
    first.weights.unlink()
    run(tmp_path, train=idle)
    assert first.weights.read_bytes() == content


def test_another_run_is_refused_and_each_difference_named(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(SpecMismatch) as caught:
        run(tmp_path, temperature=8.0, identity={"store": "xyz", "student": {"width": 3}}, scheduler=None)
    message = str(caught.value)
    assert "training.temperature: 4.0 here, 8.0 in this run" in message
    assert 'store: "abc" here, "xyz" in this run' in message
    assert 'student: null here, {"width":3} in this run' in message
    assert "training.scheduler: " in message
    assert "training.epochs" not in message
    with pytest.raises(SpecMismatch, match=r"order\.train: .*150 rows.*100 rows"):
        run(tmp_path, train=MemoryBatches(examples(rows=100), 32))
    with pytest.raises(SpecMismatch, match=r"order\.validation: .*60 rows.* here, null in"):
        run(tmp_path, validation=None)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    run(tmp_path, checkpoint_every=2)  # how often to save is no part of what is trained


def test_the_folder_belongs_to_the_run_from_its_first_step(tmp_path: Path) -> None:
    def stop_before(step: int) -> Callable[[], bool]:
        asked = iter(range(step + 1))
        return lambda: next(asked) == step

    with pytest.raises(Interrupted):
        run(tmp_path, stop_before(0))
    with pytest.raises(Interrupted):
        run(tmp_path, stop_before(1), seed=1)
    with pytest.raises(SpecMismatch, match=rf"seed: 1 here, 0 in this run.*to begin anew, delete {tmp_path} or"):
        run(tmp_path)
    assert run(tmp_path, seed=1).steps == run(tmp_path / "alone", seed=1).steps
    assert (tmp_path / "weights.safetensors").read_bytes() == (tmp_path / "alone/weights.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["metrics.jsonl", "weights.safetensors"])
def test_files_of_something_else_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunExists, match=rf"holds {name} but no checkpoint.pt.*another run folder"):
        run(tmp_path)
    found = [(path.name, path.read_text()) for path in tmp_path.iterdir() if path.name != ".lock"]
    assert found == [(name, "mine")]


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle"])
def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    evil = b"cos\nsystem\n(S'exit 1'\ntR."
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"hello", "pickle": evil}[damage])
    with pytest.raises(DamagedStore, match=r"checkpoint\.pt is no checkpoint that can be read.*train again"):
        run(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    wild = ObjectSpec("torch.optim.SGD", {"lr": 1e30})
    with pytest.raises(LogitsError, match=r"training loss is (nan|inf) .*step \d+; lower the learning rate"):
        run(tmp_path, optimizer=wild, scheduler=None, model=nn.Sequential(linear(), nn.Linear(CLASSES, CLASSES)))


class BreaksAtTheEnd(nn.Module):
    """A finite loss with a gradient of NaN, at the last of 20 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(INPUTS, CLASSES)
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs)
        self.calls += 1
        return logits + (0 * logits).sqrt() if self.calls == 20 else logits


def test_weights_that_the_last_step_broke_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(LogitsError, match=r"layer\.weight is not finite after the last step"):
        run(tmp_path, model=BreaksAtTheEnd(), validation=None)
    assert not (tmp_path / "weights.safetensors").exists()


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    bare = MemoryBatches(examples(unlabelled=1), 32)
    with pytest.raises(ConfigError, match="no training row has a hard label"):
        run(tmp_path / "a", alpha=0.0, train=bare)
    with pytest.raises(ConfigError, match="no validation row has a hard label"):
        run(tmp_path / "b", alpha=0.0, validation=bare)
    run(tmp_path / "c", alpha=0.9, train=bare, validation=bare)  # a transfer set without labels distils all the same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": ObjectSpec("torch.optim.AdamW", {"lr": -1.0})},
            r"refuses \{'lr': -1.0\}.*Invalid learning rate",
        ),
        ({"optimizer": ObjectSpec("torch.optim.AdamW", {"speed": 1.0})}, "speed"),
        ({"optimizer": ObjectSpec("torch.optim.Adamm")}, "Adamm"),
        ({"optimizer": ObjectSpec("builtins.list")}, "is no Optimizer"),
        ({"scheduler": ObjectSpec("torch.optim.lr_scheduler.ReduceLROnPlateau")}, "CosineAnnealingLR"),
        ({"optimizer": ObjectSpec("torch.optim.LBFGS")}, "torch.optim.LBFGS evaluates the loss several times"),
        ({"scheduler": ObjectSpec("builtins.id")}, "is no LRScheduler"),
        ({"device": "cuda:99"}, "device is cuda:99"),
    ],
)
def test_what_cannot_be_built_is_a_config_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_run_resumable(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    asked = iter(range(8))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", lambda: next(asked) == 7)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "run" / "checkpoint.pt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(DiskFull, match=r"checkpoint\.pt"):
            run(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run(tmp_path / "run").weights.read_bytes() == whole.weights.read_bytes()


@pytest.mark.parametrize("limit", [100, 20_000, 300_000, 3_000_000])
def test_a_full_disk_is_named_wherever_in_a_large_checkpoint_it_is_met(tmp_path: Path, limit: int) -> None:
    save_checkpoint(LocalFolder(tmp_path), {"weights": torch.zeros(3)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DiskFull, match=r"cannot write .*checkpoint\.pt"):
            save_checkpoint(LocalFolder(tmp_path), {"weights": [torch.rand(50_000) for _ in range(20)]}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = load_checkpoint(LocalFolder(tmp_path), {})
    assert found is not None
    assert torch.equal(found[0]["weights"], torch.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]  # what was half written takes no room


def test_what_was_set_in_torch_is_set_again_after_a_run(tmp_path: Path) -> None:
    seen = []

    class Watching(MemoryBatches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            return super().epoch(epoch, start)

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    run(tmp_path, threads=2, train=Watching(examples(), 32))
    assert set(seen) == {(2, True)}
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_distilled_learns(tmp_path: Path) -> None:
    few = examples(rows=300, unlabelled=1)
    result = run(tmp_path, train=MemoryBatches(few, 32), epochs=15, optimizer=ADAM)
    *epochs, _ = lines(tmp_path)
    assert epochs[-1]["train_loss"] < 0.75 * epochs[0]["train_loss"]
    assert result.scores["agreement"] > 0.6
    assert result.scores["errors"] < 0.5 * result.scores["labelled"]


def test_the_stand_in_loader_starts_where_it_is_told() -> None:
    loader = MemoryBatches(examples(), 32)
    whole, rest = (np.concatenate([batch.rows for batch in loader.epoch(3, start)]) for start in (0, 2))
    np.testing.assert_array_equal(whole[64:], rest)
    assert sorted(whole) == list(range(150))
    assert (whole != np.concatenate([batch.rows for batch in loader.epoch(4)])).any()
    assert take(examples(), np.array([2])).rows.tolist() == [2]
    assert COSINE.init_args == {"T_max": "total_steps"}


def test_batch_norm_over_a_single_row_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch norm cannot take its variance; choose a batch_size"):
        run(tmp_path / "batch", train=MemoryBatches(examples(rows=33), 32))
    with pytest.raises(ConfigError, match="micro_batch"):
        run(tmp_path / "micro", micro_batch=31)


def test_a_model_that_learns_nothing(tmp_path: Path) -> None:
    """Its outputs do not depend on its parameters."""

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.net(inputs).detach())

    students = [Student.begin("", TrainingConfig(epochs=1), Detached)]
    with pytest.raises(ConfigError, match="outputs carry no gradient"):
        Trainer(students, MemoryBatches(examples(), 32), None, tmp_path / "run", {}).run()
