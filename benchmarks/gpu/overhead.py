"""What the teacher stage takes beyond the bare forward passes of vision transformers of 100 million and a billion parameters.

A row is an image with one label of 1,000 classes. What a stage takes once (sentinels, digests of weights) is told apart from
what it takes a row by two stages over different numbers of rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.asking import asked, finish
from softlabels.models.device import arithmetic
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import TransferRows

CLASSES, PATCH = 1_000, 16
FULL = ((768, 14, 224), (1536, 36, 224))  # width, depth, pixels a side
SMALL = ((32, 1, 32), (64, 2, 32))


class Vision(nn.Module):
    """Images (B, 3, H, H) uint8 to logits (B, 1000)."""

    def __init__(self, width: int, depth: int, side: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn((side // PATCH) ** 2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, max(1, width // 64), 4 * width, 0.0, "gelu", batch_first=True)
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        patches = self.cut(images.float() / 255).flatten(2).transpose(1, 2)
        found: Tensor = self.head(self.body(patches + self.place).mean(dim=1))
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a section."""
    device, small = asked(__doc__ or "", argv)
    precision = "float32" if device.type == "cpu" else "bfloat16"
    print(
        f"\n## Teacher stage\n\nVision transformers, one label over {CLASSES:,} classes a row, {precision}. Goal: 3% a row.\n"
    )
    print("| parameters | batch | bare forward, ms a row | stage, ms a row | ratio | once, s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for number, (width, depth, side) in enumerate(SMALL if small else FULL):
        count, batch = (64, 16) if small else ((4_096, 256), (1_024, 128))[number]
        model = Vision(width, depth, side)
        teacher = Ensemble.of([model], precision=precision, device=str(device), batch_size=batch)  # type: ignore[arg-type]
        rows = made_up(3 * count, side)
        bare(teacher, rows, batch, device)  # a warm-up
        alone = bare(teacher, rows, batch, device) / (3 * count)
        few, many = stage(teacher, first(rows, count), batch), stage(teacher, rows, batch)
        each = (many - few) / (2 * count)
        parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
        cells = f"{each * 1e3:.3f} | {each / alone:.3f} | {few - count * each:.1f}"
        cells = cells if each > 0 else "too few rows to tell | - | -"
        print(f"| {parameters:,.1f} M | {batch} | {alone * 1e3:.3f} | {cells} |")


def made_up(count: int, side: int) -> TransferRows:
    """Images of noise."""
    rng = np.random.default_rng(0)
    images, keys = rng.integers(0, 256, (count, 3, side, side), np.uint8), rng.integers(0, 256, (count, 16), np.uint8)
    return TransferRows(
        "noise", "train", None, "noise", images, keys, rng.integers(0, CLASSES, count), None, ObjectSpec("none")
    )


def first(rows: TransferRows, count: int) -> TransferRows:
    """The first rows alone."""
    return replace(rows, inputs=rows.inputs[:count], keys=rows.keys[:count], labels=rows.labels[:count])


def bare(teacher: Ensemble, rows: TransferRows, batch: int, device: torch.device) -> float:
    """Seconds of the forward passes of all rows, images moved to the device, logits left there."""
    finish(device)
    began = time.perf_counter()
    with torch.inference_mode(), arithmetic(device, teacher.spec.precision):
        for start in range(0, len(rows.keys), batch):
            teacher.models[0](torch.from_numpy(np.array(rows.inputs[start : start + batch])).to(device))
    finish(device)
    return time.perf_counter() - began


def stage(teacher: Ensemble, rows: TransferRows, batch: int) -> float:
    """Seconds of the whole stage: sentinels, labels computed, checked, hashed and written, the store sealed."""
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as name:
        began = time.perf_counter()
        classes = check_sentinels(teacher, rows.inputs)[""]
        spec = store_spec(
            teacher=teacher.spec, name=rows.name, keys=rows.keys, classes=classes, teacher_batch=batch,
            preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
        )  # fmt: skip
        with StoreWriter(Path(name) / "store", spec, environment=teacher.environment()) as writer:
            label_rows(rows, teacher, writer)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
