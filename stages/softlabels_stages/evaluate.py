"""Evaluate a student, or the stored teacher, on one split of a store.

softlabels evaluate --store=stores/mine                     the stored teacher and its members
softlabels evaluate runs/mine-xxxxxxxx/distilled-seed0      a student of a run; its recipe is the run's config.yaml
softlabels evaluate weights.safetensors --config=mine.yaml  weights of the recipe's student
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from softlabels.errors import one_line
from softlabels.jobs.judge import judge
from softlabels.jobs.run_files import RESULTS, read_results
from softlabels.report.by_class import class_lines, class_table, confusion_table, has_classes
from softlabels.report.table import as_text, results_table
from softlabels.store import Store
from softlabels.student.metrics import Scores
from softlabels.student.runlog import finite
from softlabels.student.sweep import HARD, StudentTraining
from softlabels.system.local import LocalFolder
from softlabels_stages.arguments import Evaluate
from softlabels_stages.recipe import parse
from softlabels_stages.run import PRINTED, command
from softlabels_stages.student_folder import run_of, student_word, with_store_of, with_weights


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Judge and print."""
    words = [student_word(word) for word in (sys.argv[1:] if argv is None else argv)]
    run = run_of(words)
    args = parse(with_store_of(run, words), Evaluate, stage="evaluate", doc=__doc__, positional=("model",), run=run)
    student = None if args.model is None else with_weights(args.student, args.model)
    store = args.source.open(only=args.split, missing=args.missing)[args.split]
    temperature, training = args.temperature, _own_training(args, run, store)
    store = store.bounded() if training.tail_bound else store
    if temperature is None and store.targets == ("",) and store.encoding.target != "values":
        # where there are several targets, each has its own
        own = training.of(training.variants[0], 0).loss_at(1.0).temperature
        temperature = store.encoding.nearest(own)
    found = judge(
        args.source,
        student,
        split=args.split,
        training=training,
        temperature=temperature,
        transfer_set=args.transfer_set,
        missing=args.missing,
        watch=PRINTED,
    )
    lines = [(args.model if args.model and name == "student" else name, scores) for name, scores in found.items()]
    if args.json:
        said = {"model": args.model or "teacher", "split": args.split, **lines[-1][1]}
        print(json.dumps(finite(said), indent=1, allow_nan=False))
        return 0
    for number, name in enumerate(lines[-1][1].get("targets", {"": None})):
        print("\n" * (number > 0), end="")
        _show([(title, scores["targets"][name] if name else scores) for title, scores in lines], store.only(name))
    return 0


def _show(lines: Sequence[tuple[str, Scores]], store: Store) -> None:
    """Print the scores of each model on one target, and more of the last."""
    last = lines[-1][1]
    temperatures = [float(temperature) for temperature in last.get("kl", {})]
    table = results_table(
        [(title, [scores]) for title, scores in lines], temperatures=temperatures, target=store.encoding.target
    )
    print(f"{f'{one_line(store.name)}{chr(10)}' if store.name else ''}{as_text(table)}")
    print(_more(last, store))


def _more(scores: Scores, store: Store) -> str:
    """Of how many labelled rows errors are counted, and what they are class by class."""
    what = "rows" if store.positions is None else "tokens" if store.spec.of_tokens else "positions"
    names = store.class_names
    lines = [f"\n{scores['rows']:,} {what}, {scores['labelled']:,} of them with a hard label", *store.cautions]
    if has_classes([scores]):
        tables = [class_table([scores], names), confusion_table([scores], names)]
        lines += [f"{as_text(table)}\n" for table in tables if table is not None]
        lines += [one_line(line) for line in class_lines([scores], names)]
    return "\n".join(lines)


def _own_training(args: Evaluate, run: Path | None, store: Store) -> StudentTraining:
    """The setting that the student's folder is named after; else all of the recipe's, of which the first counts. Of the hard
    student of a `run` without the targets that it did not learn, which had no hard label.
    """
    training, folder = args.training, Path(args.model or "").name
    own = [each.values for each in training.variants if folder in {each.folder(seed) for seed in training.seeds}]
    if own:
        return dataclasses.replace(training, **own[0])
    if run is None or not (run / RESULTS).is_file() or folder not in map(HARD.folder, training.seeds):
        return training
    hard = [each for each in read_results(LocalFolder(run))["students"] if each["kind"] == HARD.kind]
    learnt = hard[0]["scores"][0].get("targets", store.targets) if hard else store.targets
    others = [name for name in store.targets if name not in learnt]
    return dataclasses.replace(training, targets=training.targets | {name: {"weight": 0.0} for name in others})


if __name__ == "__main__":
    sys.exit(main())
