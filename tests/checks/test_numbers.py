"""Numbers that float32 does not reach: a common offset, temperatures at every door that takes one, impossible classes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.jobs import possible
from softlabels.labels.ensemble import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, log_probs
from softlabels.labels.soft import SoftLabels
from softlabels.store import open_store
from softlabels.student.config import TrainingConfig
from softlabels.student.fused import linear_distillation_loss
from softlabels.student.learner import Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.losses import distillation_loss
from softlabels.transfer import array_keys
from softlabels_stages import evaluate, train_student
from tests.checks import samples
from tests.checks.recipes import write_recipe
from tests.checks.samples import CLASSES, exact, softmax, some_rows
from tests.labels.dense_reference import dense_columns

BEYOND = (1e6, 1e30, 1e-30, 1025.0, 1 / 1025)
WHAT = "is beyond the range of float32"


def soft_of(z: np.ndarray) -> SoftLabels:
    """Labels (B, M, C) as a store keeps them."""
    dense, members = dense_columns(z), z.shape[1]
    return SoftLabels.dense(torch.tensor(dense.logits), torch.tensor(dense.shift), torch.full((members,), 1 / members))


def loss_of(z: torch.Tensor, soft: SoftLabels, **settings: object) -> torch.Tensor:
    options = {"temperature": 1.0, "hard_weight": 0.0, "soft_weight": 1.0} | settings
    return distillation_loss(z, soft, torch.full((len(z),), -1), **options)  # type: ignore[arg-type]


def test_the_hard_term_of_a_student_in_float64(rng: np.random.Generator) -> None:
    z, labels = rng.normal(size=(30, CLASSES)), rng.integers(0, CLASSES, 30)
    expected = -np.log(softmax(z))[np.arange(30), labels].mean()
    found = distillation_loss(
        torch.tensor(z + 1e6), None, torch.tensor(labels), temperature=1.0, hard_weight=1.0, soft_weight=0.0
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("of", ["teacher", "student", "both", "one member"])
def test_logit_mse_with_a_common_offset(rng: np.random.Generator, of: str, members: int) -> None:
    """The loss and its gradient, against float64 of the stored labels."""
    teacher = rng.integers(-40, 40, (30, members, CLASSES)) / 8.0
    student = rng.integers(-40, 40, (30, CLASSES)) / 8.0
    gap = student - teacher.mean(axis=1)
    gap -= gap.mean(axis=1, keepdims=True)
    expected = (gap**2).sum() / (2 * CLASSES) / 30
    shifted = teacher + (0 if of == "student" else 1e6)
    if of == "one member":
        shifted = teacher.copy()
        shifted[:, 0] += 1e6
    z = torch.tensor(student + (1e6 if of in ("student", "both") else 0), dtype=torch.float32, requires_grad=True)
    found = loss_of(z, soft_of(shifted), loss="logit_mse")
    found.backward()
    assert z.grad is not None
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert np.abs(z.grad.numpy() - gap / CLASSES / 30).max() < 1e-6


@pytest.mark.parametrize("loss", ["logit_mse", "forward_kl"])
def test_a_student_in_float64(rng: np.random.Generator, loss: str) -> None:
    teacher, student = rng.normal(size=(20, 1, CLASSES)), rng.normal(size=(20, CLASSES))
    near = loss_of(torch.tensor(student), soft_of(teacher), loss=loss).item()
    assert loss_of(torch.tensor(student + 1e6), soft_of(teacher), loss=loss).item() == pytest.approx(near, rel=1e-5)


@pytest.mark.parametrize("temperature", [LOWEST_TEMPERATURE, 0.1, 1.0, 100.0, HIGHEST_TEMPERATURE])
@pytest.mark.parametrize("classes", [3, 1000])
def test_what_is_reached_is_right(rng: np.random.Generator, temperature: float, classes: int) -> None:
    """Loss and gradient to a thousandth, against float64 of the stored labels."""
    teacher, student = rng.normal(size=(32, 1, classes)) * 3, rng.normal(size=(32, classes)) * 3
    soft = soft_of(teacher)
    z = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    value = loss_of(z, soft, temperature=temperature)
    value.backward()
    stored = dense_columns(teacher).logits[:, 0].astype(np.float64) / temperature
    scaled = z.detach().double().numpy() / temperature
    p, q = softmax(stored), softmax(scaled)
    log_p, log_q = (x - x.max(1, keepdims=True) for x in (stored, scaled))
    log_p, log_q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (log_p, log_q))
    expected = temperature**2 * (p * (log_p - log_q)).sum() / 32
    slope = temperature * (q - p) / 32
    assert z.grad is not None
    assert value.item() == pytest.approx(expected, rel=2e-3)
    assert np.linalg.norm(z.grad.numpy() - slope) < 1e-3 * np.linalg.norm(slope)


@pytest.mark.parametrize("temperature", BEYOND)
def test_doors_of_a_python_user(rng: np.random.Generator, work: Path, temperature: float) -> None:
    z, labels = rng.normal(size=(40, CLASSES)), torch.full((40,), -1)
    soft, keys = soft_of(z[:, None]), array_keys(z)
    store = samples.earlier(work / "s", z, keys)
    hidden = torch.randn(40, 4)
    asked = [
        lambda: soft.log_probs(temperature),
        lambda: loss_of(torch.tensor(z), soft, temperature=temperature),
        lambda: linear_distillation_loss(
            hidden, torch.randn(CLASSES, 4), None, soft, labels, LossSpec(temperature), classes=CLASSES
        ),
        lambda: store.log_probs(range(40), temperature=temperature),
        lambda: log_probs(z[:, None], temperature),
        lambda: TrainingConfig(temperature=temperature),
        lambda: TrainingConfig(temperature=f"linear:{temperature}:4"),
        lambda: TrainingConfig(temperature=f"cosine:4:{temperature}"),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(ConfigError, match=WHAT):
            ask()


def test_doors_of_a_command(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = write_recipe(work / "r.yaml")
    for split, values in inputs.items():
        samples.earlier(work / "s" / split, exact(values), array_keys(values), split=split)
    for temperature in ("1e6", "1e-30", "1,1e6", "linear:1e6:4"):
        assert train_student.main(["--config=r.yaml", "--store=s", f"--temperature={temperature}"]) == 2
        assert WHAT in capsys.readouterr().err
    assert evaluate.main(["--config=r.yaml", "--store=s", "--temperature=1e6"]) == 2
    assert WHAT in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["logit_mse", "reverse_kl", "forward_kl"])
def test_impossible_classes_are_refused_before_training(
    work: Path, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = write_recipe(work / "r.yaml")
    for split, values in inputs.items():
        z = exact(values)
        z[::4, 0] = np.where(z[::4].argmax(-1) == 0, z[::4, 0], -np.inf)
        samples.earlier(work / "s" / split, z, array_keys(values), split=split)
        count = int(np.isneginf(z).any(axis=1).sum())
    words = ["--config=r.yaml", "--store=s", f"--loss={loss}", "--alpha=1", "--validation=0", "--out=run"]
    code, said = train_student.main(words), capsys.readouterr()
    if loss == "forward_kl":
        assert code == 0
        return
    count = int(np.isneginf(open_store("s/train").column("logits").astype(float)).any(axis=(1, 2)).sum())
    assert code == 2
    assert f"{count} of 96 rows have a class that is impossible to the teacher (-inf), and {loss} is" in said.err
    assert "--floor" in said.err
    assert "students side by side" not in said.out


def test_the_store_is_looked_at_once_for_all_students(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_recipe(work / "r.yaml")
    for split, values in inputs.items():
        samples.earlier(work / "s" / split, exact(values), array_keys(values), split=split)
    asked: list[int] = []
    real = possible.require_possible

    def counting(students: Sequence[Student], *args: object) -> None:
        asked.append(len(students))
        real(students, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("softlabels.jobs.train.require_possible", counting)
    words = ["--loss=logit_mse", "--alpha=0.5,0.9", "--seeds=0,1", "--validation=0", "--out=run"]
    assert train_student.main(["--config=r.yaml", "--store=s", *words]) == 0
    assert len(asked) == 1
    assert asked[0] >= 4


def test_zeros_are_counted_and_lifted(rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forest of 20 trees, against Laplace's rule in float64."""
    main = import_module("softlabels_stages.import").main
    inputs = some_rows(rng, 60)
    votes = np.stack([rng.multinomial(20, p) for p in softmax(exact(inputs))])
    p = votes / 20
    np.savez("f.npz", probabilities=p, inputs=inputs)
    assert main(["f.npz", "bare/train"]) == 0
    zeros, rows = (p == 0).mean(), (p == 0).any(axis=1).mean()
    assert f"train: {zeros:.1%} of the probabilities are 0, in {rows:.1%} of the rows" in capsys.readouterr().out
    assert open_store("bare/train").manifest.format == 2
    assert main(["f.npz", "laplace/train", "--floor=laplace:20"]) == 0
    assert main(["f.npz", "number/train", "--floor=0.01"]) == 0
    for name, expected in (("laplace", (votes + 1) / (20 + CLASSES)), ("number", 0.01 + (1 - 0.05) * p)):
        store = open_store(f"{name}/train")
        assert store.manifest.format == 3
        assert store.spec.teacher.floor == pytest.approx(1 / (20 + CLASSES) if name == "laplace" else 0.01)
        for temperature in (1.0, 8.0):
            scaled = expected ** (1 / temperature)
            scaled /= scaled.sum(axis=1, keepdims=True)
            found = np.exp(store.log_probs(range(60), temperature=temperature))
            assert np.abs(found - scaled).max() < 1e-3
    for floor in ("0", "0.2", "-1", "laplace:0", "nan", "x"):
        assert main(["f.npz", "bad/train", f"--floor={floor}"]) == 2
        assert f"--floor={floor} of 5 classes" in capsys.readouterr().err
    np.savez("z.npz", logits=exact(inputs), inputs=inputs)
    assert main(["z.npz", "bad/train", "--floor=0.01"]) == 2
    assert "are logits" in capsys.readouterr().err
