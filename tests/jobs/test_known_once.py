"""Labels that are known at one temperature alone: judged and trained on there, refused elsewhere, a bound where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import ModelConfig, StoreWriter, StudentTraining, array_keys, judge, open_store, store_spec, train
from softlabels.errors import ConfigError
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding
from softlabels.labels.lost import Lost
from softlabels.labels.topk_known import known_columns, known_encoding
from softlabels.report.comparison import comparison_text
from softlabels_stages import evaluate, train_student

ROWS, CLASSES, K, T = 48, 6, 3, 2.0
STUDENT = ModelConfig("softlabels.models.MLP", {"inputs": 4, "hidden": [8], "classes": CLASSES})
BRIEF: dict[str, Any] = {"epochs": 2, "seeds": (0,), "batch_size": 16, "device": "cpu", "threads": 1}


def store_of(path: Path, encoding: Encoding, z: np.ndarray, labels: np.ndarray, inputs: np.ndarray) -> Path:
    """Of logits (R, C) whose distribution at T is known; both splits hold the same rows."""
    import torch

    for split in ("train", "test"):
        spec = store_spec(
            encoding, teacher="t", name="rows", keys=array_keys(inputs), classes=CLASSES, split=split, embed=inputs,
            labelled=encoding.target == "sigmoid",
        )  # fmt: skip
        if encoding.keeps_all:
            columns, _ = encoding.encode(torch.from_numpy(z)[:, None])
        else:
            log_p = z / T - np.log(np.exp(z / T).sum(-1, keepdims=True))
            ids = np.argsort(-log_p, axis=-1)[:, :K]
            own = np.take_along_axis(log_p, labels[:, None], -1)[:, 0]
            columns = dict(known_columns(encoding, CLASSES, ids, np.take_along_axis(log_p, ids, -1), own))  # type: ignore[arg-type]  # topk
        hard: Any = labels if encoding.target == "softmax" else np.eye(CLASSES, dtype=np.int8)[labels]
        with StoreWriter(path / split, spec) as writer:
            writer.write_columns(
                0, keys=array_keys(inputs), labels=hard, columns=columns, inputs=inputs, fidelity=Lost()
            )
            writer.seal()
    return path


@pytest.fixture
def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z = rng.normal(size=(ROWS, CLASSES)) * 3
    return z, z.argmax(-1), rng.normal(size=(ROWS, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "encoding",
    [
        known_encoding(K, T),
        pytest.param(DenseEncoding(known_at=T), marks=pytest.mark.slow),
        pytest.param(SigmoidEncoding(known_at=T), marks=pytest.mark.slow),
    ],
    ids=lambda each: each.kind,
)
def test_students_learn_and_all_are_judged_there(
    encoding: Encoding, tmp_path: Path, rows: tuple[np.ndarray, ...]
) -> None:
    store = store_of(tmp_path / "store", encoding, *rows)
    loss = "bce" if encoding.target == "sigmoid" else "forward_kl"
    with pytest.raises(ConfigError, match="known at temperature 2 only, not at 4"):
        train(STUDENT, store, StudentTraining(**BRIEF, loss=loss), out=tmp_path / "run")
    run = train(STUDENT, store, StudentTraining(**BRIEF, temperature=(T,), loss=loss), out=tmp_path / "run")
    assert run.results["temperatures"] == [T]
    teacher = run.results["teacher"]["ensemble"][0]
    assert teacher["kl"] == {"2": pytest.approx(0, abs=1e-6)}
    assert "KL at T=2" in comparison_text(run.results)
    assert "KL at T=1" not in comparison_text(run.results)
    for student in run.results["students"]:
        assert [*student["scores"][0]["kl"]] == ["2"]
    [judged] = judge(store).values()
    assert judged["kl"] == teacher["kl"]
    if encoding.target == "softmax":  # the teacher is held against hard labels at the temperature at which it is known
        z, labels, _ = rows
        log_p = z / T - np.log(np.exp(z / T).sum(-1, keepdims=True))
        assert judged["nll"] == pytest.approx(-np.take_along_axis(log_p, labels[:, None], -1).mean(), abs=2e-3)
        assert judged["errors"] == 0
    with pytest.raises(ConfigError, match="not at 4"):
        judge(store, temperature=4.0)


@pytest.mark.slow
def test_a_sweep_and_a_loss_at_1(tmp_path: Path, rows: tuple[np.ndarray, ...]) -> None:
    store = store_of(tmp_path / "store", DenseEncoding(known_at=T), *rows)
    swept = StudentTraining(**BRIEF, temperature=(T,), alpha=(0.5, 0.9))
    text = comparison_text(train(STUDENT, store, swept, out=tmp_path / "run").results)
    assert "KL at T=2" in text
    with pytest.raises(ConfigError, match="known at temperature 2 only, not at 1"):
        train(STUDENT, store, StudentTraining(**BRIEF, temperature=(T,), loss="nkd"), out=tmp_path / "nkd")


def test_a_bound_is_asked_for_by_name(
    tmp_path: Path, rows: tuple[np.ndarray, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "store", known_encoding(K, T), *rows)
    line = "tail_bound: labels known at T=2 alone: at higher T the mass of their tail is an upper bound"
    words = [f"--store={store}", "--temperature=4", "--training.device=cpu"]
    assert evaluate.main(words) == 2
    assert "tail_bound=true gives a bound at higher ones" in capsys.readouterr().err
    assert evaluate.main([*words, "--training.tail_bound=true"]) == 0
    shown = capsys.readouterr()
    assert line in shown.err
    assert "KL at T=4" in shown.out
    others = "the teacher is not known at T=1: its NLL, ECE and Brier are those of T=2"
    assert all(f"\n{each}\n" in shown.out for each in (line.removeprefix("tail_bound: "), others))
    student = [
        "--student.class_path=softlabels.models.MLP",
        '--student.init_args={"inputs": 4, "hidden": [8], "classes": 6}',
    ]
    brief = ["--epochs=1", "--seeds=0", "--batch_size=16", "--device=cpu", "--threads=1", "--temperature=4"]
    assert train_student.main([str(store), *student, *brief, f"--out={tmp_path / 'stage'}"]) == 2
    assert train_student.main([str(store), *student, *brief, "--tail_bound=true", f"--out={tmp_path / 'stage'}"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count(line) == 1
    assert "KL at T=2  KL at T=4" in shown.out
    for page in (shown.out, *((tmp_path / "stage" / name).read_text() for name in ("results.md", "README.md"))):
        assert all(each in page for each in (line.removeprefix("tail_bound: "), others))
    with pytest.raises(ConfigError, match="from 2 up, not at 1"):
        judge(store, training=StudentTraining(tail_bound=True), temperature=1.0)
    with pytest.raises(ConfigError, match="have no bound at other temperatures"):
        open_store(store_of(tmp_path / "dense", DenseEncoding(known_at=T), *rows), split="train", tail_bound=True)


@pytest.mark.slow
def test_tails_that_are_known_above_1_alone_serve_there(tmp_path: Path, rows: tuple[np.ndarray, ...]) -> None:
    import msgspec
    from msgspec import UNSET

    store = store_of(tmp_path / "store", msgspec.structs.replace(known_encoding(K, T), known_at=UNSET), *rows)
    run = train(STUDENT, store, StudentTraining(**BRIEF, temperature=(4.0,)), out=tmp_path / "run")
    assert run.results["temperatures"] == [2.0, 4.0]
