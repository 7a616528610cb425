"""A picture of docs/gallery.md: one store with three targets of each row, and students that learned all of them at once.

    python -m benchmarks.gallery_targets

Of a handwritten digit a teacher says which it is (softmax), whether it is even, above four, and has a loop (sigmoid), and how
wide, tall and slanted its ink is (values). The student has 16 units and hard labels for a tenth of the rows. Half a minute of
one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from datasets import load_dataset

from benchmarks.gallery import DOCS, OTHER, STUDENT, spread
from softlabels import ModelConfig, StudentTraining, judge, train, write_store
from softlabels.objects import ObjectSpec
from softlabels.report.figure import figure_in

DATA = DOCS.parent / "data" / "digits"
SIZES = {"digit": 10, "traits": 3, "ink": 3}
KINDS: dict[str, Literal["sigmoid", "values"]] = {"traits": "sigmoid", "ink": "values"}
LOOPS = (0, 6, 8, 9)
SHOWN = {
    "digit": ("errors", "errors of 500"),
    "traits": ("map", "mAP of three traits"),
    "ink": ("rmse", "RMSE of three sizes"),
}


class Heads(torch.nn.Module):
    """A perceptron with an output for each target, (B, size) of images (B, 8, 8)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, hidden), torch.nn.ReLU())
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(hidden, size) for name, size in SIZES.items()})

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """What it says of each target."""
        found = self.body(inputs)
        return {name: head(found) for name, head in self.heads.items()}


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCS / "gallery" / "targets.png", help="the picture")
    output = parser.parse_args().output.resolve()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        draw(scores(Path(scratch)), output)


def rows(split: str) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[Any]]]:
    """Images (R, 8, 8), and what is known of each target."""
    data = load_dataset("parquet", data_dir=str(DATA), split=split).with_format("numpy")
    images: npt.NDArray[np.float32] = np.stack(list(data["image"])).astype(np.float32) / np.float32(16)
    digit = np.asarray(data["label"])
    traits = np.stack([digit % 2 == 0, digit > 4, np.isin(digit, LOOPS)], axis=1).astype(np.int8)
    ink, at = images / images.sum(axis=(1, 2), keepdims=True), np.arange(8.0)
    x, y = ((ink.sum(axis=axis) * at).sum(axis=1)[:, None] for axis in (1, 2))
    moments = [(ink.sum(axis=1) * (at - x) ** 2).sum(axis=1), (ink.sum(axis=2) * (at - y) ** 2).sum(axis=1)]
    moments.append(np.einsum("rij,ri,rj->r", ink, at - y, at - x))
    return images, {"digit": digit, "traits": traits, "ink": np.stack(moments, axis=1).astype(np.float32)}


def taught(images: torch.Tensor, known: Mapping[str, torch.Tensor]) -> Heads:
    """A teacher of 256 units that saw all hard labels."""
    torch.manual_seed(0)
    model = Heads(256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        said = model(images)
        loss = torch.nn.functional.cross_entropy(said["digit"], known["digit"])
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(said["traits"], known["traits"].float())
        loss = loss + torch.nn.functional.mse_loss(said["ink"], known["ink"])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def scores(scratch: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Scores on the held-out digits by target, one a seed: of the teacher, and of students of hard labels and of the store."""
    images, known = rows("train")
    model = taught(torch.from_numpy(images), {name: torch.from_numpy(of) for name, of in known.items()})
    for split in ("train", "test"):
        images, known = rows(split)
        said = {name: of.detach().numpy() for name, of in model(torch.from_numpy(images)).items()}
        write_store(scratch / "store" / split, said, inputs=images, labels=known, kind=KINDS)
    how = StudentTraining(
        temperature=(2.0,),
        hard_label_fraction=0.1,
        epochs=40,
        seeds=(0, 1, 2, 3, 4),
        threads=1,
        optimizer=ObjectSpec("torch.optim.AdamW", {"lr": 0.01}),
    )
    student = ModelConfig("benchmarks.gallery_targets.Heads", {"hidden": 16})
    run = train(student, scratch / "store", how, name="targets", out=scratch / "run")
    found = {"teacher": [judge(scratch / "store")["teacher"]]}
    return found | {each["label"]: each["scores"] for each in run.results["students"]}


def draw(found: Mapping[str, list[Any]], path: Path) -> None:
    """A panel a target, a bar for each."""
    names = {"teacher": OTHER} | {
        name: STUDENT if "distilled" in name else OTHER for name in found if name != "teacher"
    }
    with figure_in(path, width=7.2, height=1.5) as figure:
        for axes, (target, (score, title)) in zip(figure.subplots(1, 3, sharey=True), SHOWN.items(), strict=True):
            for place, (name, colour) in enumerate(names.items()):
                mean, deviation = spread([each["targets"][target][score] for each in found[name]])
                axes.barh(-place, mean, 0.62, color=colour, xerr=deviation or None)
            axes.set_yticks([0, -1, -2], [*names])
            axes.grid(visible=False, axis="y")
            axes.locator_params(axis="x", nbins=5)
            axes.set_xlabel(title)


if __name__ == "__main__":
    main()
