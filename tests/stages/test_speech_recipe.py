"""The recipe `speech` on sounds of our own: what it names, by the commands, on a few tones."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from softlabels.models import ModelConfig, build_model
from softlabels.store import open_store
from softlabels_stages import teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load
from tests.transfer.test_sound import wav

SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]


def digit(rng: np.random.Generator, label: int, voice: int) -> bytes:
    """A tone whose pitch rises or falls as its digit says, in a voice of its own, of a random length."""
    time = np.arange(rng.integers(1000, 2600)) / 8000
    pitch = 300 + 15 * voice + 400 * (label % 5)
    slope = 1500 if label < 5 else -500
    tone = np.sin(2 * np.pi * (pitch * time + slope * time**2)) + 0.1 * rng.normal(size=len(time))
    return wav(8000 * tone)


@pytest.fixture
def small(work: Path, rng: np.random.Generator) -> list[str]:
    """Words for every command: the recipe on 240 sounds, with small teachers and few epochs."""
    rows = [(take, who, label) for take in range(4) for who in range(6) for label in range(10)]
    columns = {
        "audio": [{"bytes": digit(rng, label, who), "path": None} for _, who, label in rows],
        "label": [label for *_, label in rows],
        "speaker": [SPEAKERS[who] for _, who, _ in rows],
        "take": [take for take, *_ in rows],
    }
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=[str(label) for label in range(10)]),
            "speaker": datasets.Value("string"),
            "take": datasets.Value("int32"),
        }
    )
    (work / "sounds").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(work / "sounds" / "all.parquet")
    recipe = load("speech")
    for member in recipe["teacher"]["members"]:
        member["init_args"] |= {"channels": [16], "features": 20, "dropout": 0}
    return [
        "--transfer_set.source=./sounds",
        "--transfer_set.prepare.init_args={rate: 8000, frames: 24, mels: 20}",
        f"--teacher.members={json.dumps(recipe['teacher']['members'])}",
    ]


def test_from_sounds_to_students(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config=speech", *small]
    quick = ["--teacher_training.epochs=12", "--teacher_training.batch_size=32"]
    assert train_teacher.main([*words, *quick]) == 0
    assert teacher_logits.main(words) == 0
    assert (open_store("stores/speech", split="train").rows, open_store("stores/speech", split="test").rows) == (
        160,
        80,
    )
    student = ["--student.init_args={features: 20, channels: [12], classes: 10}", "--epochs=8", "--batch_size=32"]
    words = ["--config=speech", *small[:2], *student, "--seeds=0,1", "--out=run"]
    capsys.readouterr()
    assert train_student.main(words) == 0
    assert "hard - distilled" in capsys.readouterr().out
    results = json.loads(Path("run/results.json").read_text())
    assert results["teacher"]["ensemble"][0]["accuracy"] > 0.5
    assert results["rows"] == 80


def test_the_student_is_under_128_kb() -> None:
    recipe = load("speech")
    state = build_model(ModelConfig(**recipe["student"])).state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) < 128_000
