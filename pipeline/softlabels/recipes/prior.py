"""Correcting a student whose transfer set has other shares of the classes than the world it is used in. No label is looked at.

Hinton, Vinyals, Dean 2015, section 3, leave all threes out of a transfer set: the student has heard of them from its
teacher's soft labels only, holds them for rare, and is mended by a bias on that class's logit, which they tuned on the test
set. Here are two ways to that bias without labels:

`ratio_bias`    log(share there) - log(share in the transfer set) for every class: Bayes' rule, where the student's p(class |
                row) carries the shares of its transfer set (Saerens, Latinne, Decaestecker 2002). Needs nothing but the
                stored labels. A student that came close to its teacher's function, which knows no transfer set, is corrected
                too much by it.
`matched_bias`  one number for all classes that are rare in the transfer set, such that the student gives them, on unlabelled
                rows of the place of use, the share that they have there.

R rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError, some
from softlabels.student.metrics import Batches

RARE = 0.1  # of its share where the student will be used: below it a class counts as missing from the transfer set


def class_shares(batches: Batches, *, mean: str) -> Tensor:
    """The teacher's mean probability of each class at T = 1 over all rows: (C,) float64, summing to 1.

    Raises:
        ConfigError: batches without soft labels.
    """
    total, rows = torch.zeros((), dtype=torch.float64), 0
    for batch in batches.epoch(0):
        if batch.soft is None:
            raise ConfigError("these batches have no soft labels", remedy="give the loader a store")
        total = total + batch.soft.log_probs(1.0, mean).double().exp().sum(dim=0)
        rows += len(batch)
    return total / rows


def target_shares(given: Sequence[float] | str, classes: int) -> Tensor:
    """The shares of the classes where the student will be used: (C,) float64, summing to 1.

    Args:
        given: one number a class, on any positive scale; or "uniform".
        classes: C.

    Raises:
        ConfigError: shares that are not positive and finite, or not one a class.
    """
    if isinstance(given, str) and given != "uniform":
        raise ConfigError(f"class_prior is {given!r}", remedy="give uniform, or one number a class")
    wanted = torch.ones(classes).double() if isinstance(given, str) else torch.tensor(given, dtype=torch.float64)
    if wanted.shape != (classes,) or not bool((torch.isfinite(wanted) & (wanted > 0)).all()):
        raise ConfigError(
            f"class_prior has {wanted.numel()} numbers for {classes} classes: {some(wanted.tolist())}",
            remedy="give one number above 0 a class, or uniform",
        )
    return wanted / wanted.sum()


def ratio_bias(target: Tensor, shares: Tensor) -> Tensor:
    """What to add to each logit: log(target) - log(shares), (C,) float64.

    Args:
        target: (C,) the shares of the classes where the student will be used.
        shares: (C,) those of the transfer set.

    Raises:
        ConfigError: a class that the teacher never deems possible.
    """
    never = torch.nonzero(shares <= 0).flatten().tolist()
    if never:
        raise ConfigError(
            f"the teacher gives class {never[0]} no probability on any row of the transfer set",
            remedy="such a class cannot be corrected this way; give --rows, or add rows to the transfer set",
        )
    return target.log() - shares.log()


def matched_bias(target: Tensor, shares: Tensor, logits: Tensor) -> Tensor:
    """What to add to each logit: one number for the rare classes, 0 for the others, (C,) float64.

    Args:
        target: (C,) the shares of the classes where the student will be used.
        shares: (C,) those of the transfer set; a class is rare there below a tenth of its target.
        logits: (R, C) the student's on unlabelled rows of the place of use.

    Raises:
        ConfigError: no class, or every class, is rare.
    """
    rare = shares < RARE * target
    if not bool(rare.any()) or bool(rare.all()):
        raise ConfigError(
            f"{int(rare.sum())} of {len(shares)} classes have less than {RARE:g} of their share in the transfer set",
            remedy="leave --rows out to correct every class by the ratio of its shares",
        )
    wide = logits.double()
    odds = wide[:, rare].logsumexp(dim=1) - wide[:, ~rare].logsumexp(dim=1)  # (R,) log odds of a rare class
    low, high = -odds.max() - 40, -odds.min() + 40
    for _ in range(200):  # the mean grows with the bias: halve the interval until nothing is left of it
        middle = (low + high) / 2
        low, high = (middle, high) if torch.sigmoid(odds + middle).mean() < target[rare].sum() else (low, middle)
    return torch.where(rare, middle, 0.0)


def predictions(model: nn.Module, batches: Batches, device: torch.device) -> Tensor:
    """A model's logits on every row, (R, C) float32 on the CPU."""
    model.to(device).eval()
    with torch.inference_mode():
        return torch.cat([model(batch.to(device).inputs).float().cpu() for batch in batches.epoch(0)])
