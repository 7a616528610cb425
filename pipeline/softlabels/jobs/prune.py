"""`prune`: the students of a finished run with fewer weights: delete those with the least saliency, retrain under the mask from
the stored labels, repeat (LeCun, Denker, Solla 1989).

A round is a training run of its own, in rounds/N of the new run's folder, of all students side by side. What it deleted is
written down before it trains, so the same call goes on where it was stopped, to the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from softlabels.errors import ConfigError
from softlabels.jobs.judge import Judged, digests, judge_run
from softlabels.jobs.prune_again import pruned_before
from softlabels.jobs.prune_card import write_card
from softlabels.jobs.prune_round import Origin, Settled, Setup, left_units, parameters_left, train_round, weights_of
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.sources import Labels, Source, of_several
from softlabels.jobs.splits import all_batches, open_splits, training_batches
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.train import Run, label_digests
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models import ModelConfig, build_model, save_weights, weights_digest
from softlabels.objects import plain
from softlabels.store.key_index import Missing
from softlabels.student.config import deciding
from softlabels.student.deletion import require_share
from softlabels.student.pruning import Pruning
from softlabels.student.saliency import saliency
from softlabels.student.sweep import HARD, StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.student.units import Chain, chains_of, require_smaller, without_units
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferSetConfig

_PRUNED = "-pruned"
Models = dict[str, nn.Module]  # by the names of the students' folders


def prune(
    run: str | Path,
    student: ModelConfig,
    store: Labels,
    training: StudentTraining | None = None,
    how: Pruning | None = None,
    *,
    transfer_set: TransferSetConfig | None = None,
    missing: Missing = "error",
    name: str = "student",
    out: str | Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    begun: Callable[[RunFolder, Mapping[str, Any]], object] = lambda folder, recipe: None,
    watch: Watch = LOGGED,
) -> Run:
    """Prune the students of `run` and judge them beside the unpruned ones.

    Args:
        run: the folder of a finished run.
        student, store, training, transfer_set, missing: those of the run, see `train`.
        how: what to delete, and how to retrain the rest.
        name: of the run. out: the new one's folder; by default runs/NAME-pruned-xxxxxxxx.
        recipe: the content of its config.yaml; by default these arguments.
        begun: called with the folder and its recipe before the results are written.
        watch: gets the messages, and is asked whether to stop.

    Raises:
        ConfigError: no trained students; an impossible share; a loss without saliencies; no units to remove, or units of a
            network that was pruned weight by weight.
        RunExists: `out` holds another run. Interrupted: `watch` asked to stop. DiskFull, StorageError, DamagedStore.

    Example:
        >>> from softlabels.jobs.prune import prune
        >>> from softlabels.student.pruning import Pruning
        >>> mlp = ModelConfig("softlabels.models.MLP", {"inputs": 6, "hidden": [16], "classes": 5})
        >>> how = StudentTraining(epochs=1, baseline=False, threads=1)
        >>> whole = train(mlp, "stores/noise", how, name="whole")
        >>> run = prune(whole.path, mlp, "stores/noise", how, Pruning(keep=0.5, rounds=1, saliency_rows=50))
        >>> left, of = run.results["pruned"]["parameters"][""]
    """
    source = Source.of(store)
    setup, folder = _begin(
        Path(run), student, source, training, how or Pruning(), transfer_set, missing, name, out, watch
    )
    if folder.results is not None:
        return Run(folder.path, folder.results)
    rounds = range(1, setup.how.rounds + 1)
    settled = [train_round(setup, number, weights_of(setup, number - 1), watch) for number in rounds]
    made, models = _final(setup, settled[-1])
    sections = {"name": name, "transfer_set": transfer_set, "pinned": source.pinned, "training": setup.training}
    said = dict(recipe or {key: plain(value) for key, value in sections.items() if value is not None})
    said |= {"name": _named(name), "student": plain(made)}
    folder.keep_recipe(said)
    begun(folder, said)
    for each, model in models.items():
        save_weights(model, WEIGHTS, folder=folder.folder.within(each))
    lines = [_whole(setup), *settled[:-1], dataclasses.replace(settled[-1], models=models)]
    results = _results(setup, lines, settled[-1].models) | of_several(source, missing)
    write_card(folder.folder, results | {"store": source.said}, said, setup.splits, models, watch)
    return Run(folder.path, folder.finish(results, store=source.said))


def _begin(
    run: Path,
    student: ModelConfig,
    source: Source,
    training: StudentTraining | None,
    how: Pruning,
    transfer_set: TransferSetConfig | None,
    missing: Missing,
    name: str,
    out: str | Path | None,
    watch: Watch,
) -> tuple[Setup, RunFolder]:
    given = training or StudentTraining()
    given = dataclasses.replace(given, epochs=how.epochs or given.epochs)
    splits = open_splits(source, transfer_set, missing=missing, training=given, watch=watch)
    training, splits = fitted(student, splits, given)
    origins, (train, validation) = _origins(run, training), training_batches(splits, training)
    begun = {each.name: build_model(dataclasses.replace(student, weights=str(each.weights))) for each in origins}
    identity: dict[str, object] = {
        "pruned": plain(how),
        "student": plain(student),
        "begun_from": {name: weights_digest(model) for name, model in begun.items()},
        "stores": digests(splits),
        "labels": {split: label_digests(each) for split, each in splits.items()},
    }
    rows = {"transfer_set": transfer_set and plain(transfer_set), "missing": missing} | of_several(source)
    of_run = {**identity, **rows, "training": deciding(plain(given))}
    chains: list[Chain] = []
    if how.structure == "unit":
        some = next(iter(all_batches(splits["train"], 16).epoch(0))).inputs
        chains = chains_of(begun[origins[0].name], some)
        require_smaller(student, begun[origins[0].name], chains, some)
    require_share(begun[origins[0].name], chains, how.keep)
    before = pruned_before(run, [*begun], begun[origins[0].name], how)
    place = LocalFolder(RunFolder.place(out, name=_named(name), identity=of_run))
    setup = Setup(student, splits, training, how, origins, train, validation, identity, chains, place, before)
    if how.rule == "saliency" and not place.exists():
        two = all_batches(splits["train"], 2, train.rows[:2])
        for origin in {each.variant.kind: each for each in origins}.values():  # a loss may have no saliencies
            saliency(setup.begin(origin, origin.weights), two, device=setup.device)
    return setup, RunFolder.open(place, name=_named(name), identity=of_run, order=train.order)


def _named(name: str) -> str:
    """The name of a pruned run: once pruned, or again."""
    return f"{name.removesuffix(_PRUNED)}{_PRUNED}"


def _origins(run: Path, training: StudentTraining) -> list[Origin]:
    """The trained students of a run; the seeds of a variant stand together."""
    found = []
    for variant in (HARD, *training.variants):
        own = [Origin(variant, seed, run / variant.folder(seed) / WEIGHTS) for seed in training.seeds]
        if all(each.weights.is_file() for each in own):
            found += own
    if not found:
        raise ConfigError(f"{run} holds no trained students", remedy="name the folder of a finished train-student run")
    return found


def _final(setup: Setup, last: Settled) -> tuple[ModelConfig, Models]:
    """The students that the run is about, and what makes them: without units the smaller networks."""
    if not setup.chains:
        return setup.student, dict(last.models)
    rows = next(iter(all_batches(setup.splits["train"], 64).epoch(0))).inputs
    found = {
        name: without_units(setup.student, model.cpu(), setup.chains, left_units(setup.chains, last.masks[name]), rows)
        for name, model in last.models.items()
    }
    return next(iter(found.values()))[0], {name: model for name, (_, model) in found.items()}


def _whole(setup: Setup) -> Settled:
    """The students as they were."""
    students = [setup.begin(each, each.weights) for each in setup.origins]
    models = {student.name: student.model for student in students}
    scores = {} if setup.validation is None else {each.name: setup.loss(each, setup.validation)[1] for each in students}
    return Settled(models, scores, {}, {})


def _results(setup: Setup, lines: Sequence[Settled], masked: Models | Mapping[str, nn.Module]) -> dict[str, Any]:
    """What results.json holds: those of every run, with the students of each round, and what remains."""
    first = setup.origins[0].name
    last = parameters_left(setup, masked[first], lines[-1].masks[first])
    left = [each.facts["students"][first]["left"] for each in lines[1:]]
    shares = [setup.before.left if setup.before else 1.0, *(count / total for count, total in left)]
    notes = [", as begun" if setup.before else ", whole", *(f", {100 * share:.3g}% left" for share in shares[1:])]
    if len({*notes}) < len(notes):  # rounds that delete next to nothing
        notes[1:] = [f"{note} after round {number}" for number, note in enumerate(notes[1:], start=1)]
    judged, kept = [], []
    for label in dict.fromkeys(origin.variant.label for origin in setup.origins):
        own = [origin for origin in setup.origins if origin.variant.label == label]
        for share, note, done in zip(shares, notes, lines, strict=True):
            models = [done.models[origin.name] for origin in own]
            scores = [done.scores[origin.name] for origin in own if done.scores.get(origin.name)]
            judged.append(Judged(own[0].variant, models, scores, note))
            kept.append(share)
    results = judge_run(setup.training, setup.splits, judged, {})
    for student, share in zip(results["students"], kept, strict=True):
        student["left"] = share
    rounds = [dict(each.facts) for each in lines[1:]]
    pruned = {**plain(setup.how), "epochs": setup.training.epochs, "rounds": rounds, "parameters": last}
    return results | {"order": setup.batches.order, "pruned": pruned}
