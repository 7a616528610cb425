"""A small language-model recipe over texts in files: two kinds of sentences, learnt in a few seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml

CLASS = "softlabels.models.CausalLM"
NET = {
    "model_type": "gpt2", "vocab_size": 320, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0,
    "eos_token_id": 0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}


def write_texts(folder: Path) -> Path:
    """Splits train and test of sentences, with empty ones between."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    for split, rows in (("train", 400), ("test", 60)):
        texts = [sentence(rng) if rng.random() < 0.9 else "" for _ in range(rows)]
        datasets.Dataset.from_dict({"text": texts}).to_parquet(folder / f"{split}.parquet")
    return folder


def sentence(rng: np.random.Generator) -> str:
    """An animal does what it does, several times."""
    animals = {"birds": "sing in the sky", "fishes": "swim in the sea", "stones": "lie on the road"}
    names = list(animals)
    parts = [f" {name} {animals[name]}" for name in rng.choice(names, int(rng.integers(1, 6)))]
    return "".join(parts) + " ."


def recipe(**changes: Any) -> dict[str, Any]:
    """A recipe that trains tokenizer, teacher and student on the texts in ./texts."""
    training = {"batch_size": 16, "threads": 1, "device": "cpu", "optimizer": OPTIMIZER}
    return {
        "name": "sentences",
        "transfer_set": {
            "source": "./texts", "inputs": ["text"], "label": None,
            "sequences": {"tokenizer": "own/tokenizer", "length": 16},
        },
        "tokenizer": {"kind": "bpe", "vocab_size": 300, "max_length": 16},
        "teacher": {
            "members": [{"class_path": CLASS, "init_args": {"config": NET}, "weights": "own/0.safetensors"}],
            "batch_size": 8,
        },
        "teacher_training": {"epochs": 3, **training},
        "labels": {"encoding": "topk", "k": 8, "rank": 12, "fine": 4, "rows_per_shard": 64, "rows_per_chunk": 16},
        "student": {"class_path": CLASS, "init_args": {"config": NET | {"n_embd": 8, "vocab_size": 310}}},
        "training": {"epochs": 2, "seeds": [0], "temperature": 2, **training},
    } | changes  # fmt: skip


def write_recipe(path: Path, **changes: Any) -> dict[str, Any]:
    """The recipe as a file."""
    made = recipe(**changes)
    path.write_text(yaml.safe_dump(made))
    return made


def again(folder: Path) -> dict[str, Any]:
    """What was made in a folder that several tests begin with, in the current one; its recipe."""
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    made: dict[str, Any] = yaml.safe_load(Path("recipe.yaml").read_text())
    return made
