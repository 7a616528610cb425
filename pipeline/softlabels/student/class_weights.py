"""What a row of each class counts in the loss, for classes that are rare: `training.class_weights`.

With w_c the weight of class c, a labelled row's cross-entropy counts w_y, and a row's soft term u = sum_c w_c p_c, p being
the teacher's distribution at T = 1: what its class weighs on average, as far as the teacher knows the class. The sums are
divided by the numbers of rows as without weights, so the loss does not depend on how a batch is cut, and weights that average
1 over the labelled rows leave its size alone. Of flags (targets of kind sigmoid) w_c is what class c's term counts, in both
terms. C classes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import ClassMismatch, ConfigError
from softlabels.labels.targets import Target

ClassWeights = Literal["balanced"] | tuple[float, ...] | None


def check_class_weights(weights: ClassWeights) -> None:
    """Raise ConfigError unless these are `balanced`, or finite numbers above 0."""
    if weights is None or weights == "balanced":
        return
    if not weights or not all(0 < float(weight) < math.inf for weight in weights):
        raise ConfigError(
            f"class_weights are {list(weights)}", remedy="give balanced, or one finite number above 0 for each class"
        )


def resolved(
    weights: ClassWeights, labels: NDArray[np.int64], classes: int, target: Target = "softmax"
) -> tuple[float, ...] | None:
    """One number a class.

    `balanced` is L / (K n_c), of L labels (R,) in K classes, n_c of them in class c (-1, none, does not count): the weights
    average 1 over the labelled rows, and every class weighs the same in all. A class without a label counts 1.

    Raises:
        ConfigError: no row has a label, or labels of another kind than one class a row are to be `balanced`.
        ClassMismatch: another number of weights than of classes.
    """
    if weights is None:
        return None
    if weights == "balanced" and target != "softmax":
        raise ConfigError(
            f"class_weights=balanced counts rows of one class each, and these labels are of kind {target}",
            remedy="give a number for each class",
        )
    if weights == "balanced":
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        if not counts.any():
            raise ConfigError(
                "class_weights=balanced counts the classes of labelled training rows, and none has a label",
                remedy="give a number for each class",
            )
        present = int((counts > 0).sum())
        return tuple(float(counts.sum()) / (present * int(count)) if count else 1.0 for count in counts)
    if len(weights) != classes:
        raise ClassMismatch(
            f"class_weights has {len(weights)} numbers, and there are {classes} classes",
            remedy="give one for each class",
        )
    return tuple(float(weight) for weight in weights)
