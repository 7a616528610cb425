"""A small transfer set, and teachers made of saved random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.models import build_model, save_weights
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.teacher.config import MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels.transfer import TransferRows, array_keys

ROWS, FEATURES, CLASSES = 150, 6, 5
MODELS = "tests.teacher.models."
Teachers = Callable[..., TeacherConfig]


@pytest.fixture
def rows(rng: np.random.Generator) -> TransferRows:
    """150 rows of fresh random numbers."""
    inputs = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    labels = rng.integers(-1, CLASSES, ROWS)
    prepare = ObjectSpec("softlabels.transfer.stack")
    return TransferRows("random", "train", None, "here", inputs, array_keys(inputs), labels, None, prepare)


@pytest.fixture
def teacher(tmp_path: Path, rng: np.random.Generator) -> Teachers:
    """Makes a teacher of the named model classes, each with fresh random weights."""

    def make(
        *names: str, precision: str = "float32", weights: tuple[float, ...] = (), **init_args: object
    ) -> TeacherConfig:
        members = []
        for number, name in enumerate(names):
            torch.manual_seed(int(rng.integers(1 << 31)))
            path = tmp_path / f"member-{number}-{rng.integers(1 << 31)}.safetensors"
            config = MemberConfig(MODELS + name, dict(init_args), None, weights[number] if weights else 1.0)
            save_weights(build_model(config.model), path)
            members.append(MemberConfig(config.class_path, config.init_args, str(path), config.weight))
        return TeacherConfig(members=tuple(members), precision=precision, batch_size=16, device="cpu")  # type: ignore[arg-type]

    return make


def writer_for(path: Path, rows: TransferRows, ensemble: Ensemble, **options: object) -> StoreWriter:
    """A writer of a store with four shards."""
    spec = store_spec(
        teacher=ensemble.spec, name=rows.name, keys=rows.keys, classes=CLASSES, rows_per_shard=48, rows_per_chunk=16,
        teacher_batch=16, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    return StoreWriter(path, spec)


__all__ = ["load_ensemble", "writer_for"]
