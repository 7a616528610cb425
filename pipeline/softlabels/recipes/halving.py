"""Progressive distillation (Salimans, Ho 2022, arXiv 2202.00512): a sampler of n steps teaches one of n / 2, which teaches the
next, down to one step. Each round is a store and a run like any other: `label`, then `train` from where its teacher is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.jobs.label import label
from softlabels.jobs.train import train
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models.config import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.teacher.config import LabelsConfig, MemberConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.transfer import TransferSetConfig

_TEACHER, _STUDENT = "softlabels.models.TwoSteps", "softlabels.models.Denoiser"


def halve(
    denoiser: ModelConfig,
    rows: TransferSetConfig,
    training: StudentTraining,
    folder: Path,
    *,
    steps: int = 64,
    watch: Watch = LOGGED,
) -> Iterator[tuple[int, ModelConfig]]:
    """Halve a sampler's steps until one is left; yields (steps, denoiser) after each round.

    The same call goes on where one was stopped, and reads the rounds that are finished.

    Args:
        denoiser: a `Denoiser` with its weights.
        rows: noisy rows; its factory is called with `steps=` too, the steps of the student's sampler.
        training: of each round's student; its loss is one of values, its first seed is the next teacher.
        folder: for stores and runs, by the steps of the student.
        steps: of the first teacher's sampler, a power of two.

    Raises:
        ConfigError: steps that cannot be halved to one; rows without a factory. And as `label` and `train`.
    """
    if steps < 2 or steps & (steps - 1):
        raise ConfigError(f"{steps} steps cannot be halved to one", remedy="give a power of two, such as 64")
    if rows.factory is None or denoiser.weights is None:
        raise ConfigError("halving needs a factory of noisy rows, and a denoiser's weights", remedy="name both")
    while steps > 1:
        wanted = steps // 2
        made = ObjectSpec(rows.factory.class_path, {**rows.factory.init_args, "steps": wanted})
        noisy = dataclasses.replace(rows, name=f"noisy-{wanted}", factory=made, label=None, label_as="class")
        two = MemberConfig(_TEACHER, {"steps": steps, **denoiser.init_args}, denoiser.weights)
        teacher = load_ensemble(TeacherConfig((two,), name=f"{steps}-steps", batch_size=500))
        store = folder / "stores" / str(wanted)
        label(noisy, teacher, LabelsConfig(kind="values"), store, watch=watch)
        student = ModelConfig(_STUDENT, dict(denoiser.init_args), denoiser.weights)
        run = train(
            student, store, training, transfer_set=noisy, name=f"halved-{wanted}", out=folder / str(wanted), watch=watch
        )
        variant, *_ = training.variants
        weights = run.path / variant.folder(training.seeds[0]) / WEIGHTS
        denoiser, steps = dataclasses.replace(denoiser, weights=str(weights)), wanted
        yield steps, denoiser
