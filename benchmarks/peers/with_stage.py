"""softlabels from the teacher on: `label` with a model that answers at once, in float32, with every check of the stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.columns import Columns
from softlabels import Ensemble, LabelsConfig, label
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows

PACKAGES = ("softlabels",)
WAYS: dict[str, None] = {}  # its store is read as that of `with_softlabels`
BATCH = 512


class AtOnce(nn.Module):
    """A model that looks its answers up: the input is the row's number."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1) to (B, C)."""
        return self.answers[x[:, 0]]


def write(folder: Path, columns: Columns) -> None:
    """The teacher stage as `label` runs it."""
    count = len(columns["row"])
    rows = TransferRows(
        name="noise", split="train", revision=None, source="", inputs=columns["row"][:, None],
        keys=np.random.default_rng(0).integers(0, 256, (count, 16), np.uint8), labels=columns["label"], class_names=None,
        prepare=ObjectSpec("none"),
    )  # fmt: skip
    answers = torch.from_numpy(columns["logits"][:, 0].astype(np.float32))
    teacher = Ensemble.of([AtOnce(answers)], name="noise", device="cpu", batch_size=BATCH)
    label(rows, teacher, LabelsConfig(), folder / "store")
