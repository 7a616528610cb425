"""How good the flags of a student are (targets of kind sigmoid): against known flags (NLL, ECE, F1, mean average precision) and
against the teacher (agreement, KL). `metrics` runs it over batches, and has the names of the scores.

A class is said where its probability is above 1/2, that is z > 0. A class without a flag of 1 has no average precision and no
F1 of its own, and takes no part in their means.

B batch (or a block of positions), C classes, K known flags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softlabels.labels.sigmoid_encode import bernoulli_kl
from softlabels.labels.soft import SoftLabels
from softlabels.student.calibration import add_to_bins, calibration_error, empty_bins
from softlabels.student.merging import Merging

KEPT = (
    1 << 26
)  # flags whose logits are kept, at 5 bytes each, to be put in order; beyond there is no mean average precision


class FlagMetrics(Merging):
    """Adds up predictions, a batch at a time.

    Args:
        temperatures: T of the KLs; 1, or the temperature next to it at which the teacher is known, is always one of them.
        mean: how the teacher's members are averaged, see `softlabels.labels.bernoulli`.
    """

    SUMS = ("_rows", "_labelled", "_compared", "_nll", "_bins", "_counts", "_kept", "_agreed", "_kl")

    def __init__(self, temperatures: Sequence[float], mean: str) -> None:
        self._temperatures, self._mean = temperatures, mean
        self._rows = self._labelled = self._compared = 0
        self._nll = 0.0
        self._bins = empty_bins()
        self._counts: Tensor | None = None  # (3, C): flags of 1, classes said of which the flag is known, both
        self._kept: list[tuple[Tensor, Tensor]] = []  # logits float32 and flags int8, (B, C), while they are few enough
        self._room = KEPT
        self._agreed = 0.0
        self._kl: dict[float, float] = {}  # by T

    def update(self, logits: Tensor, labels: Tensor, soft: SoftLabels | None) -> None:
        """Add a model's raw logits (B, C), any float dtype; flags (B, C) of 0, 1 or -1; the teacher, if any."""
        wide = logits.double()
        self._add(lambda t: wide / t, labels, soft)

    def update_teacher(self, labels: Tensor, soft: SoftLabels, member: int | None = None) -> None:
        """Add the stored teacher itself, or one member of it, which is compared with the mean of all."""
        said, mean = (
            (soft, self._mean) if member is None else (soft.member(member), "geometric")
        )  # of one all are alike
        self._add(lambda t: said.logits(t, mean).double(), labels, soft, at=said.near_1)

    def result(self) -> dict[str, Any]:
        """The scores of everything added so far."""
        scores: dict[str, Any] = {"rows": self._rows, "labelled": self._labelled}
        if self._labelled:
            flags = int(self._bins[:, 0].sum())
            scores |= {
                "flags": flags,
                "nll": self._nll / flags,
                "ece": calibration_error(self._bins),
                **self._of_classes(),
            }
        if self._compared:
            scores["agreement"] = self._agreed / self._compared
            scores["kl"] = {f"{t:g}": kl / self._compared for t, kl in self._kl.items()}
        return scores

    def sums(self) -> dict[str, Any]:
        """See `Merging`."""
        return {**super().sums(), "used": KEPT - self._room}

    def merge(self, sums: dict[str, Any]) -> None:
        """See `Merging`."""
        super().merge({name: each for name, each in sums.items() if name != "used"})
        self._room -= sums["used"]
        if self._room < 0:
            self._kept.clear()

    def _add(
        self, logits_at: Callable[[float], Tensor], labels: Tensor, soft: SoftLabels | None, *, at: float = 1.0
    ) -> None:
        z = logits_at(at)
        self._rows += len(z)
        self._add_flags(z, labels)
        if soft is None:
            return
        self._compared += len(z)
        same = ((z > 0) == (soft.logits(soft.near_1, self._mean) > 0)).double().mean(dim=-1)
        measured = sorted({soft.near_1, *self._temperatures})
        columns = [bernoulli_kl(soft.logits(t, self._mean).double(), logits_at(t)).sum(dim=-1) for t in measured]
        agreed, *kls = torch.stack([same, *columns]).sum(dim=1).cpu().tolist()
        self._agreed += agreed
        self._kl = {t: self._kl.get(t, 0.0) + kl for t, kl in zip(measured, kls, strict=True)}

    def _add_flags(self, z: Tensor, labels: Tensor) -> None:
        known, true, said = labels >= 0, labels == 1, z > 0
        self._labelled += int(known.any(dim=-1).sum())
        of_known, is_true = z[known], true[known]
        self._nll -= logsigmoid(torch.where(is_true, of_known, -of_known)).sum().item()
        add_to_bins(self._bins, of_known.sigmoid().cpu(), is_true.double().cpu())
        counts = torch.stack([true, said & known, said & true]).sum(dim=1).cpu()
        self._counts = counts if self._counts is None else self._counts + counts
        self._room -= labels.numel()
        if self._room < 0:
            self._kept.clear()
        else:
            self._kept.append((z.float().cpu(), labels.to(torch.int8).cpu()))

    def _of_classes(self) -> dict[str, Any]:
        """`f1` and `map`, as far as there are flags of 1."""
        assert self._counts is not None
        true, said, both = self._counts
        if not int(true.sum()):
            return {}
        own = (2 * both.double() / (true + said))[true > 0]
        found: dict[str, Any] = {
            "f1": {"micro": 2 * int(both.sum()) / int((true + said).sum()), "macro": own.mean().item()}
        }
        if self._kept:
            logits, flags = (torch.cat(each) for each in zip(*self._kept, strict=True))
            precisions = [average_precision(logits[:, c], flags[:, c]) for c in (true > 0).nonzero()[:, 0].tolist()]
            found["map"] = sum(precisions) / len(precisions)
        return found


def average_precision(scores: Tensor, flags: Tensor) -> float:
    """sum_n (R_n - R_{n-1}) P_n over the thresholds n that scores (B,) of known flags give, from the highest down; R is recall,
    P precision. Rows of equal scores are one threshold. Some flag is 1.
    """
    known = flags >= 0
    ordered, order = scores[known].sort(descending=True)
    hits = (flags[known][order] == 1).cumsum(dim=0).double()
    ends = torch.ones_like(order, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    found, said = hits[ends], (ends.nonzero()[:, 0] + 1).double()
    gained = torch.diff(found, prepend=torch.zeros_like(found[:1]))
    return float((gained * found / said).sum() / hits[-1])
