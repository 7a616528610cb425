"""A small transfer set of noisy points in five classes, and a store of what an imaginary teacher says of it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from msgspec.structs import replace

from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter
from softlabels.store.columns import input_column
from softlabels.store.digest import keys_digest
from softlabels.store.rules import spec_columns
from softlabels.store.spec import Cut, LabelSpace, MemberSpec, Preprocessing, Spec, TeacherSpec, TransferSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels_stages.schema import typed

CLASSES, MEMBERS, FEATURES = 5, 2, 6
TEACHER = "imaginary"
ROWS = {"train": 160, "validation": 40, "test": 80}
NET = {
    "class_path": "softlabels.models.MLP",
    "init_args": {"inputs": FEATURES, "hidden": [8], "classes": CLASSES},
    "weights": "net.safetensors",
}
NAMES = [f"kind {number}" for number in range(CLASSES)]


def points(split: str, noise: float = 1.0) -> dict[str, np.ndarray]:
    """The factory of the transfer set."""
    rng = np.random.default_rng([len(split), ROWS[split]])
    labels = rng.integers(0, CLASSES, ROWS[split])
    centres = np.random.default_rng(5).normal(0, 1.5, (CLASSES, FEATURES))
    return {
        "x": (centres[labels] + noise * rng.normal(size=(len(labels), FEATURES))).astype(np.float32),
        "label": labels,
    }


def teacher_logits(inputs: np.ndarray) -> np.ndarray:
    """(R, M, C): two imaginary members that know the centres, in different units."""
    centres = np.random.default_rng(5).normal(0, 1.5, (CLASSES, FEATURES))
    distances = ((inputs[:, None] - centres) ** 2).sum(-1)
    return np.stack([-distances / 2, 3 - distances / 4], axis=1).astype(np.float32)


def recipe(**changes: Any) -> dict[str, Any]:
    """A recipe whose runs take a second."""
    training = {
        "epochs": 4,
        "batch_size": 32,
        "seeds": [0, 1],
        "hard_label_fraction": 0.3,
        "threads": 1,
        "device": "cpu",
    }
    training["optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.03}}
    return {
        "name": "toy",
        "transfer_set": {
            "name": "points",
            "factory": {"class_path": "tests.stages.toy.points"},
            "inputs": ["x"],
            "prepare": {"class_path": "softlabels.transfer.vector"},
            "splits": {split: split for split in ROWS},
            "classes": NAMES,
        },
        "student": {
            "class_path": "softlabels.models.MLP",
            "init_args": {"inputs": FEATURES, "hidden": [8], "classes": CLASSES},
        },
        "training": training,
    } | changes


def write_recipe(path: Path, **changes: Any) -> Path:
    """The recipe as a file."""
    path.write_text(yaml.safe_dump(recipe(**changes)))
    return path


def write_store(
    root: Path,
    *,
    embed: bool = False,
    splits: tuple[str, ...] = ("train", "test"),
    reduce: Literal["none", "geometric"] = "none",
    impossible: bool = False,
    transfer_set: dict[str, Any] | None = None,
    function: str = "softlabels.transfer.vector",
    weights: str = "",
) -> Path:
    """A store of the imaginary teacher, one folder a split; `impossible`: to its first member, every row's last class;
    `weights`: the digest of its members'.
    """
    config = typed(TransferSetConfig, transfer_set or recipe()["transfer_set"], where="toy")
    for split in splits:
        rows = load_transfer_set(config, split, cache=root.parent / "cache")
        inputs = np.array(rows.inputs)
        members = tuple(MemberSpec(model=f"imaginary.Member{number}", weights=weights) for number in range(MEMBERS))
        spec = Spec(
            teacher=TeacherSpec(name=TEACHER, precision="float32", members=members),
            transfer_set=TransferSpec(
                name=rows.name, split=split, rows=len(inputs), content_keys=keys_digest(rows.keys)
            ),
            one_label_space=LabelSpace(classes=CLASSES, names=tuple(NAMES)),
            preprocessing=Preprocessing(function=function),
            one_encoding=DenseEncoding(reduce=reduce, inputs="embed" if embed else "reference"),
            layout="zarr",
            cut=Cut(rows_per_shard=64, rows_per_chunk=32),
            columns=(),
        )
        spec = replace(spec, columns=spec_columns(spec, input_column(inputs) if embed else None))
        with StoreWriter(root / split, spec) as writer:
            for shard in writer.pending:
                part = slice(*writer.rows_of(shard))
                logits = teacher_logits(inputs[part])
                logits[:, 0, -1] = -np.inf if impossible else logits[:, 0, -1]
                writer.write_logits(
                    shard,
                    keys=rows.keys[part],
                    labels=rows.labels[part],
                    logits=logits,
                    inputs=inputs[part] if embed else None,
                )
            writer.seal()
    return root


def skops() -> Any:
    """Its import takes seconds, and every process that runs tests reads the files that use it."""
    return import_module("skops.io")
