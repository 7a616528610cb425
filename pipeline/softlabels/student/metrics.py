"""How good predictions are: against hard labels (errors, accuracy, NLL, ECE, Brier) and against the teacher (agreement, KL).

`Metrics` adds up batches of distributions in float64, `flag_metrics` and `value_metrics` those of other kinds of targets, and
`metrics_of` gives the right one; `evaluate` runs it over a loader. The loss that is trained is `losses`' business; a store's
own coding loss is `softlabels.labels.fidelity`'s.

Of rows of positions every position that counts is a row of these scores: `rows` are positions; of tokens `nll` is the log of
perplexity.

B batch (or a block of positions), M members, C classes, T temperatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, cast

import torch
from torch import Tensor

from softlabels.labels.soft import SoftLabels
from softlabels.labels.targets import Target
from softlabels.student.by_class import MOST, ByClass
from softlabels.student.calibration import add_to_bins, calibration_error, empty_bins
from softlabels.student.flag_metrics import FlagMetrics
from softlabels.student.merging import Merging
from softlabels.student.value_metrics import ValueMetrics

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch

FEW = 1024  # classes up to which a distribution is computed in float64; beyond in float32, which costs half
LogProbsAt = Callable[[float], Tensor]


class Batches(Protocol):
    """What training and evaluation need of a loader; `softlabels.stream.Loader` is one."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    @property
    def order_digest(self) -> str:
        """Equal for two loaders that give the same rows in the same order."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches `start` .. steps_per_epoch - 1 of one epoch: the same ones whenever it is called."""


class Scores(TypedDict, total=False):
    """What was measured. The names of the second group are there when a row had a label, of the third with a teacher."""

    rows: int  # rows seen, or positions
    labelled: int  # of them with a hard label, over which the next five are taken

    errors: int  # labelled rows whose most probable class is another one
    accuracy: float  # 1 - errors / labelled
    nll: float  # mean -log p(label), nats
    ece: float  # sum over 15 equal bins of confidence of |accuracy - confidence| * share of the rows (Guo et al. 2017)
    brier: float  # mean sum_i (p_i - [i = label])^2

    agreement: float  # share of the rows whose most probable class is the teacher's
    kl: dict[str, float]  # by temperature ("1", "4", "2.5"): mean KL(teacher_T || prediction_T), nats, without T^2

    # By class, where they are asked for and the classes are no more than 1024; all but `classes` when a row had a label.
    classes: dict[
        str, list[Any]
    ]  # of each class: labelled rows, rows predicted (of all), recall, f1 (None: no labelled row)
    macro: dict[str, float]  # recall and f1, averaged over the classes that have a labelled row
    confusion: list[list[int]]  # rows by label and predicted class, of 20 classes or fewer
    confused: list[list[int]]  # [label, predicted, rows] of the most frequent mistakes
    auc: float  # of two classes: the area under the ROC curve

    # Of flags (sigmoid); labelled is a row with a known flag, `nll` and `ece` are over the flags, the latter in bins of p;
    # agreement is the mean share of the classes that are said alike, and kl the sum over the classes.
    flags: int  # that are known
    f1: dict[str, float]  # micro: of all flags together; macro: the mean over the classes with a flag of 1
    map: float  # the mean over these of their average precision

    # Of vectors (values), against the rows' own; and the same of `teacher`, against the teacher's.
    mse: float  # the mean over rows and values of the squared error
    rmse: float  # its root
    r2: float  # 1 - squared error / spread about the mean, of each value that varies; their mean
    cosine: float  # the mean over the rows that are wanted to be no zero; a zero counts 0
    teacher: dict[str, float]

    # Of several targets `rows`, and the scores of each by its name; on validation rows each has its own loss, too.
    targets: dict[str, Any]
    validation_loss: float


class Accumulator(Protocol):
    """What adds up predictions of one kind of target, a batch at a time."""

    def update(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> None:
        """Add what a model says of a batch (B, C); its hard labels; the teacher's, if any."""

    def update_teacher(self, labels: Tensor, soft: SoftLabels, member: int | None = None) -> None:
        """Add the stored teacher itself, or one member of it."""

    def result(self) -> Scores:
        """The scores of everything added so far."""

    def sums(self) -> dict[str, Any]:
        """What they are made of; see `Merging`."""

    def merge(self, sums: dict[str, Any]) -> None:
        """Add what another process has added up."""


def together(found: Mapping[str, Scores]) -> Scores:
    """The scores of several targets as those of one model; of one without a name its own."""
    if {*found} == {""}:
        return found[""]
    return {"rows": next(iter(found.values()))["rows"], "targets": dict(found)}


def metrics_of(target: Target, temperatures: Sequence[float], mean: str, *, by_class: bool = False) -> Accumulator:
    """What adds up predictions of a target of this kind; the rest as `Metrics` says. Values have no temperature and no mean."""
    if target == "softmax":
        return Metrics(temperatures, mean, by_class=by_class)
    return cast(Accumulator, FlagMetrics(temperatures, mean) if target == "sigmoid" else ValueMetrics())


class Metrics(Merging):
    """Adds up predictions, a batch at a time. Of those that count class by class the counts are not merged.

    Args:
        temperatures: T of the KLs; 1, or the temperature next to it at which the teacher is known, is always one of them.
        mean: how the teacher's members are averaged, see `softlabels.labels.ensemble`.
        by_class: count class by class too.
    """

    SUMS = ("_rows", "_compared", "_hard", "_agreed", "_kl", "_bins")

    def __init__(self, temperatures: Sequence[float] = (), mean: str = "arithmetic", *, by_class: bool = False) -> None:
        self._temperatures = temperatures
        self._mean, self._wants_classes = mean, by_class
        self._by_class: ByClass | None = None
        self._rows = self._compared = 0
        self._hard = torch.zeros(3, dtype=torch.float64)  # errors, nll, brier
        self._agreed = 0.0
        self._kl: dict[float, float] = {}  # by T
        self._bins = empty_bins()

    def update(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> None:
        """Add a model's raw logits (B, C), any float dtype; labels (B,) int64 with -1 for none; the teacher, if any."""
        wide = _wide(logits)
        self._add(lambda t: torch.log_softmax(wide if t == 1 else wide / t, dim=-1), labels, soft)

    def update_teacher(self, labels: Tensor, soft: SoftLabels, member: int | None = None) -> None:
        """Add the stored teacher itself (the mean of its members at each T), whose KL is 0 by definition; or one member of it,
        whose KL to the mean of all is measured.
        """
        # All means of one member are alike. Of sparse labels a hard label's own probability follows from its own stored logit.
        said, mean = (soft, self._mean) if member is None else (soft.member(member), "geometric")
        at = said.near_1
        of_label = None if said.tail is None else _wide(said.log_probs(at, mean, labels))
        self._add(lambda t: _wide(said.log_probs(t, mean)), labels, soft, of_label, at=at)

    def result(self) -> Scores:
        """The scores of everything added so far."""
        labelled = int(self._bins[:, 0].sum())
        scores: Scores = {"rows": self._rows, "labelled": labelled}
        if labelled:
            errors, nll, brier = self._hard.tolist()
            scores["errors"], scores["accuracy"] = int(errors), 1 - errors / labelled
            scores["nll"], scores["ece"] = nll / labelled, calibration_error(self._bins)
            scores["brier"] = brier / labelled
        if self._compared:
            scores["agreement"] = self._agreed / self._compared
            scores["kl"] = {f"{t:g}": kl / self._compared for t, kl in self._kl.items()}
        return scores if self._by_class is None else cast(Scores, {**scores, **self._by_class.result()})

    def _add(
        self,
        log_probs_at: LogProbsAt,
        labels: Tensor,
        soft: SoftLabels | None,
        own: Tensor | None = None,
        *,
        at: float = 1.0,
    ) -> None:
        """Add log-probabilities (B, C) at each T. Hard labels are held against those `at` 1, or what is next to it of a teacher
        that is not known there; `own` are the ones, where they are others.
        """
        log_p = log_probs_at(at)
        predicted = top_class(log_p)
        self._rows += len(log_p)
        if self._wants_classes and log_p.shape[1] <= MOST:
            self._by_class = self._by_class or ByClass(log_p.shape[1])
            self._by_class.add_predicted(predicted)
        own, own_predicted = (log_p, predicted) if own is None else (own, top_class(own))
        has_label = labels >= 0
        if bool(has_label.all()):
            self._add_hard(own, own_predicted, labels)
        elif bool(has_label.any()):
            self._add_hard(own[has_label], own_predicted[has_label], labels[has_label])
        if soft is not None:
            self._compared += len(log_p)
            teacher, near = soft.log_probs(soft.near_1, self._mean), soft.near_1
            columns, measured = [(predicted == top_class(teacher)).double()], sorted({near, *self._temperatures})
            for t in measured:
                log_q = log_p if t == at else log_probs_at(t)
                columns.append(
                    _kl((teacher if t == near else soft.log_probs(t, self._mean)).to(log_p.dtype), log_q).double()
                )
            agreed, *kls = torch.stack(columns).sum(dim=1).cpu().tolist()
            self._agreed += agreed
            self._kl = {t: self._kl.get(t, 0.0) + kl for t, kl in zip(measured, kls, strict=True)}

    def _add_hard(self, log_p: Tensor, predicted: Tensor, labels: Tensor) -> None:
        p, of_label = log_p.exp(), labels[:, None]
        confidence = p.gather(1, predicted[:, None])[:, 0]
        nll = -log_p.gather(1, of_label)[:, 0]
        brier = 1 - 2 * p.gather(1, of_label)[:, 0] + p.square_().sum(dim=-1)
        correct = predicted == labels
        rows = torch.stack([(~correct).double(), nll, brier, confidence, correct.double()], dim=1).double().cpu()
        self._hard += rows[:, :3].sum(dim=0)
        add_to_bins(self._bins, rows[:, 3], rows[:, 4])
        if self._by_class is not None:
            self._by_class.add(log_p, predicted, labels)


def _wide(values: Tensor) -> Tensor:
    return values.double() if values.shape[-1] <= FEW else values.float()


def top_class(log_p: Tensor) -> Tensor:
    """The first of the most probable classes, (B,) of (B, C); on a CPU by numpy, which takes a third of the time or less."""
    if log_p.device.type != "cpu":
        return log_p.argmax(dim=-1)
    return torch.from_numpy(log_p.detach().numpy().argmax(axis=-1))


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row of (B, C) log-probabilities; 0 * log 0 = 0."""
    p = log_p.exp()
    return (log_p - log_q).mul_(p).masked_fill_(p == 0, 0.0).sum(dim=-1)
