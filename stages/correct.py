"""Correct the students of a run for other shares of the classes than those of their transfer set. Nothing is trained.

A student whose transfer set had no threes holds threes for rare. To each class's logit is added the log of its share where
the student will be used over its share in the transfer set, which is the teacher's mean probability over the training rows:
no label is looked at, and no row of the place of use is needed. The corrected students stand in RUN/corrected, which can be
evaluated and exported like the run.

softlabels correct runs/mnist-xxxxxxxx                            all classes alike
softlabels correct runs/mnist-xxxxxxxx --class_prior=0.5,0.3,0.2
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models import ModelConfig, build_model, save_weights, weights_digest
from pipeline.models.biased import Biased
from pipeline.report.comparison import comparison_text
from pipeline.stream.join import Missing
from pipeline.student.prior import class_shares, prior_bias
from pipeline.student.trainer import WEIGHTS
from pipeline.transfer import TransferSetConfig
from stages.judge import Judged, digests, judge
from stages.recipe import parse, plain
from stages.run import command, program
from stages.run_folder import RunFolder
from stages.splits import open_splits, training_batches
from stages.student_folder import facts_of
from stages.sweep import HARD, StudentTraining, Variant

FOLDER = "corrected"


@dataclass(frozen=True)
class Correct:
    """Arguments of correct."""

    student: ModelConfig
    training: StudentTraining = field(default_factory=StudentTraining)
    transfer_set: TransferSetConfig | None = None
    name: str = "student"
    teacher: dict[str, Any] | None = None  # not used; kept in config.yaml
    labels: dict[str, Any] | None = None  # as teacher
    run: str = ""  # a finished run
    store: str = "stores/digits"  # the store that the run was trained on; a finished run knows it
    missing: Missing = "error"  # rows that the store does not label: error, or skip to leave them out with a count
    class_prior: str = "uniform"  # shares of the classes where the students will be used: uniform, or as 0.5,0.3,0.2


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Find the bias, write the corrected students, judge them beside the others."""
    words = list(sys.argv[1:] if argv is None else argv)
    run = next((word for word in words if not word.startswith("--")), "")
    if not facts_of(Path(run)):
        raise ConfigError(f"{run or 'nothing'} is no run", remedy="name the folder of a finished train-student run")
    args = parse([*facts_of(Path(run)), *words], Correct, stage="correct", doc=__doc__, positional=("run",))
    splits = open_splits(args.store, args.transfer_set, missing=args.missing)
    shares = class_shares(training_batches(splits, args.training)[0], mean=args.training.mean)
    bias = prior_bias(_prior(args.class_prior), shares)
    print(_table(shares, bias, splits["train"].store.class_names))
    folder = Path(args.run) / FOLDER
    variants = _variants(args)
    judged = [pair for variant in variants for pair in _correct(args, variant, bias)]
    digest = {
        f"{group.label} {seed}": weights_digest(model) for group in judged for seed, model in _by_seed(args, group)
    }
    opened = RunFolder.open(str(folder), name=args.name, identity={"weights": digest, "stores": digests(splits)})
    opened.keep_recipe(_recipe(args, bias))
    for variant, corrected in zip(variants, judged[1::2], strict=True):
        for seed, model in _by_seed(args, corrected):
            save_weights(model, folder / variant.folder(seed) / WEIGHTS)
    if opened.results is None:
        opened.finish(judge(args.training, splits, judged), store=args.store)
    print(f"\n{comparison_text(opened.results or {})}\n")
    print(f"corrected: {folder}; try next: {program()} evaluate {folder / variants[-1].folder(args.training.seeds[0])}")
    return 0


def _variants(args: Correct) -> list[Variant]:
    """The kinds of students that the run trained."""
    there = [v for v in (HARD, *args.training.variants) if _weights(args, v, args.training.seeds[0]).exists()]
    if not there:
        raise ConfigError(
            f"{args.run or 'nothing'} holds no trained student", remedy="name the folder of a finished run"
        )
    return there


def _weights(args: Correct, variant: Variant, seed: int) -> Path:
    return Path(args.run) / variant.folder(seed) / WEIGHTS


def _correct(args: Correct, variant: Variant, bias: Tensor) -> list[Judged]:
    """The students of a variant as they were, and corrected."""
    plain_models, corrected = [], []
    for seed in args.training.seeds:
        model = build_model(dataclasses.replace(args.student, weights=str(_weights(args, variant, seed))))
        biased = build_model(_biased(args.student, bias))
        assert isinstance(biased, Biased)
        biased.model.load_state_dict(model.state_dict())
        plain_models.append(model)
        corrected.append(biased)
    temperature = args.training.of(variant, 0).temperature_at(1.0)
    settings = args.training.settings(variant)
    return [
        Judged(variant.label, variant.kind, settings, temperature, plain_models),
        Judged(f"{variant.label}, corrected", variant.kind, settings, temperature, corrected),
    ]


def _by_seed(args: Correct, group: Judged) -> list[tuple[int, nn.Module]]:
    return list(zip(args.training.seeds, group.models, strict=True))


def _biased(student: ModelConfig, bias: Tensor) -> ModelConfig:
    path = f"{Biased.__module__}.{Biased.__qualname__}"
    numbers = [round(value, 6) for value in bias.tolist()]
    return ModelConfig(path, {"model": student.class_path, "model_args": student.init_args, "bias": numbers})


def _recipe(args: Correct, bias: Tensor) -> dict[str, Any]:
    """The run's recipe with the corrected student."""
    names = ("name", "transfer_set", "teacher", "labels", "training")
    sections = {name: plain(getattr(args, name)) for name in names}
    found = sections | {"student": plain(_biased(args.student, bias))}
    return {name: value for name, value in found.items() if value is not None}


def _prior(given: str) -> str | list[float]:
    """`uniform`, or the numbers."""
    if given == "uniform":
        return given
    try:
        return [float(number) for number in given.split(",")]
    except ValueError:
        raise ConfigError(f"class_prior is {given!r}", remedy="give uniform, or numbers such as 0.5,0.3,0.2") from None


def _table(shares: Tensor, bias: Tensor, names: Sequence[str] | None) -> str:
    """Each class with its share in the transfer set and what its logit gets."""
    lines = [f"{'class':<20}{'share in transfer set':>24}{'added to its logit':>22}"]
    for number, (share, added) in enumerate(zip(shares.tolist(), bias.tolist(), strict=True)):
        name = " ".join(names[number].split())[:18] if names else str(number)
        lines.append(f"{name:<20}{share:>24.4%}{added:>+22.2f}")
    shown = 30
    return "\n".join(
        [*lines[: shown + 1], *([f"... and {len(lines) - shown - 1} more"] if len(lines) > shown + 1 else [])]
    )


if __name__ == "__main__":
    sys.exit(main())
