"""Five pictures of docs that are made from one store of digits: the README's, and those of stores made from stores.

    softlabels demo
    python -m benchmarks.gallery_digits softlabels-demo

Numbers of students come from docs/results.md. All else is done here, in a minute of one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset

from benchmarks.gallery import DOCS, OTHER, STUDENT, Cell, Picture, bars, cells
from softlabels import (
    Ensemble,
    LabelsConfig,
    ModelConfig,
    Store,
    TransferSetConfig,
    diff,
    encode,
    extend,
    judge,
    label,
    merge,
    open_store,
    select,
)
from softlabels.models import build_model
from softlabels.objects import ObjectSpec
from softlabels.report.figure import figure_in, log_y

ROW = 162  # of the held-out digits: a seven that the ensemble is not sure of
TEMPERATURES = (1.0, 4.0, 20.0)
STUDENTS = Picture(
    "digits", "results.md", "Digits: temperature", "errors", {str(t): str(t) for t in (1, 2, 4, 8, 20)}, ""
)
OTHERS = Picture("digits", "results.md", "Digits: few", "errors", {"student, hard": "hard", "ensemble": "teacher"}, "")
DIFFS = (1.0, 2.0, 4.0, 8.0, 20.0)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder of softlabels demo")
    parser.add_argument(
        "--output", type=Path, default=DOCS, help="folder of digits.png; the others go to gallery/ in it"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    demo, output = options.demo.resolve(), options.output.resolve()
    hero(demo, open_store(demo / "stores" / "digits", split="test"), output / "digits.png")
    with tempfile.TemporaryDirectory() as scratch:
        teams = one_a_team(demo / "stores" / "digits", Path(scratch))
        merged(teams, Path(scratch) / "merged", output / "gallery" / "merge.png")
        compared(demo / "stores" / "digits", teams, Path(scratch) / "topk", output / "gallery" / "diff.png")
        more_rows(demo, Path(scratch), output / "gallery" / "extend.png")


def hero(demo: Path, store: Store, path: Path) -> None:
    """A stored row at three temperatures; errors of students by temperature."""
    image = load_dataset("parquet", data_dir=str(demo / "data" / "digits"), split="test")[ROW]["image"]
    students, others = cells(STUDENTS), cells(OTHERS)
    with figure_in(path, width=8.2, height=2.3) as figure:
        picture, *rows, errors = figure.subplots(1, 5, width_ratios=(0.7, 1, 1, 1, 2.1))
        picture.imshow(image, cmap="gray_r")
        picture.set_title("a row")
        picture.axis("off")
        for axes, temperature in zip(rows, TEMPERATURES, strict=True):
            axes.bar(range(10), store.probabilities([ROW], temperature=temperature)[0], color=STUDENT)
            axes.set(title=f"T = {temperature:g}", ylim=(0, 0.65), xticks=range(10))
            axes.tick_params(axis="x", labelsize=6.5)
            axes.set_yticks((0, 0.3, 0.6), ("0", ".3", ".6") if axes is rows[0] else ("", "", ""))
        at = [float(t) for t in students]
        errors.axhline(others["hard"].mean, color="black", linestyle="--")
        errors.axhline(others["teacher"].mean, color="#606060", linestyle=":")
        errors.plot(at, [cell.mean for cell in students.values()], "o-", color=STUDENT)
        errors.set_xscale("log")
        errors.set_xticks(at, [f"{t:g}" for t in at], minor=False)
        errors.set_xticks([], minor=True)
        errors.set(ylim=(0, 75), title="errors of 500, by temperature")
        for text, y in (("student, hard labels", 64.5), ("students of the store", 41), ("teacher", 16)):
            errors.text(1, y, text, fontsize=8)


def one_a_team(digits: Path, scratch: Path) -> dict[str, Path]:
    """The store as three teams would have it, each with a teacher of its own."""
    found = {}
    for member, team in enumerate(("team one", "team two", "team three")):
        select(digits, scratch / team, members=[member])
        found[team] = scratch / team
    return found


def merged(teams: Mapping[str, Path], out: Path, path: Path) -> None:
    """Errors of each team's teacher and of their ensemble, which no model was asked for."""
    merge([*teams.values()], out)
    errors = {f"teacher of {team}": judge(store)["teacher"]["errors"] for team, store in teams.items()}
    errors["*merged, as one ensemble"] = judge(out)["ensemble"]["errors"]
    bars({called: alone(count) for called, count in errors.items()}, "errors of 500", path)


def compared(digits: Path, teams: Mapping[str, Path], topk: Path, path: Path) -> None:
    """KL by temperature of the store to its sparse copy, and to one of its teachers."""
    encode(digits, topk, LabelsConfig(encoding="topk", k=3, rank=4))
    pairs = {
        "another teacher": (teams["team three"], OTHER, 1.6),
        "the same, as 3 largest and a tail": (topk, STUDENT, 0.35),
    }
    with figure_in(path, width=4.6, height=2.0) as figure:
        axes = figure.subplots()
        for called, (store, colour, off) in pairs.items():
            lines = diff(digits, store, temperatures=DIFFS, splits=["test"])["test"].targets[""].lines
            kls = [line.forward or 0.0 for line in lines]
            axes.plot(DIFFS, kls, "o-", color=colour)
            axes.text(DIFFS[0], kls[0] * off, called, fontsize=8)
        axes.set(xscale="log", xlabel="temperature T (log scale)", ylabel="KL, nats (log scale)")
        log_y(axes)
        axes.set_xticks(DIFFS, [f"{t:g}" for t in DIFFS])
        axes.set_xticks([], minor=True)


class Counted(torch.nn.Module):
    """A model that counts the rows that it is asked about."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of inputs (B, 8, 8)."""
        self.rows += len(inputs)
        logits: torch.Tensor = self.model(inputs)
        return logits


def more_rows(demo: Path, scratch: Path, path: Path) -> None:
    """Rows that a teacher is asked about: 1,000 in May, 297 more in June by `extend`, and by a second pass."""
    weights = demo / "runs" / "teachers" / "digits" / "mlp.safetensors"
    mlp: dict[str, Any] = {"inputs": 64, "hidden": [256, 256], "classes": 10, "dropout": 0.3}
    counted = Counted(build_model(ModelConfig("softlabels.models.MLP", mlp, str(weights))))
    teacher, labels = Ensemble.of([counted], name="mlp"), LabelsConfig()

    def asked() -> Cell:
        rows, counted.rows = counted.rows, 0
        return alone(rows)

    may, june = digits_of(demo, "train[:1000]"), digits_of(demo, "train")
    label(may, teacher, labels, scratch / "may")
    found = {"May: a pass, 1,000 rows": asked()}
    extend(scratch / "may", june, teacher, labels, scratch / "june")
    found["*June: extend, to 1,297 rows"] = asked()
    label(june, teacher, labels, scratch / "again")
    found["June: a second pass"] = asked()
    bars(found, "rows that the teacher is asked about", path)


def digits_of(demo: Path, train: str) -> TransferSetConfig:
    """The training rows of the digits, or the first of them."""
    return TransferSetConfig(
        name="digits",
        source=str(demo / "data" / "digits"),
        inputs=("image",),
        label="label",
        prepare=ObjectSpec("softlabels.transfer.scale", {"divisor": 16}),
        splits={"train": train},
    )


def alone(number: float) -> Cell:
    """A number without a spread."""
    return Cell(float(number), 0.0, (float(number),))


if __name__ == "__main__":
    main()
