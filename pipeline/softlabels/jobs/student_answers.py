"""What the students of a finished run say of the held-out rows: the best hard one and the best distilled one of each target,
asked on inputs of the transfer set or embedded ones, as `judge` asks.

R rows, P positions, C classes (or values), T temperatures, n positions of a block that count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.splits import Split, all_batches, held_out_batches, open_splits
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import student_heads
from softlabels.jobs.watch import Watch
from softlabels.labels.soft import SoftLabels
from softlabels.models import ModelConfig, build_model
from softlabels.pages.answers import Answers
from softlabels.pages.held_out import DISTILLED, HARD, HeldOut, grid
from softlabels.pages.sample import by_key
from softlabels.pages.shown_run import hard_of
from softlabels.report.comparison import Student, best_seed, best_student
from softlabels.report.measures import Results
from softlabels.report.views import views
from softlabels.store.key_index import Missing
from softlabels.stream.batch import Batch
from softlabels.student.heads import naming_target
from softlabels.student.metrics import FEW, top_class
from softlabels.student.outputs import StudentOutputs, answers_of, counted_blocks, naming_row
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferSetConfig

MOST_ROWS = 10_000  # and positions
KEPT = 1 << 22  # numbers of a student's outputs that are kept
_PROBABILITIES = 1 << 27  # of a model, of all positions at all temperatures
ENSEMBLE = "ensemble"


class Chosen(NamedTuple):
    """A student that stands for its kind: the best seed, by validation errors, of the best setting."""

    target: str
    kind: str
    label: str  # as tables name it
    folder: str


class Said(NamedTuple):
    """What came of asking: outputs of some rows of a split of the store, and what was counted over the sample."""

    split: str
    answers: list[Answers]
    held_out: list[HeldOut]
    parameters: dict[str, int]  # of the models, by the names of their folders


def chosen_students(results: Results) -> list[Chosen]:
    """The best hard student and the best distilled one of each target, as far as the run has them."""
    found = []
    for target, view in views(results).items():
        best = best_student(view)
        for each in (hard_of(view), best if best["kind"] == DISTILLED else None):
            if each is None:
                continue
            seed = results["seeds"][best_seed(view, each)]
            found.append(Chosen(target, each["kind"], each["label"], folder_of(each, seed)))
    return found


def folder_of(student: Student, seed: int) -> str:
    """The name of a student's folder, as `Variant.folder` makes it, by its label; pruning adds to that how much is left."""
    label = student["label"].rpartition(", ")[0] if "left" in student else student["label"]
    return f"{label}, seed{seed}".replace(", ", "-").replace(":", "_")


def ask_students(
    run: LocalFolder,
    results: Results,
    student: ModelConfig,
    training: StudentTraining,
    source: Labels,
    *,
    transfer_set: TransferSetConfig | None,
    missing: Missing = "error",
    others: bool = False,
    watch: Watch,
) -> Said:
    """Ask the students that stand for a run about the rows that it was judged on, or an even sample of them by content key.

    Args:
        run: its folder, of whose weights no link is followed. results: its own.
        student, training: of its recipe; whether its code may run was asked before (`softlabels.objects`).
        source: the stores that it was judged on.
        transfer_set, missing: see `train`.
        others: whether a student's outputs of the other targets are kept beside those of its own.

    Raises:
        ConfigError: no inputs; settings that are not the run's. ClassMismatch, WeightsError, UntrustedCode, DamagedStore.
    """
    chosen = chosen_students(results)
    config, _ = _models(run, student, chosen[:1])[0]
    training, name, split, rows = _held_out(config, training, source, transfer_set, missing, watch)
    models = {each.folder: build_model(own).eval() for own, each in _models(run, student, chosen)}
    heads = student_heads(training, training.variants[0], split)
    answers, held_out = [], []
    for target in dict.fromkeys(each.target for each in chosen):
        own = [each for each in chosen if each.target == target]
        names = {name: head.output for name, head in heads.items() if others or name == target}
        one = _OfTarget(split, target, names, heads[target].config.mean, len(rows))
        with naming_target(target):
            found, counted = one.ask([(each, models[each.folder]) for each in own], rows, results["split"])
        answers += found
        held_out += [] if counted is None else [counted]
    sizes = {name: sum(each.numel() for each in model.parameters()) for name, model in models.items()}
    return Said(name, answers, held_out, sizes)


def _models(run: LocalFolder, student: ModelConfig, chosen: Sequence[Chosen]) -> list[tuple[ModelConfig, Chosen]]:
    for each in chosen:
        if each.folder not in run.names() or not run.is_folder(each.folder):  # which refuses links
            raise ConfigError(f"{run.at()} has no folder {each.folder}", remedy="give the whole run")
    return [(dataclasses.replace(student, weights=str(run.at(f"{each.folder}/{WEIGHTS}"))), each) for each in chosen]


def _held_out(
    student: ModelConfig,
    training: StudentTraining,
    labels: Labels,
    transfer_set: TransferSetConfig | None,
    missing: Missing,
    watch: Watch,
) -> tuple[StudentTraining, str, Split, NDArray[np.int64]]:
    """The split of the store that students were judged on, by its name, and the numbers of the rows that were held out."""
    source = Source.of(labels)
    only = "test" if "test" in source.splits() else None
    opened = open_splits(source, transfer_set, only=only, missing=missing, training=training, watch=watch)
    training, opened = fitted(student, opened, training)
    name, batches = held_out_batches(opened, training)
    own = name if name in opened else "train"  # of which validation rows were cut
    return training, own, opened[own], np.sort(batches.rows)


def even(keys: NDArray[np.uint8], most: int) -> NDArray[np.int64]:
    """At most so many places among keys (R, 16), evenly by key, ascending: the same rows however they are ordered."""
    order = by_key(keys)
    picked = order if len(order) <= most else order[np.linspace(0, len(order) - 1, most).astype(np.int64)]
    return np.sort(picked)


class _OfTarget:
    """One target of a split, about which students are asked."""

    def __init__(self, split: Split, target: str, heads: Mapping[str, str], mean: str, of: int) -> None:
        self.split, self.target, self.heads, self.mean, self.of = split, target, heads, mean, of
        self.store = split.store.only(target)
        self.kind = self.store.encoding.target
        many = self.store.classes > FEW
        self.grid = () if self.kind == "values" else grid(self.store.encoding, many=many)

    def ask(
        self, students: Sequence[tuple[Chosen, nn.Module]], rows: NDArray[np.int64], name: str
    ) -> tuple[list[Answers], HeldOut | None]:
        """Outputs of these students about some of `rows` of the split, and what was counted of more of them."""
        keys, width = np.asarray(self.split.rows.keys)[rows], max(1, self.store.positions or 1)
        numbers = max(1, self.store.classes) * width  # of a row's outputs
        most = min(MOST_ROWS // width, _PROBABILITIES // (numbers * max(1, len(self.grid))))
        sample = rows[even(keys, max(1, most))]
        kept = set(sample[even(np.asarray(self.split.rows.keys)[sample], max(1, KEPT // numbers))].tolist())
        teacher = ENSEMBLE if len(self.store.spec.teacher.members) > 1 else "teacher"
        kinds = {teacher: ENSEMBLE} | {each.label: each.kind for each, _ in students}
        classes = self.store.classes if self.kind == "softmax" and self.store.classes <= FEW else None
        found = HeldOut(name, self.target, len(sample), self.of, self.grid, kinds, classes)
        outputs: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
        numbers_kept: list[NDArray[np.int64]] = []
        batch_size = max(1, min(256, KEPT // numbers))
        with torch.inference_mode():
            for batch in all_batches(self.split, batch_size, sample).epoch(0):
                one = batch.only(self.target)
                said = {each.label: self._said(model, batch) for each, model in students}
                at = np.array([number for number, row in enumerate(batch.rows.tolist()) if row in kept], np.int64)
                numbers_kept.append(batch.rows[at])
                for label, states in said.items():
                    for name, each in states.items():
                        outputs.setdefault((label, name), []).append(self._whole(each, one, name)[at])
                self._count(one, {label: states[self.target] for label, states in said.items()}, found)
        return self._answers(students, numbers_kept, outputs), found if found.labelled else None

    def _said(self, model: nn.Module, batch: Batch) -> dict[str, StudentOutputs]:
        return answers_of(model, batch, self.heads)

    def _whole(self, states: StudentOutputs, batch: Batch, target: str) -> NDArray[np.float32]:
        """(B, [P,] C)."""
        logits = states.logits(self.split.store.only(target).classes).float()
        shape = () if batch.mask is None else batch.mask.shape[1:]
        return logits.reshape(len(batch), *shape, logits.shape[-1]).numpy()

    def _answers(
        self,
        students: Sequence[tuple[Chosen, nn.Module]],
        numbers: Sequence[NDArray[np.int64]],
        outputs: Mapping[tuple[str, str], Sequence[NDArray[np.float32]]],
    ) -> list[Answers]:
        """By the rows of the store, each once."""
        stored = self.split.store.find(np.asarray(self.split.rows.keys)[np.concatenate(numbers)])
        rows, first = np.unique(stored, return_index=True)
        found = []
        for each, _ in students:
            own = {name: np.concatenate(outputs[each.label, name])[first] for name in self.heads}
            said = own.pop(self.target)
            found.append(Answers(f"student, {each.label}", each.kind, rows, said, self.target, own))
        return found

    def _count(self, batch: Batch, said: Mapping[str, StudentOutputs], found: HeldOut) -> None:
        """Add a batch to what is counted."""
        if self.kind == "values":
            return
        with naming_row(batch, self.mean):
            for where, part in counted_blocks(batch, self.store.classes, whole=batch.mask is None):
                logits = {label: states.logits(self.store.classes, where).double() for label, states in said.items()}
                assert part.soft is not None
                self._count_block(part.labels, part.soft, logits, found)

    def _count_block(self, labels: Tensor, soft: SoftLabels, logits: Mapping[str, Tensor], found: HeldOut) -> None:
        known = labels >= 0
        is_labelled = known if self.kind == "softmax" else known.any(dim=-1)
        found.positions, found.labelled = found.positions + len(labels), found.labelled + int(is_labelled.sum())
        if not bool(is_labelled.any()):
            return
        for number, temperature in enumerate(found.grid):
            for name in found.kinds:
                if self.kind == "softmax":
                    log_p = (
                        soft.log_probs(temperature, self.mean)
                        if found.kinds[name] == ENSEMBLE
                        else (logits[name] / temperature).log_softmax(dim=-1)
                    )[known]
                    top = top_class(log_p)
                    confidence, right = log_p.gather(1, top[:, None])[:, 0].exp(), top == labels[known]
                else:
                    z = (
                        soft.logits(temperature, self.mean)
                        if found.kinds[name] == ENSEMBLE
                        else logits[name] / temperature
                    )
                    confidence, right = z.sigmoid()[known], labels[known] == 1
                found.add_confidences(name, number, confidence, right)
        if found.right is not None:
            of = {found.kinds[name]: top_class(z[known]) == labels[known] for name, z in logits.items()}
            found.add_pair(labels[known], of[HARD], of[DISTILLED])
