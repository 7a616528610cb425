"""Correct the students of a run for class shares that differ from those of their transfer set. Nothing is trained, and no
labels are used.

A student whose transfer set had no threes takes threes for rare. A constant is added to its logits. With --rows=SPLIT it is one
number for all classes that are rare in the transfer set, chosen so that they get their share of the (unlabelled) rows of that
split. Without --rows it is, for every class, the log of its share where the student will be used over its share in the transfer
set, which is the teacher's mean probability over the training rows. The corrected students are in RUN/corrected, or in --out,
and can be evaluated and exported like the run.

softlabels correct runs/mnist-xxxxxxxx --rows=train            all classes alike, matched on all rows of the train split
softlabels correct runs/mnist-xxxxxxxx --class_prior=0.5,0.3,0.2
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from softlabels.checks.leaks import leaks
from softlabels.errors import ConfigError
from softlabels.jobs.judge import Judged, digests, judge_run
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.sources import of_several
from softlabels.jobs.splits import Split, all_batches, open_splits, training_batches
from softlabels.models import ModelConfig, build_model, save_weights, weights_digest
from softlabels.models.device import resolve_device
from softlabels.objects import plain
from softlabels.recipes.biased import Biased
from softlabels.recipes.prior import class_shares, matched_bias, predictions, ratio_bias, target_shares
from softlabels.report.comparison import comparison_text
from softlabels.report.table import Table, as_text
from softlabels.student.sweep import HARD, Variant
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels_stages.arguments import Correct
from softlabels_stages.recipe import parse, recipe_of
from softlabels_stages.run import PRINTED, command, suggested
from softlabels_stages.student_folder import finished_run, record_own, with_store_of

FOLDER = "corrected"
SHOWN = 30  # classes
_BIASED = "softlabels.models.Biased"


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Find the bias, write the corrected students, judge them beside the others."""
    words = list(sys.argv[1:] if argv is None else argv)
    run = finished_run(words, Correct)
    args = parse(with_store_of(run, words), Correct, stage="correct", doc=__doc__, positional=("from_",), run=run)
    if args.student.class_path == _BIASED:
        raise ConfigError(
            f"the students in {run} were corrected already, and a second correction would be added to the first",
            remedy="name the run that they were corrected from",
        )
    splits = open_splits(args.source, args.transfer_set, missing=args.missing, training=args.training, watch=PRINTED)
    if any(split.store.positions is not None or split.kinds != {"": "softmax"} for split in splits.values()):
        what = "labels rows of tokens"
        if not all(split.store.spec.of_tokens for split in splits.values()):
            what = "holds positions, values, flags or several targets"
        raise ConfigError(
            f"{', '.join(args.store)} {what}, and shares of classes are those of whole rows",
            remedy="correct students of classifiers only",
        )
    shares = class_shares(training_batches(splits, args.training)[0], mean=args.training.mean)
    find = _bias(args, splits, shares)
    place = LocalFolder(args.out) if args.out else LocalFolder(args.from_).within(FOLDER)
    folder = place.at()
    variants = [v for v in (HARD, *args.training.variants) if _weights(args, v, args.training.seeds[0]).exists()]
    if not variants:
        raise ConfigError(
            f"{args.from_ or 'nothing'} holds no trained student", remedy="name the folder of a finished run"
        )
    judged = [pair for variant in variants for pair in _correct(args, variant, find)]
    print(_table(shares, judged[-1].models[0], splits["train"].store.class_names))
    digest = {
        f"{group.label} {seed}": weights_digest(model) for group in judged for seed, model in _by_seed(args, group)
    }
    identity = {"rows": args.rows, "class_prior": args.class_prior, "weights": digest, "stores": digests(splits)}
    identity |= of_several(args.source)
    opened = RunFolder.open(place, name=args.name, identity=identity)
    recipe = recipe_of(args) | {"student": plain(_biased(args.student, len(shares)))}
    opened.keep_recipe(recipe)
    record_own(opened, recipe)
    for variant, corrected in zip(variants, judged[1::2], strict=True):
        for seed, model in _by_seed(args, corrected):
            save_weights(model, WEIGHTS, folder=opened.folder.within(variant.folder(seed)))
    if opened.results is None:
        shared = leaks({name: split.rows.keys for name, split in splits.items()})
        results = judge_run(args.training, splits, judged, shared) | of_several(args.source, args.missing)
        opened.finish(results, store=args.source.said)
    print(f"\n{comparison_text(opened.results or {})}\n")
    print(
        f"corrected: {folder}; try next: {suggested('evaluate', folder / variants[-1].folder(args.training.seeds[0]))}"
    )
    return 0


def _weights(args: Correct, variant: Variant, seed: int) -> Path:
    return Path(args.from_) / variant.folder(seed) / WEIGHTS


def _bias(args: Correct, splits: Mapping[str, Split], shares: Tensor) -> Callable[[nn.Module], Tensor]:
    """What gives the bias (C,) of a student."""
    target = target_shares(_prior(args.class_prior), len(shares))
    if args.rows is None:
        bias = ratio_bias(target, shares)
        return lambda model: bias
    if args.rows not in splits:
        raise ConfigError(f"the store has no split {args.rows!r}", remedy=f"its splits are {', '.join(splits)}")
    batches = all_batches(splits[args.rows], args.training.batch_size)
    device = resolve_device(args.training.device)
    return lambda model: matched_bias(target, shares, predictions(model, batches, device))


def _correct(args: Correct, variant: Variant, find: Callable[[nn.Module], Tensor]) -> list[Judged]:
    """The students of a variant as they were, and corrected."""
    plain_models, corrected = [], []
    for seed in args.training.seeds:
        model = build_model(dataclasses.replace(args.student, weights=str(_weights(args, variant, seed))))
        bias = find(model)
        biased = build_model(_biased(args.student, len(bias)))
        assert isinstance(biased, Biased)
        biased.bias.copy_(bias)
        biased.model.load_state_dict(model.state_dict())
        plain_models.append(model)
        corrected.append(biased)
    return [Judged(variant, plain_models), Judged(variant, corrected, note=", corrected")]


def _by_seed(args: Correct, group: Judged) -> list[tuple[int, nn.Module]]:
    return list(zip(args.training.seeds, group.models, strict=True))


def _biased(student: ModelConfig, classes: int) -> ModelConfig:
    return ModelConfig(_BIASED, {"model": student.class_path, "model_args": student.init_args, "classes": classes})


def _prior(given: str) -> str | list[float]:
    """`uniform`, or the numbers."""
    if given == "uniform":
        return given
    try:
        return [float(number) for number in given.split(",")]
    except ValueError:
        raise ConfigError(f"class_prior is {given!r}", remedy="give uniform, or numbers such as 0.5,0.3,0.2") from None


def _table(shares: Tensor, model: nn.Module, names: Sequence[str] | None) -> str:
    """Each class with its share in the transfer set and what its logit got in one corrected student."""
    numbers = enumerate(zip(shares.tolist(), model.get_buffer("bias").tolist(), strict=True))
    lines = [(names[n] if names else str(n), f"{share:.4%}", f"{added:+.2f}") for n, (share, added) in numbers]
    text = as_text(Table(("class", "share in transfer set", "added to its logit"), tuple(lines[:SHOWN])))
    return text if len(lines) <= SHOWN else f"{text}\n... and {len(lines) - SHOWN} more"


if __name__ == "__main__":
    sys.exit(main())
