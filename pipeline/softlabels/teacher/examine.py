"""What a sample of a teacher's distributions says before its pass: how flat they are at several temperatures, what the largest
classes leave to the tail, and what each of several encodings would lose. One pass over the sample, block by block.

n distributions of a block, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import TEMPERATURES, Fidelity, table
from softlabels.labels.lost import Lost
from softlabels.labels.tail_fit import TailBasis

SURE = 0.99  # a top probability at T = 1 above which a row says little beyond its class


@dataclass(frozen=True)
class Flatness:
    """Of the ensemble's mean distribution, by temperature ("1", "2", ...), the mean over the sample.

    Attributes:
        entropy: nats. top: the largest probability. tail: what the k largest leave, by k.
        sure: the share of the distributions whose largest probability at T = 1 is above `SURE`.
        most: ln C, the entropy of all classes alike.
    """

    entropy: Mapping[str, float]
    top: Mapping[str, float]
    tail: Mapping[str, Mapping[str, float]]
    sure: float
    most: float


@dataclass(frozen=True)
class Examined:
    """What was found in `samples` distributions: how flat they are, and what each encoding lost, by its name."""

    samples: int
    flatness: Flatness
    lost: Mapping[str, Mapping[str, Fidelity]]


def examine(
    blocks: Iterable[Tensor],
    weights: NDArray[np.float64],
    *,
    encodings: Mapping[str, Encoding],
    basis: TailBasis | None = None,
    tails: Sequence[int] = (),
) -> Examined:
    """Ask a sample's logits (n, M, C), a block after the other on one device; -inf marks a class of probability 0.

    Args:
        weights: (M,) of the members in the mean.
        encodings: what is tried, of softmax targets, by name. basis: of those with a tail of low rank.
        tails: how many classes k are kept, for each mass that the others have.

    Raises as `Encoding.encode`.
    """
    share = torch.from_numpy(weights / weights.sum())
    sums, sure, samples, classes = np.zeros((len(TEMPERATURES), 2 + len(tails))), 0, 0, 1
    lost: dict[str, list[Lost]] = {name: [] for name in encodings}
    for block in blocks:
        samples, classes = samples + len(block), block.shape[2]
        for number, temperature in enumerate(TEMPERATURES):
            p = (torch.softmax(block.double() / temperature, dim=2) * share.to(block.device)[:, None]).sum(dim=1)
            largest = p.topk(min(classes, max((1, *tails))), dim=1).values.cumsum(dim=1)
            found = [torch.special.entr(p).sum(), largest[:, 0].sum()]
            found += [(1 - largest[:, min(k, classes) - 1]).clamp_min(0).sum() for k in tails]
            sums[number] += torch.stack(found).cpu().numpy()
            sure += int((largest[:, 0] > SURE).sum()) if temperature == 1 else 0
        for name, encoding in encodings.items():
            shared = None if encoding.basis_rank is None else basis
            lost[name].append(encoding.encode(block, basis=shared)[1])
    means = sums / max(samples, 1)

    def by_temperature(column: int) -> dict[str, float]:
        return {f"{t:g}": float(mean) for t, mean in zip(TEMPERATURES, means[:, column], strict=True)}

    flatness = Flatness(
        entropy=by_temperature(0),
        top=by_temperature(1),
        tail={str(k): by_temperature(2 + number) for number, k in enumerate(tails)},
        sure=sure / max(samples, 1),
        most=float(np.log(classes)),
    )
    return Examined(samples, flatness, {name: table([Lost.total(parts).fidelity]) for name, parts in lost.items()})
