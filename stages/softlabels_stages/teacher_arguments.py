"""What the commands that run a teacher take. Apart from `arguments`, so that student commands import nothing of a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from softlabels.models.config import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.recipes.tokenizer_config import TokenizerConfig
from softlabels.store.claims import LAPSE
from softlabels.store.key_index import Missing
from softlabels.student.config import TrainingConfig
from softlabels.student.sweep import StudentTraining
from softlabels.teacher.config import LabelsConfig, TeacherConfig
from softlabels.transfer.config import TransferSetConfig
from softlabels_stages.recipe import OWN_STORE


@dataclass(frozen=True)
class TeacherTraining(TrainingConfig):
    """How teachers are trained.

    Attributes:
        augment: function that changes a batch of inputs at random before each step, such as softlabels.student.augment.jitter.
    """

    augment: ObjectSpec | None = None


@dataclass(frozen=True)
class TrainTeacher:
    """Arguments of train-teacher."""

    teacher: TeacherConfig
    transfer_set: TransferSetConfig
    teacher_training: TeacherTraining | None = None
    tracker: ObjectSpec | None = None  # class that is told the curves of each teacher, beside TensorBoard
    tokenizer: TokenizerConfig | None = None


@dataclass(frozen=True)
class TeacherLogits:
    """Arguments of teacher-logits."""

    teacher: TeacherConfig
    transfer_set: TransferSetConfig
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    store: str = OWN_STORE  # where the stores go, one folder per split; or an address (s3://, gs://, az://)
    shards: str | None = None  # i/n: do part i of n; by default workers share by claims
    lapse: float = (
        LAPSE  # seconds without progress after which a worker counts as dead (shards, engine: at plan and seal only)
    )
    seal: bool = False  # run no teacher: seal stores whose shards are all there
    engine: Literal["ray"] | None = None  # ray: a Ray cluster runs the workers
    address: str | None = (
        None  # address of the Ray cluster; by default $RAY_ADDRESS, else Ray is started on this machine
    )
    workers: int | None = None  # largest number of workers on the cluster; by default as many as fit
    gpus: float | None = None  # GPUs per worker; by default 1 if the cluster has any


@dataclass(frozen=True)
class Plan:
    """Arguments of plan."""

    teacher: TeacherConfig
    transfer_set: TransferSetConfig
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    student: ModelConfig | None = None
    training: StudentTraining = field(default_factory=StudentTraining)
    store: str = OWN_STORE  # where the stores would go, whose room is asked for: a folder, or an address
    rows: int | None = None  # of each split that the teacher is asked about; by default 1%, 800 at least
    seconds: float = 300.0  # that the pilot's pass should take at most, and its students at most
    seed: int = 0  # which rows, chosen by their content keys, and which first weights
    json: bool = False  # print JSON
    page: str | None = None  # a file for the same as an HTML page with plots, such as plan.html


@dataclass(frozen=True)
class Extend:
    """Arguments of extend."""

    teacher: TeacherConfig
    transfer_set: TransferSetConfig
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    store: str = ""  # the store that lacks rows: a folder of splits, one of them, or an address
    out: str = ""  # where the new store goes: a folder, or an address (s3://, gs://, az://)
    missing: Missing = "error"  # rows of the store that the transfer set lacks: error, or skip to leave them out
