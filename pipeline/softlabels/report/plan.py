"""What a pilot found, as plain values: what `softlabels plan` prints, as text or JSON, and what its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softlabels.report.estimates import Interval


@dataclass(frozen=True)
class Size:
    """What a way to keep the labels would take and lose.

    Attributes:
        name: as tables call it: "dense", "topk, k=16".
        layout: zarr or arrow.
        bytes: of all splits' stores.
        kl: mean KL(exact || stored) in nats by temperature, of the pilot; None where it was not measured, or is infinite.
        is_own: whether it is what the recipe says.
    """

    name: str
    layout: str
    bytes: int
    kl: Mapping[str, float | None] | None
    is_own: bool


@dataclass(frozen=True)
class Gain:
    """What students gained from the teacher in the pilot.

    Attributes:
        measure: by which they are compared, lower is better unless it is a score.
        groups: independent pairs of students, each of so many training `rows`; all are judged on the same `held_out` rows.
        epochs, batch_size, steps: of each student.
        hard, distilled: means over groups and held-out rows; distilled at the recipe's own temperature.
        interval: of hard - distilled (of scores distilled - hard): their mean, two standard errors either way.
        alike: whether the gain was the same of all groups on all blocks: the interval is then 3 in `held_out` rows either way.
        holds: how often such an interval holds what very many such pilots say on average; of NLL at least so often.
        chance: what the best answer has that is the same for all rows; None where that is not known.
        learnt: whether a student learnt more than that. Where none did, nothing is known of the gain.
        idle: whether they did not even learn their own training rows.
        advice: an option that would tell more, where none learnt or the interval holds 0; "" where none would.
        temperatures: the mean of distilled students by temperature, the recipe's own first.
        temperature: which one to take.
    """

    measure: str
    groups: int
    rows: int
    held_out: int
    epochs: int
    batch_size: int
    steps: int
    hard: float
    distilled: float
    interval: Interval
    alike: bool
    holds: float
    chance: float | None
    learnt: bool
    idle: bool
    advice: str
    temperatures: Mapping[str, float]
    temperature: str


@dataclass(frozen=True)
class Data:
    """What the transfer set's keys and hard labels say, of all rows.

    Attributes:
        rows: by split. unlabelled: rows without a hard label, by split, where there are any.
        leaks: lines on rows that splits share or repeat, and on classes that the training rows lack. repeated: such rows, by
            "test in train", or "train" for those that repeat an earlier one.
        largest, smallest: shares of the most and the least frequent class among the labelled training rows; None where there
            are no classes, or no labels. classes: how many have a row.
    """

    rows: Mapping[str, int]
    unlabelled: Mapping[str, int]
    leaks: tuple[str, ...]
    repeated: Mapping[str, int]
    largest: float | None
    smallest: float | None
    classes: int


@dataclass(frozen=True)
class Teacher:
    """The teacher on the pilot's rows.

    Attributes:
        name: as the recipe calls it. split: of the held-out rows; "" where there are none.
        held_out, train: scores (docs/runs.md) on held-out and on training rows.
        folds: whether training rows are labelled by models that were trained without them.
    """

    name: str
    split: str
    held_out: Mapping[str, Any] | None
    train: Mapping[str, Any]
    folds: bool


@dataclass(frozen=True)
class Plan:
    """What a pilot found. `lines` of `softlabels.report.plan_text` says it in words.

    Attributes:
        name: of the transfer set. pilot: rows of each split that the teacher was asked about. seed: that chose them.
        seconds: of the whole pass on this machine as it is; cpu_seconds: of its processor.
        second_machine: seconds with one more machine like this.
        sizes: ways to keep the labels. encoding: the `name` of the one to take, and why.
        room: bytes that are free where the store would go, None where the place does not say. place: where that is.
        flatness: of the teacher's distributions (`softlabels.teacher.examine`); None of other kinds than softmax.
        gain: of students; or why it is not known.
        unknown: what no pilot can say.
        verdict: one sentence. settle: what it says to settle first; empty for go.
    """

    name: str
    data: Data
    pilot: Mapping[str, int]
    seed: int
    seconds: Interval
    cpu_seconds: Interval
    second_machine: Interval
    sizes: tuple[Size, ...]
    encoding: str
    encoding_why: str
    room: int | None
    place: str
    teacher: Teacher
    flatness: Mapping[str, Any] | None
    gain: Gain | str
    unknown: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def shared(self) -> int:
        """Held-out rows that are training rows too."""
        return self.data.repeated.get(f"{self.teacher.split} in train", 0)
