"""A teacher that fits no single device, by `device_map`: some of its layers in memory and some on disk, fetched when they are
called. Its answers, its digest and its store are the plain model's. GPUs were not tried.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softlabels.errors import ConfigError, MissingExtra, WeightsError
from softlabels.models import CausalLM, ModelConfig, SequenceClassifier, build_model, weights_digest
from softlabels.models.spread import is_spread, placed
from softlabels.models.weights import require_savable
from softlabels.teacher.config import MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels_stages import teacher_logits
from tests.models.hf_samples import CLASSES, DISTILBERT, GPT2, checkpoint
from tests.models.test_hf import TEXT, TEXT_CLASS, no_bars, scaled, tokens
from tests.stages.kills import digests

__all__ = ["no_bars"]
SPREAD = {
    "distilbert.embeddings": "cpu",
    "distilbert.transformer": "disk",
    "pre_classifier": "disk",
    "classifier": "cpu",
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    pytest.importorskip("accelerate", reason="a part of the extra hf")
    return str(scaled(checkpoint(tmp_path / "model", DISTILBERT, auto=TEXT)))


def noise(split: str) -> dict[str, np.ndarray]:
    """The factory of a transfer set of random tokens."""
    rows = tokens(np.random.default_rng(7), 60, 13).numpy()
    return {"x": rows, "label": np.arange(len(rows)) % CLASSES}


def teacher(folder: str, **places: Any) -> Ensemble:
    member = MemberConfig(TEXT_CLASS, {"model": folder, **places})
    return load_ensemble(TeacherConfig(members=(member,), device="cpu", batch_size=16))


@pytest.mark.parametrize(
    ("places", "precision"),
    [({"device_map": SPREAD}, "float32"), ({"device_map": "auto", "max_memory": {"cpu": "15KB"}}, "bfloat16")],
)
def test_a_spread_teacher_fills_the_plain_ones_store(
    places: Any, precision: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    factory = {"class_path": "tests.models.test_spread.noise"}
    for name, more in (("plain", {}), ("spread", places)):
        member = {"class_path": TEXT_CLASS, "init_args": {"model": folder, **more}}
        recipe = {
            "teacher": {"members": [member], "device": "cpu", "batch_size": 16, "precision": precision},
            "transfer_set": {"name": "noise", "factory": factory, "inputs": ["x"], "splits": {"train": "train"}},
            "labels": {"rows_per_shard": 32, "rows_per_chunk": 16},
        }
        Path(f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        assert teacher_logits.main([f"--config={name}.yaml", f"--store={name}"]) == 0
    assert digests("spread") == digests("plain")
    Path("plain/train/manifest.json").unlink()  # begun by one, ended by the other
    assert teacher_logits.main(["--config=spread.yaml", "--store=plain"]) == 0


def test_a_spread_teacher_is_the_plain_one(folder: str) -> None:
    plain, spread = teacher(folder), teacher(folder, device_map=SPREAD)
    assert is_spread(spread.models[0])
    assert {parameter.device.type for parameter in spread.models[0].parameters()} == {"cpu", "meta"}
    assert spread.models[0].network._hf_hook.io_same_device  # outputs come to where the inputs are
    assert spread.spec == plain.spec  # with the digest of the weights
    assert spread.logits(noise("train")["x"][:16]).std() > 0.05


def test_a_spread_language_model(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("accelerate", reason="a part of the extra hf")
    path = str(scaled(checkpoint(tmp_path / "model", GPT2, auto="AutoModelForCausalLM")))
    parts = {"transformer.wte": "cpu", "transformer.wpe": "cpu", "transformer.h": "disk", "transformer.ln_f": "disk"}
    plain, spread = CausalLM(path).eval(), CausalLM(path, device_map=parts | {"lm_head": "cpu"}).eval()
    assert weights_digest(spread) == weights_digest(plain)  # of tied tensors too
    assert spread.output_matrix() is None
    rows = tokens(rng, 4, 13)
    with torch.inference_mode():
        assert torch.equal(spread(rows), plain(rows))


def test_another_value_on_disk_is_another_digest(folder: str, tmp_path: Path) -> None:
    other = str(scaled(scaled(checkpoint(tmp_path / "other", DISTILBERT, auto=TEXT))))
    assert teacher(folder, device_map=SPREAD).spec != teacher(other, device_map=SPREAD).spec


def test_what_cannot_be_spread_says_so(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = SequenceClassifier(folder, device_map=SPREAD)
    with pytest.raises(ConfigError, match="is spread over devices by its device_map, and cannot be moved to one; only"):
        spread.to("cpu")
    with pytest.raises(WeightsError, match="keeps tensors that safetensors cannot hold"):
        require_savable(spread)
    spread.network._hf_hook.execution_device = 0
    with pytest.raises(
        ConfigError, match=r"computes on cpu and cuda, and the teacher's device is cpu; set teacher.device"
    ):
        placed(spread, torch.device("cpu"))
    config = ModelConfig(TEXT_CLASS, {"model": folder, "device_map": SPREAD}, weights="net.safetensors")
    with pytest.raises(ConfigError, match=r"has a device_map, and weights: net.safetensors, .*; put them into the"):
        build_model(config)
    for wrong, said in [
        ({"config": DISTILBERT, "classes": CLASSES, "device_map": "auto"}, "no model is named; give both"),
        ({"model": folder, "max_memory": {"cpu": "1GB"}}, "max_memory without device_map; give both"),
        ({"model": folder, "device_map": "nowhere"}, "transformers cannot build .*device_map"),
        ({"model": folder, "device_map": SPREAD | {"classifier": "nowhere"}}, "transformers cannot build "),
    ]:
        with pytest.raises(ConfigError, match=said):
            build_model(replace(config, init_args=wrong, weights=None))
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtra, match=r"needs the package accelerate, which is not installed; .*softlabels\[hf\]"):
        SequenceClassifier(folder, device_map=SPREAD)
