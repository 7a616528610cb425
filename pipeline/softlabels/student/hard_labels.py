"""Hard labels of a batch in torch: which positions have one, and what a label may be. What they are of each kind of target says
`softlabels.labels.hard`.

N positions (or rows of positions), C classes, D values. No torch at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softlabels.errors import ClassMismatch, LabelError
from softlabels.labels import NO_LABEL
from softlabels.labels.hard import NONE
from softlabels.labels.targets import Target

if TYPE_CHECKING:
    from torch import Tensor


def is_labelled(labels: Tensor, target: Target) -> Tensor:
    """Which positions have a label: bool, of the labels' shape but for the axis of classes or values."""
    if target == "softmax":
        return labels >= 0
    return (labels >= 0).any(dim=-1) if target == "sigmoid" else ~labels.isnan().any(dim=-1)


def count_labelled(labels: Tensor, target: Target) -> int:
    """How many positions have a label."""
    return int(is_labelled(labels, target).sum())


def only_where(kept: Tensor, labels: Tensor, target: Target) -> Tensor:
    """The labels of the rows (B,), or positions (B, P), that are `kept`, bool, and none for the others."""
    axes = kept.view(*kept.shape, *[1] * (labels.dim() - kept.dim()))
    return labels.masked_fill(~axes, NONE[target])


def check_labels(labels: Tensor, outputs: int, target: Target = "softmax") -> None:
    """Raise unless labels (N, ...) may be those of a student with `outputs` outputs.

    Raises:
        ClassMismatch: flags or vectors of another length.
        LabelError: a class outside -1 .. C - 1, a flag that is none of -1, 0 and 1, a vector that is infinite or NaN in part.
    """
    if target == "softmax":
        remedy = "correct the transfer set's labels, or give the student the right number of classes"
        if outputs == 1:
            remedy = "one output has no classes: say transfer_set.label_as: values, or flags of 0 and 1"
        outside = f"hard label {{}} lies outside the student's {outputs} classes (-1 means none)"
        _refuse(labels, (labels < NO_LABEL) | (labels >= outputs), outside, remedy)
        return
    dtype = "int8" if target == "sigmoid" else "float32"
    if labels.shape[1:] != (outputs,) or labels.is_floating_point() != (target == "values"):
        raise ClassMismatch(
            f"hard labels are {labels.dtype} of shape {tuple(labels.shape)}, and the student gives {outputs} outputs",
            remedy=f"labels of kind {target} are (positions, outputs) {dtype}",
        )
    mend = "correct the transfer set's labels"
    if target == "sigmoid":
        _refuse(labels, (labels < NO_LABEL) | (labels > 1), "a flag is {}: flags are 0, 1 or -1 (unknown)", mend)
        return
    _refuse(labels, labels.isinf(), "a hard label holds {}", mend)
    missing = labels.isnan().sum(dim=-1)
    _refuse(missing, (missing > 0) & (missing < outputs), "a hard label is NaN in {} of its values", mend)


def _refuse(found: Tensor, wrong: Tensor, what: str, remedy: str) -> None:
    """Raise LabelError, which names the first that is wrong."""
    if bool(wrong.any()):
        raise LabelError(what.format(found[wrong][0].item()), remedy=remedy)
