"""The distillation loss: hard_weight * CE(student, label) + soft_weight * soft term, with the soft terms by name.

Every soft term is a sum over classes, averaged over positions, computed in float32 whatever the student's dtype. The
KL-type terms carry the factor T^2, so that their gradients keep their size at any T (Hinton, Vinyals, Dean 2015, section 2).

Two rules for classes whose logit is -inf (probability 0): 0 * log 0 = 0, and a class that is -inf on both sides does not
count. The teacher's distributions come from `pipeline.labels.soft`; which rows carry a hard label is `split`'s business.

B batch (positions), C classes; z the student's logits, v the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ClassMismatch, ConfigError, LabelError, LogitsError
from pipeline.labels.ensemble import check_temperature
from pipeline.labels.soft import SoftLabels

SoftTerm = Callable[[Tensor, SoftLabels, float, str], Tensor]


def distillation_loss(
    student: Tensor,
    soft: SoftLabels | None,
    labels: Tensor,
    *,
    temperature: float,
    hard_weight: float,
    soft_weight: float,
    loss: str = "forward_kl",
    mean: str = "arithmetic",
    positions: int | None = None,
    labelled: int | None = None,
) -> Tensor:
    """The loss of a batch, or of one micro-batch's share in it.

    Args:
        student: (B, C) raw logits z, any float dtype.
        soft: the teacher's labels of the same rows; None where `soft_weight` is 0, and not looked at there.
        labels: (B,) int64 hard labels, -1 for none.
        temperature: T > 0 of the soft term; the hard term is taken at T = 1.
        hard_weight, soft_weight: finite, >= 0; a term of weight 0 is not computed.
        loss: a name of `LOSSES`.
        mean: how members are averaged, see `pipeline.labels.ensemble`; `logit_mse` always takes the mean logits.
        positions, labelled: how many positions, and how many with a label, the whole batch has; those of this call by
            default. With them the losses of micro-batches add up to the loss of the batch.

    Returns:
        Scalar float32: hard_weight * (sum of CE) / labelled + soft_weight * (sum of the soft term) / positions. Without any
        labelled row the hard term is 0.

    Raises:
        ConfigError: an impossible temperature or weight, an unknown name, or no soft labels where they are needed.
        ClassMismatch: student and soft labels differ in rows or classes.
        LabelError: a label outside -1 .. C - 1.
        LogitsError: a loss that is undefined because one side alone is -inf; see the term.
    """
    if not (0 <= hard_weight < float("inf") and 0 <= soft_weight < float("inf")):
        raise ConfigError(
            f"weights must be finite numbers >= 0, not hard_weight={hard_weight}, soft_weight={soft_weight}",
            remedy="give such numbers",
        )
    total = student.new_zeros((), dtype=torch.float32)
    if hard_weight > 0:
        count = int((labels >= 0).sum()) if labelled is None else labelled
        total = total + hard_weight * hard_sum(student, labels) / max(count, 1)
    if soft_weight > 0:
        count = len(student) if positions is None else positions
        summed = soft_sum(student, soft, temperature=temperature, loss=loss, mean=mean)
        total = total + soft_weight * summed / max(count, 1)
    return total


def hard_sum(student: Tensor, labels: Tensor) -> Tensor:
    """Sum of CE(student, label) in nats over the rows of (B, C) that have a label in (B,): scalar float32."""
    _check_student(student)
    classes = student.shape[1]
    if labels.shape != student.shape[:1]:
        raise ClassMismatch(
            f"the model gives logits for {len(student)} rows, the batch has labels of shape {tuple(labels.shape)}",
            remedy="use a model that gives one row of logits for each input",
        )
    if bool(((labels < -1) | (labels >= classes)).any()):
        wrong = labels[(labels < -1) | (labels >= classes)][0].item()
        raise LabelError(
            f"hard label {wrong} lies outside the student's {classes} classes (-1 means none)",
            remedy="mend the transfer set's labels, or give the student the right number of classes",
        )
    return functional.cross_entropy(student.float(), labels, ignore_index=-1, reduction="sum")


def soft_sum(
    student: Tensor, soft: SoftLabels | None, *, temperature: float, loss: str = "forward_kl", mean: str = "arithmetic"
) -> Tensor:
    """Sum over the rows of the soft term called `loss`, T^2 included: scalar float32. Arguments and errors as above."""
    check_temperature(temperature)
    if loss not in LOSSES:
        raise ConfigError(f"no loss is called {loss!r}", remedy=f"choose one of {', '.join(LOSSES)}")
    if soft is None:
        raise ConfigError(f"the loss {loss} needs soft labels and there are none", remedy="give a store, or alpha=0")
    _check_student(student)
    stored = (soft.logits.shape[0], soft.logits.shape[2])
    if stored != tuple(student.shape):
        raise ClassMismatch(
            f"the student gives (rows, classes) = {tuple(student.shape)}, the soft labels have {stored}",
            remedy="give the student as many classes as the store has",
        )
    return LOSSES[loss](student.float(), soft, temperature, mean).sum()


def forward_kl(student: Tensor, soft: SoftLabels, temperature: float, mean: str) -> Tensor:
    """T^2 * KL(teacher_T || student_T), (B,). It is +inf where the student's logit is -inf and the teacher has mass."""
    teacher = soft.log_probs(temperature, mean)
    return temperature**2 * _expect(teacher, teacher - torch.log_softmax(student / temperature, dim=-1))


def soft_ce(student: Tensor, soft: SoftLabels, temperature: float, mean: str) -> Tensor:
    """T^2 * cross-entropy of the student under the teacher, (B,): `forward_kl` plus T^2 times the teacher's entropy."""
    teacher = soft.log_probs(temperature, mean)
    return temperature**2 * _expect(teacher, -torch.log_softmax(student / temperature, dim=-1))


def reverse_kl(student: Tensor, soft: SoftLabels, temperature: float, mean: str) -> Tensor:
    """T^2 * KL(student_T || teacher_T), (B,).

    Infinite with no gradient that would mend it where the teacher's probability is 0 and the student's is not, which is
    therefore refused (LogitsError): a student must have -inf there too.
    """
    teacher = soft.log_probs(temperature, mean)
    impossible = torch.isneginf(student)
    if bool((torch.isneginf(teacher) & ~impossible).any()):
        raise LogitsError(
            "reverse_kl is infinite: a class that is impossible to the teacher (-inf) is possible to the student",
            remedy="use loss=forward_kl, or give the student -inf for such classes",
        )
    log_q = torch.log_softmax(student / temperature, dim=-1).masked_fill(impossible, 0.0)
    gap = log_q - teacher.masked_fill(impossible, 0.0)
    return temperature**2 * (log_q.exp() * gap).masked_fill(impossible, 0.0).sum(dim=-1)


def logit_mse(student: Tensor, soft: SoftLabels, temperature: float, mean: str) -> Tensor:
    """sum_i ((z_i - mean z) - (v_i - mean v))^2 / (2N), (B,), with v the members' mean logits; T and `mean` play no part.

    The limit of `forward_kl` for T -> infinity, in value and in gradient: T^2 * dKL/dz_i -> (z_i - v_i) / N for centred
    logits (Hinton et al. 2015, eq. 4). N counts the classes that are finite on both sides, over which the means are
    taken too. A class that is -inf on one side alone has no squared distance and is refused (LogitsError).
    """
    target = soft.mean_logits()
    impossible = torch.isneginf(target)
    if not torch.equal(impossible, torch.isneginf(student)):
        raise LogitsError(
            "logit_mse is undefined: a class is impossible (-inf) to the teacher or to the student alone",
            remedy="use loss=forward_kl, or give the student -inf for exactly the teacher's impossible classes",
        )
    finite = (~impossible).sum(dim=-1, keepdim=True)
    gap = student.masked_fill(impossible, 0.0) - target.masked_fill(impossible, 0.0)
    centred = (gap - gap.sum(dim=-1, keepdim=True) / finite).masked_fill(impossible, 0.0)
    return centred.square().sum(dim=-1) / (2 * finite.squeeze(-1))


LOSSES: dict[str, SoftTerm] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "soft_ce": soft_ce,
    "logit_mse": logit_mse,
}


def _expect(log_p: Tensor, values: Tensor) -> Tensor:
    """sum_i p_i values_i over the classes with p_i not 0: (B, C), (B, C) -> (B,)."""
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * values).sum(dim=-1)


def _check_student(student: Tensor) -> None:
    if student.dim() != 2 or not student.is_floating_point():
        raise ClassMismatch(
            f"the model's output is {student.dtype} of shape {tuple(student.shape)}, not float logits (rows, classes)",
            remedy="use a model that gives one float logit for each class",
        )
