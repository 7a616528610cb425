"""The recipes of spoken digits on sounds of our own: what they name, by the commands, on a few tones."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from softlabels.models import ModelConfig, build_model
from softlabels.store import open_store
from softlabels_stages import evaluate, teacher_logits, train_student, train_teacher
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
    return ["--transfer_set.prepare.init_args={rate: 8000, frames: 24, mels: 20}"]


def teachers(recipe: str) -> str:
    """The flag of a recipe's members, made small."""
    members = load(recipe)["teacher"]["members"]
    for member in members:
        member["init_args"] |= {"channels": [16], "features": 20, "dropout": 0}
    return f"--teacher.members={json.dumps(members)}"


@pytest.mark.slow
def test_from_sounds_to_students_of_clips_and_of_frames(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    clips = ["--config=speech", "--transfer_set.source=./sounds", *small]
    quick = ["--epochs=8", "--batch_size=32", "--seeds=0,1"]
    net = {"features": 20, "channels": [12], "classes": 10}
    training = ["--teacher_training.epochs=12", "--teacher_training.batch_size=32"]
    assert train_teacher.main([*clips, teachers("speech"), *training]) == 0
    assert teacher_logits.main([*clips, teachers("speech")]) == 0
    assert train_student.main([*clips, *quick, f"--student.init_args={json.dumps(net)}", "--out=clips"]) == 0
    results = json.loads(Path("clips/results.json").read_text())
    assert (results["rows"], len(results["students"])) == (80, 2)
    assert results["teacher"]["ensemble"][0]["accuracy"] > 0.5

    factory = {"source": "./sounds", "split_column": "speaker", "rate": 8000, "frames": 24}
    frames = ["--config=speech_frames", f"--transfer_set.factory.init_args={json.dumps(factory)}", *small]
    frames.append("--transfer_set.positions={most: 24}")
    assert teacher_logits.main([*frames, teachers("speech_frames")]) == 0
    store = open_store("stores/speech-frames", split="test")
    assert (store.positions, store.spec.ragged, store.rows) == (24, True, 80)
    each = f"--student.init_args={json.dumps(net | {'each_frame': True})}"
    assert train_student.main([*frames, *quick, each, "--out=frames"]) == 0
    capsys.readouterr()
    weights = "frames/distilled-seed0/weights.safetensors"
    assert evaluate.main([weights, *clips, f"--student.init_args={json.dumps(net)}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["labelled"]) == (80, 80)
    assert found["accuracy"] > 0.2  # of ten digits


def test_by_take_and_by_speaker_are_one_recipe() -> None:
    one, other = load("speech"), load("speech_take")
    for recipe in (one, other):
        for name in ("name", "splits", "split_column"):
            recipe["transfer_set"].pop(name, None)
        for member in recipe["teacher"]["members"]:
            del member["weights"]
        del recipe["name"]
    assert one == other


def test_the_student_is_under_128_kb() -> None:
    recipe = load("speech")
    state = build_model(ModelConfig(**recipe["student"])).state_dict()
    assert sum(tensor.numel() * tensor.element_size() for tensor in state.values()) < 128_000
