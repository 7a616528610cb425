"""The distillation loss: hard_weight * hard term + soft_weight * soft term, and which soft terms there are.

Every soft term of distributions and of flags is a sum over classes, of vectors a mean over values; all are averaged over
positions and computed in float32 whatever the student's dtype. Terms whose gradient would shrink with the temperature carry the
factor T^2, so that it keeps its size at any T (Hinton, Vinyals, Dean 2015, section 2). The hard term is the cross-entropy with
the label, of a class or of known flags, or the soft term's distance to the label's vector. The formulas stand in `divergences`,
`decoupled`, `relational`, `flag_losses` and `value_losses`; what the teacher says comes from `softlabels.labels.soft`; which
rows carry a hard label is `split`'s business.

B batch (positions), C classes (or values); z the student's logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from softlabels.errors import ClassMismatch, ConfigError, LabelError, MeanUnavailable
from softlabels.labels import NO_LABEL
from softlabels.labels.soft import SoftLabels
from softlabels.labels.standardise import standardise
from softlabels.labels.targets import Target
from softlabels.student.decoupled import dkd, nkd
from softlabels.student.divergences import centred, forward_kl, js, logit_mse, reverse_kl, soft_ce
from softlabels.student.flag_losses import bce, hard_bce
from softlabels.student.hard_labels import check_labels
from softlabels.student.loss_spec import WITHOUT_T, LossSpec, require_served, target_of
from softlabels.student.relational import dist
from softlabels.student.sparse import COARSE, OUTCOMES, outcomes, require_sparse
from softlabels.student.value_losses import to_labels, to_teacher


@dataclass(frozen=True)
class Loss:
    """A soft term and what it needs; `loss_spec.LOSS_NAMES` says of which kind of target it is.

    Attributes:
        term: called with (student, soft, labels, spec, weights, **args); the sum over the rows, each times its
            weight (B,) where there are weights (of flags each class times its (C,)), a float32 scalar.
        args: its own arguments, all numbers, with their defaults; the names of `loss_args`.
        needs_label: every row must have a hard label.
        whole_batch: the value of a batch is not the sum of its micro-batches' values.
        needs_possible: it raises `LogitsError` for classes that are impossible to the teacher alone.
    """

    term: Callable[..., Tensor]
    args: Mapping[str, float] = field(default_factory=dict)
    needs_label: bool = False
    whole_batch: bool = False
    needs_possible: bool = False


LOSSES: dict[str, Loss] = {
    "forward_kl": Loss(forward_kl),
    "reverse_kl": Loss(reverse_kl, needs_possible=True),
    "js": Loss(js, {"beta": 0.5}),
    "soft_ce": Loss(soft_ce),
    "logit_mse": Loss(logit_mse, needs_possible=True),
    "dkd": Loss(dkd, {"alpha": 1.0, "beta": 8.0}, needs_label=True),
    "nkd": Loss(nkd, {"gamma": 1.5}, needs_label=True),
    "dist": Loss(dist, {"beta": 1.0, "gamma": 1.0}, whole_batch=True),
    "bce": Loss(bce),
    "mse": Loss(to_teacher),
    "huber": Loss(to_teacher, {"delta": 1.0}),
    "cosine": Loss(to_teacher),
}


def distillation_loss(
    student: Tensor,
    soft: SoftLabels | None,
    labels: Tensor,
    *,
    temperature: float | None = None,
    hard_weight: float,
    soft_weight: float,
    loss: str = "forward_kl",
    loss_args: Mapping[str, float] | None = None,
    logit_standardization: bool = False,
    mean: str = "arithmetic",
    positions: int | None = None,
    labelled: int | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The loss of a batch, or of one micro-batch's share in it.

    Args:
        student: (B, C) raw logits z, or vectors (B, D), any float dtype.
        soft: the teacher's labels of the same rows; ignored, and may be None, if `soft_weight` is 0.
        labels: hard labels as in `softlabels.labels.hard`: for classes (B,) int64, -1 for none.
        temperature: T > 0 of the soft term; the hard term is taken at T = 1. Losses of values have none.
        hard_weight, soft_weight: finite, >= 0; a term of weight 0 is not computed.
        loss, loss_args: a name of `LOSSES`, and its arguments if they are not the defaults.
        logit_standardization: the soft term sees standardised logits of student and members, the hard term does not.
        mean: how members are averaged, see `softlabels.labels.ensemble`; `logit_mse` always takes the mean logits, and values
            have only one mean.
        positions, labelled: the number of positions, and of labelled ones, in the whole batch; by default those of this call.
            With them the losses of micro-batches add up to the loss of the batch (except for `dist`).
        class_weights: (C,) float32, see `class_weights`.

    Returns:
        hard_weight * `hard_sum` / labelled + soft_weight * `soft_sum` / positions, scalar float32; the hard term is 0 without
        a labelled row.

    Raises:
        ConfigError: an impossible temperature, weight or argument, an unknown name, an option without meaning for the loss,
            soft labels of another kind, or missing soft labels.
        ClassMismatch: student and soft labels differ in rows or classes.
        LabelError: an invalid label, see `hard_labels.check_labels`, or a row without one if the loss needs it.
        LogitsError: a loss that is undefined because one side alone is -inf, see the term.
        MeanUnavailable: reduced labels cannot give the mean, or standardised members.

    Example:
        >>> batch = next(Loader(EmbeddedRows(store), store, batch_size=50, seed=0).epoch(0))
        >>> z = torch.nn.Linear(6, 5)(batch.inputs)
        >>> distillation_loss(z, batch.soft, batch.labels, temperature=4.0, hard_weight=0.1, soft_weight=0.9).backward()
    """
    if temperature is None:
        if target_of(loss) != "values":
            raise ConfigError(f"the loss {loss} needs a temperature", remedy="give temperature=1, 4 or the like")
        temperature = WITHOUT_T
    spec = LossSpec(temperature, hard_weight, soft_weight, loss, loss_args, logit_standardization, mean, class_weights)
    positions = len(student) if positions is None else positions
    return weighted_sum(student, soft, labels, spec.per_position(labels, positions=positions, labelled=labelled))


def weighted_sum(student: Tensor, soft: SoftLabels | None, labels: Tensor, spec: LossSpec) -> Tensor:
    """hard_weight * `hard_sum` + soft_weight * `soft_sum`, scalar float32; a term of weight 0 is not computed."""
    terms = []
    if spec.hard_weight > 0:
        terms.append(hard_sum(student, labels, spec) * spec.hard_weight)
    if spec.soft_weight > 0:
        terms.append(soft_sum(student, soft, labels, spec) * spec.soft_weight)
    if len(terms) == 2:
        return terms[0] + terms[1]
    return terms[0] if terms else student.new_zeros((), dtype=torch.float32)


def hard_sum(student: Tensor, labels: Tensor, spec: LossSpec) -> Tensor:
    """The hard term of the loss's kind of target, summed over the rows (B, C) that have a label, without its weight: scalar
    float32. The cross-entropy with the label in nats, each row's times the weight of its class where there are weights; that
    of every known flag; the distance to known vectors.
    """
    _check_student(student)
    if labels.shape[:1] != student.shape[:1] or (spec.target == "softmax" and labels.dim() != 1):
        raise ClassMismatch(
            f"the model gives logits for {len(student)} rows, the batch has labels of shape {tuple(labels.shape)}",
            remedy="use a model that gives one row of logits for each input",
        )
    if spec.target != "softmax":
        require_served(spec.loss, spec.target, student.shape[1])
        check_labels(labels, student.shape[1], spec.target)
        if spec.target == "sigmoid":
            return hard_bce(student.float(), labels, spec.class_weights)
        return to_labels(student.float(), labels, spec.loss, checked_args(spec))
    if labels.device.type != "cpu":  # torch would stop the whole process there
        check_labels(labels, student.shape[1])
    try:
        return functional.cross_entropy(
            _single(student), labels, weight=spec.class_weights, ignore_index=NO_LABEL, reduction="sum"
        )
    except IndexError:
        check_labels(labels, student.shape[1])
        raise


def soft_sum(student: Tensor, soft: SoftLabels | None, labels: Tensor | None, spec: LossSpec) -> Tensor:
    """Sum over the rows of the soft term, T^2 included, without its weight: scalar float32. Errors as above.

    A whole-batch loss gives its value times the rows, so that sums over batches, divided by all rows, average by rows.
    """
    loss = spec.loss
    args = checked_args(spec)
    if soft is None:
        raise ConfigError(f"the loss {loss} needs soft labels and there are none", remedy="give a store, or alpha=0")
    require_served(loss, soft.target, soft.classes)
    _check_student(student)
    stored = (len(soft), soft.classes)
    if stored != tuple(student.shape):
        raise ClassMismatch(
            f"the student gives (rows, classes) = {tuple(student.shape)}, the soft labels have {stored}",
            remedy="give the student as many classes as the store has",
        )
    if spec.target != "softmax":  # whose logits have no constant to be free of
        return LOSSES[loss].term(student.float(), soft, labels, spec, spec.class_weights, **args)
    if LOSSES[loss].needs_label:
        _check_labelled(loss, labels, student)
    if soft.tail is not None:
        require_sparse(spec, soft.tail)
    weights = None if spec.class_weights is None else soft.log_probs(soft.near_1, spec.mean).exp() @ spec.class_weights
    student = _single(student)
    if soft.tail in OUTCOMES and soft.stored_members == 1 and loss in COARSE:
        student, soft = outcomes(student, soft, spec.temperature)
    if spec.logit_standardization:
        _check_standardizable(student.shape[1], soft.reduce)
        student, soft = standardise(student), soft.standardised()
    return LOSSES[loss].term(student, soft, labels, spec, weights, **args)


def require_loss(
    spec: LossSpec,
    *,
    label_free_rows: int,
    micro_batch: int | None,
    reduce: str,
    classes: int,
    target: Target = "softmax",
    tail: str | None = None,
    class_weights: bool = False,
) -> None:
    """Raise, before anything is trained, where a loss cannot be had from these labels and settings.

    Args:
        spec: the loss.
        label_free_rows: how many rows that will be trained or validated on have no hard label.
        micro_batch: rows a forward pass, None for whole batches.
        reduce: how the store's members were reduced, "none" or "geometric".
        classes: C of the store.
        target: the kind of its labels.
        tail: of the store's encoding, None where that is dense.
        class_weights: whether classes have weights of their own.

    Raises:
        ConfigError: with the reason and what to do instead.
        MeanUnavailable: standardization of members that are not stored.
    """
    checked_args(spec)
    require_served(spec.loss, target, classes)
    name, loss = spec.loss, LOSSES[spec.loss]
    if tail is not None:
        require_sparse(spec, tail)
    if loss.needs_label and label_free_rows > 0:
        raise ConfigError(
            f"the loss {name} needs each row's hard label, and {label_free_rows} rows have no hard label",
            remedy="use loss=forward_kl, js or dist, or hard_label_fraction=1 and rows with labels only",
        )
    if loss.whole_batch and micro_batch is not None:
        raise ConfigError(
            f"the loss {name} correlates over the whole batch, which micro_batch={micro_batch} would cut",
            remedy="drop micro_batch, or use a loss that is a sum over rows, such as forward_kl",
        )
    if loss.whole_batch and class_weights:
        raise ConfigError(
            f"the loss {name} correlates over the whole batch, so rows have no weights",
            remedy="drop class_weights, or use a loss that is a sum over rows, such as forward_kl",
        )
    if spec.logit_standardization:
        _check_standardizable(classes, reduce)


def checked_args(spec: LossSpec) -> dict[str, float]:
    """The arguments of a loss, defaults included. Raises ConfigError for a name or an argument that is none."""
    name = spec.loss
    known = LOSSES[name].args
    args = {**known, **(spec.loss_args or {})}
    unknown = [key for key in args if key not in known]
    if unknown:
        remedy = f"its arguments are {', '.join(known)}" if known else "it takes none: drop loss_args"
        raise ConfigError(f"the loss {name} has no argument {', '.join(unknown)}", remedy=remedy)
    for key, value in args.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(
                f"loss_args.{key} must be a finite number >= 0, not {value!r}", remedy="give such a number"
            )
    if name == "js" and not 0 < args["beta"] < 1:
        raise ConfigError(
            f"js needs 0 < beta < 1, not {args['beta']}: at the ends it is 0 for every student",
            remedy="use loss=forward_kl for the limit beta -> 0, reverse_kl for beta -> 1",
        )
    if name == "huber" and args["delta"] == 0:
        raise ConfigError("huber needs delta > 0: at 0 it is 0 for every student", remedy="give loss_args: {delta: 1}")
    if args and not any(args.values()) and name != "nkd":
        raise ConfigError(f"all weights of {name} are 0: {args}", remedy="raise one of them")
    return args


def _check_standardizable(classes: int, reduce: str) -> None:
    if classes <= 2:
        raise ConfigError(
            f"logit_standardization turns every row of {classes} classes into the same numbers: nothing is left to learn",
            remedy="set logit_standardization=false",
        )
    if reduce != "none":
        raise MeanUnavailable(
            f"logit_standardization scales each member's logits, and the store keeps only their mean (reduce: {reduce})",
            remedy="set logit_standardization=false, or label the transfer set again with reduce: none",
        )


def _single(student: Tensor) -> Tensor:
    """Logits in float32; of float64 without their common offset, beside which the rest would be rounded away."""
    return (centred(student) if student.dtype == torch.float64 else student).float()


def _check_student(student: Tensor) -> None:
    if student.dim() != 2 or not student.is_floating_point():
        raise ClassMismatch(
            f"the model's output is {student.dtype} of shape {tuple(student.shape)}, not float logits (rows, classes)",
            remedy="use a model that gives one float logit for each class",
        )


def _check_labelled(loss: str, labels: Tensor | None, student: Tensor) -> None:
    """Raise unless each of the student's rows has a label in its classes."""
    if labels is None or labels.shape != student.shape[:1]:
        raise ClassMismatch(
            f"the loss {loss} needs a hard label for each of {len(student)} rows, and got "
            f"{'none' if labels is None else f'labels of shape {tuple(labels.shape)}'}",
            remedy="hand over the batch's labels",
        )
    check_labels(labels, student.shape[1])
    missing = int((labels < 0).sum())
    if missing:
        raise LabelError(
            f"the loss {loss} needs each row's hard label, and {missing} of {len(labels)} rows have no hard label",
            remedy="use loss=forward_kl, js or dist, or rows with labels only",
        )
