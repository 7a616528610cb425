"""Judge a student, or the stored teacher, on one split of a store.

softlabels evaluate --store=stores/mine                     the stored teacher and its members
softlabels evaluate runs/mine-xxxxxxxx/distilled-seed0      a student of a run; its recipe is the run's config.yaml
softlabels evaluate weights.safetensors --config=mine.yaml  weights of the recipe's student
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from softlabels.models import build_model
from softlabels.models.device import resolve_device
from softlabels.report.by_class import class_lines, class_table, confusion_table, has_classes
from softlabels.report.table import as_text, results_table
from softlabels.store.findings import Stored, ask
from softlabels.stream import Loader
from softlabels.student.metrics import Scores, evaluate_student, evaluate_teacher
from softlabels.student.runlog import finite
from softlabels.text import one_line
from softlabels_stages.arguments import Evaluate
from softlabels_stages.judge import member_names
from softlabels_stages.recipe import parse
from softlabels_stages.run import command
from softlabels_stages.splits import (
    all_batches,
    check_classes,
    open_splits,
    say_what_labels_are,
    stored_labels,
    with_members,
)
from softlabels_stages.student_folder import run_of, student_word, with_store_of, with_weights


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Judge and print."""
    words = [student_word(word) for word in (sys.argv[1:] if argv is None else argv)]
    run = run_of(words)
    args = parse(with_store_of(run, words), Evaluate, stage="evaluate", doc=__doc__, positional=("model",), run=run)
    temperature = _own_temperature(args) if args.temperature is None else args.temperature
    if args.model is None:
        store, batches = stored_labels(args.store, args.split, args.training)
        if store.positions is not None and "input" not in store.columns:
            print(
                f"{store.path} holds no tokens (inputs: reference): without the next one no errors, NLL, ECE and Brier",
                file=sys.stderr,
            )
        stored, names = Stored.of(store), store.class_names
        for error in ask(stored, stored.keys()):
            print(f"{args.split}: warning: {type(error).__name__}: {error}", file=sys.stderr)
        lines = _teacher(args, batches, temperature, member_names(store, args.training.members))
    else:
        student = with_weights(args.student, args.model)
        splits = open_splits(args.store, args.transfer_set, only=args.split, missing=args.missing)
        splits = with_members(splits, args.training)
        batches, names = all_batches(splits[args.split], args.training.batch_size), splits[args.split].store.class_names
        check_classes(student, splits)
        say_what_labels_are(splits, sys.stderr)
        device = resolve_device(args.training.device)
        model = build_model(student).to(device)
        mean = args.training.mean
        lines = [(args.model, evaluate_student(model, batches, temperatures=[temperature], mean=mean, device=device))]
    if args.json:
        said = {"model": args.model or "teacher", "split": args.split, **lines[-1][1]}
        print(json.dumps(finite(said), indent=1, allow_nan=False))
    else:
        print(as_text(results_table([(name, [scores]) for name, scores in lines], temperatures=[temperature])))
        print(_more(lines[-1][1], names))
    return 0


def _more(scores: Scores, names: Sequence[str] | None) -> str:
    """Of how many labelled rows errors are counted, and what they are class by class."""
    lines = [f"\n{scores['rows']:,} rows, {scores['labelled']:,} of them with a hard label"]
    if has_classes([scores]):
        tables = [class_table([scores], names), confusion_table([scores], names)]
        lines += [f"{as_text(table)}\n" for table in tables if table is not None]
        lines += [one_line(line) for line in class_lines([scores], names)]
    return "\n".join(lines)


def _own_temperature(args: Evaluate) -> float:
    """The last T of the setting that the student's folder is named after; else of the recipe's first."""
    training, folder = args.training, Path(args.model or "").name
    own = [variant for variant in training.variants if folder in {variant.folder(seed) for seed in training.seeds}]
    return training.of((own or training.variants)[0], 0).loss_at(1.0).temperature


def _teacher(args: Evaluate, batches: Loader, temperature: float, names: Sequence[str]) -> list[tuple[str, Scores]]:
    """The members, then the ensemble."""
    device = resolve_device(args.training.device)
    ensemble, members = evaluate_teacher(batches, temperatures=[temperature], mean=args.training.mean, device=device)
    lines = list(zip(names, members, strict=True)) if len(members) > 1 else []
    return [*((f"teacher {name}", scores) for name, scores in lines), ("ensemble" if lines else "teacher", ensemble)]


if __name__ == "__main__":
    sys.exit(main())
