"""Correcting a student whose transfer set has other shares of the classes than the world it is used in.

A student of a transfer set without any 3 has heard of threes from its teacher's soft labels, but holds them for rare. What
it gives as p(class | row) carries the shares of the classes in the transfer set; for other shares Bayes' rule multiplies each
class by the ratio of the two, which adds log(share there) - log(share in the transfer set) to its logit (Saerens, Latinne,
Decaestecker 2002). The share in the transfer set is the teacher's own mean probability over its rows, so that no label and no
row of the other world is needed. Hinton, Vinyals, Dean 2015, section 3, did the same by tuning a bias on the test set.

C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.student.metrics import Batches


def class_shares(batches: Batches, *, mean: str) -> Tensor:
    """The teacher's mean probability of each class at T = 1 over all rows: (C,) float64, summing to 1.

    Raises:
        ConfigError: batches without soft labels.
    """
    total, rows = torch.zeros((), dtype=torch.float64), 0
    for batch in batches.epoch(0):
        if batch.soft is None:
            raise ConfigError("these batches carry no soft labels", remedy="give the loader a store")
        total = total + batch.soft.log_probs(1.0, mean).double().exp().sum(dim=0)
        rows += len(batch)
    return total / rows


def prior_bias(target: Sequence[float] | str, shares: Tensor) -> Tensor:
    """What to add to each logit: log(target) - log(shares), (C,) float64.

    Args:
        target: the shares of the classes where the student will be used, any positive scale; or "uniform".
        shares: (C,) those of the transfer set.

    Raises:
        ConfigError: shares that are not positive and finite, or not one a class; a class that the teacher never deems possible.
    """
    classes = len(shares)
    wanted = torch.ones(classes) if isinstance(target, str) else torch.tensor(target)
    wanted = wanted.double()
    if isinstance(target, str) and target != "uniform":
        raise ConfigError(f"class_prior is {target!r}", remedy="give uniform, or one number a class")
    if wanted.shape != (classes,) or not bool((torch.isfinite(wanted) & (wanted > 0)).all()):
        raise ConfigError(
            f"class_prior has {wanted.numel()} numbers, {wanted.tolist()[:5]} ..., for {classes} classes",
            remedy="give one number above 0 a class, or uniform",
        )
    never = torch.nonzero(shares <= 0).flatten().tolist()
    if never:
        raise ConfigError(
            f"the teacher gives class {never[0]} no probability on any row of the transfer set",
            remedy="such a class cannot be corrected; add rows to the transfer set",
        )
    return (wanted / wanted.sum()).log() - shares.log()
