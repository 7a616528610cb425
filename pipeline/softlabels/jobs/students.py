"""What students are taught of each target: the whole config of each student of a run, and whether these rows and this store can
serve its losses. R rows, P positions, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ConfigError
from softlabels.jobs.splits import Split
from softlabels.labels.hard import NONE, are_labelled
from softlabels.stream import Loader
from softlabels.stream.columns import SoftColumns
from softlabels.student.class_weights import resolved as resolved_weights
from softlabels.student.config import TrainingConfig, require_temperatures
from softlabels.student.heads import Head, heads_of, naming_target, resolved, with_class_weights
from softlabels.student.learner import Student, nothing_to_learn
from softlabels.student.loss_spec import require_served
from softlabels.student.losses import LOSSES, require_loss
from softlabels.student.sampled import position_sample
from softlabels.student.sweep import HARD, StudentTraining, Variant
from softlabels.transfer import TransferRows

Labels = NDArray[Any]


def student_heads(training: StudentTraining, variant: Variant, split: Split) -> dict[str, Head]:
    """How a student of a variant meets each target of a split; the hard student those that have hard labels."""
    return heads_of(_resolved(training, variant, 0, split))


def _resolved(training: StudentTraining, variant: Variant, seed: int, train: Split) -> TrainingConfig:
    config = resolved(training.of(variant, seed), train.stored_kinds)
    if variant.kind != HARD.kind or not config.targets:
        return config
    labelled = labelled_targets(train)  # some, or there is no hard student
    return dataclasses.replace(
        config, targets={name: each for name, each in config.targets.items() if name in labelled}
    )


def student_config(
    training: StudentTraining,
    variant: Variant,
    seed: int,
    train: Split,
    batches: Loader,
    labelled: NDArray[np.bool_] | None,
) -> TrainingConfig:
    """How a student of a run is trained, with numbers in the place of balanced class weights: by the labels of the training
    rows (of `batches`) that it may use, which `labelled` (R,) says.

    Raises:
        ConfigError: class weights of rows of tokens, or where no row has a label. ClassMismatch: of other classes.
    """
    config = _resolved(training, variant, seed, train)
    weights: dict[str, tuple[float, ...] | None] = {}
    for name, head in heads_of(config).items():
        with naming_target(name):
            weights[name] = _class_weights(head, train.only(name), batches, labelled)
    return with_class_weights(config, weights)


def _class_weights(
    head: Head, train: Split, batches: Loader, labelled: NDArray[np.bool_] | None
) -> tuple[float, ...] | None:
    given, kind = head.config.class_weights, train.store.encoding.target
    if given is not None and train.store.spec.of_tokens:
        raise ConfigError(
            f"{train.store.path} labels rows of tokens, and class_weights are for rows of one class each",
            remedy="drop class_weights",
        )
    used = np.empty(0, np.int64)
    if given == "balanced" and kind == "softmax":
        used = hard_labels(train)[batches.rows]
        if used.ndim == 2:
            used[~_counted(train, batches)] = NONE[kind]
        if labelled is not None:
            used[~labelled[batches.rows]] = NONE[kind]
    return resolved_weights(given, used, train.store.classes, kind)


def hard_labels(split: Split) -> Labels:
    """(R, ...) of a split of one target."""
    return np.asarray(split.rows.hard[""])


def labelled_targets(split: Split, rows: NDArray[np.int64] | None = None) -> list[str]:
    """Names of the targets that students are taught of which some row (of these numbers; of all) has a hard label; tokens are
    their own.
    """
    if split.store.spec.of_tokens:
        return [name for name, kind in split.kinds.items() if kind == "softmax"]
    labels = (hard_labels(one) if rows is None else hard_labels(one)[rows] for one in split.each.values())
    return [
        name for (name, kind), own in zip(split.kinds.items(), labels, strict=True) if are_labelled(own, kind).any()
    ]


def require_losses(student: Student, splits: Mapping[str, Split], train: Loader, validation: Loader | None) -> None:
    """Raise ConfigError for a loss that these rows, or this store, cannot serve; MeanUnavailable likewise."""
    store = splits["train"].store
    if student.config.positions is not None and store.positions is None:
        raise ConfigError(
            f"training.positions is given, and rows of {store.path} have no positions", remedy="drop training.positions"
        )
    sample = position_sample(student.config.positions)
    for name, head in heads_of(student.config).items():
        own = {split: each.only(name) for split, each in splits.items()}
        with naming_target(name):
            if sample is not None and head.target == "softmax" and sample.target in (None, name):
                sample.require_class(own["train"].store.classes)
            _require_loss(head.config, student.labelled, own, train, validation)


def _require_loss(
    config: TrainingConfig,
    labelled: NDArray[np.bool_] | None,
    splits: Mapping[str, Split],
    train: Loader,
    validation: Loader | None,
) -> None:
    store = splits["train"].store
    require_served(config.loss, store.encoding.target, store.classes)
    for split in splits.values():
        require_temperatures(split.store.encoding, config)
        if config.has_temperature:
            weights = SoftColumns.of(split.store, split.weights, split.members).weights
            split.store.encoding.check_mean(config.mean, split.store.classes, int((weights > 0).sum()))
    held_out = splits.get("validation", splits["train"])
    if not config.is_soft and not labelled_targets(splits["train"], train.rows):
        raise nothing_to_learn("training")
    by_labels = config.loss_at(1.0).soft_weight == 0
    if by_labels and validation is not None and not labelled_targets(held_out, validation.rows):
        raise nothing_to_learn("validation", " at the end" if config.is_soft else "")
    if not config.is_soft:
        return
    label_free = 0
    if LOSSES[config.loss].needs_label:
        label_free = _label_free(splits["train"], train, labelled)
        if validation is not None:  # with every label that they have
            label_free += _label_free(held_out, validation, None)
    require_loss(
        config.loss_at(0.0),
        label_free_rows=label_free,
        micro_batch=config.micro_batch,
        reduce=store.reduce,
        classes=store.classes,
        target=store.encoding.target,
        tail=getattr(store.encoding, "tail", None),
        class_weights=config.class_weights is not None,
    )


def _label_free(split: Split, batches: Loader, labelled: NDArray[np.bool_] | None) -> int:
    """How many rows of the batches have no label that may be used, at some position that counts."""
    without: NDArray[np.bool_] = np.zeros(len(batches.rows), np.bool_)
    if not split.store.spec.of_tokens:  # whose labels are their own next tokens
        without = np.asarray(hard_labels(split)[batches.rows] < 0)
    if without.ndim == 2:
        without = np.asarray((without & _counted(split, batches)).any(axis=1))
    if labelled is not None:
        without = np.logical_or(without, ~labelled[batches.rows])
    return int(without.sum())


def _counted(split: Split, batches: Loader) -> NDArray[np.bool_]:
    """Which positions (n, P) of the n rows of batches count: as the rows say, or the store where they do not."""
    store, rows = split.store, split.rows
    if isinstance(rows, TransferRows) and rows.ragged and rows.mask is not None:
        return np.asarray(rows.mask[batches.rows] > 0)
    return np.asarray(store.gather("position_mask", store.find(np.asarray(rows.keys)[batches.rows]))) > 0
