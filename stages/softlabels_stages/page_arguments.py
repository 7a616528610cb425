"""What the commands take that write a page; see `softlabels_stages.arguments`."""

from __future__ import annotations

from dataclasses import dataclass, field

from softlabels.models.config import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.student.sweep import StudentTraining
from softlabels.transfer.config import TransferSetConfig


@dataclass(frozen=True)
class Report:
    """Arguments of report."""

    store: str = ""  # a sealed store, a folder of them, or an address (s3://, hf://)
    runs: tuple[str, ...] = ()  # folders of finished runs of students
    out: str = "report.html"  # the file to write
    label_errors: str | None = None  # a CSV file for the list of hard labels that are likely wrong
    transfer_set: TransferSetConfig | None = None
    boxes: ObjectSpec | None = None  # function that finds a detector's boxes in the outputs of a row


@dataclass(frozen=True)
class OfRun:
    """What a page needs of the recipe of a run."""

    student: ModelConfig | None = None
    training: StudentTraining = field(default_factory=StudentTraining)
    transfer_set: TransferSetConfig | None = None
    boxes: ObjectSpec | None = None
