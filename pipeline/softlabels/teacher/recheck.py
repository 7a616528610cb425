"""Whether a store still says what the live teacher says: a sample of its batches run again and compared.

N distributions of a batch, M stored members, C classes, K stored classes of a top-k encoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.rounding import HALF, TOLERANCE
from softlabels.errors import OtherMemberOrder, OtherWeights, SpecMismatch, UnlabelledRows
from softlabels.labels.base import Columns
from softlabels.labels.blocks import reduced
from softlabels.store.key_index import KeyIndex
from softlabels.store.reader import Store
from softlabels.store.spec import Spec
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.sentinels import require_ensemble_logits
from softlabels.teacher.teacher import teacher_batches
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows

# Measured, as shares of what is allowed (docs/runs.md): rounding 0.39 at most together and 0.77 of a single logit; dropout 4.4,
# two classes swapped 5.7, logits times 1.02 in float32 18, in float16 2.9, times 1.1 in bfloat16 1.5, a lower tail 1.2.
_SMALL = 0.1  # logits that are small because large terms cancel are rounded as those terms are
_TEMPERATURE = 4.0  # at which classes count by their probability: marks as low as -1e4 count nothing
_MASS = 1e-2  # a tail's mass; what its encoding loses beside


@dataclass
class Deviation:
    """What the sample shows, as sums over distributions.

    Attributes:
        precision: of the teacher.
        encoded_mass: the error of the tails' mass that the store itself states.
        rows: how many were compared.
        distributions: and of how many members and positions.
        difference: sum of the mean squares of z - stored z about its mean, each class weighted by its probability at T = 4.
        spread: the same of z.
        grid: sum of the squares of the steps between neighbouring numbers: near max(z) in the dtype of the teacher's outputs,
            near z - max(z) in float16, weighted as above.
        largest_logit: the largest |z - stored z| over 1 + the largest |z| of its distribution; infinite where a class is
            impossible on one side only, or z is NaN or +inf.
        largest_mass: of top-k labels, the largest error of the tail's mass at the lowest temperature and twice and four times
            that; None without a tail.
        agreed: distributions whose stored top class has the teacher's largest logit.
    """

    precision: str
    encoded_mass: float = 0.0
    rows: int = 0
    distributions: int = 0
    difference: float = 0.0
    spread: float = 0.0
    grid: float = 0.0
    largest_logit: float = 0.0
    largest_mass: float | None = None
    agreed: int = 0

    @property
    def top1_agreement(self) -> float:
        """The share of equal top classes."""
        return self.agreed / max(self.distributions, 1)

    @property
    def together(self) -> float:
        """The root mean square of all deviations: about the square root of twice the mean KL."""
        return self._root(self.difference)

    @property
    def allowed_together(self) -> float:
        """What rounding explains of it: half of what it may move one logit, relative to the spread of z, and `grid`.

        A constant that is added to all logits changes no label, but what is far from 0 is rounded coarsely.
        """
        return TOLERANCE[self.precision] / 2 * (_SMALL + self._root(self.spread)) + self._root(self.grid)

    @property
    def allowed_logit(self) -> float:
        """What rounding explains of `largest_logit`: in the teacher's arithmetic, and of z - max(z) in float16."""
        return TOLERANCE[self.precision] + 2 * HALF

    @property
    def allowed_mass(self) -> float:
        """What rounding and the encoding explain of `largest_mass`."""
        return max(_MASS, TOLERANCE[self.precision]) + 2 * self.encoded_mass

    @property
    def sound(self) -> bool:
        """Whether the deviation is no larger than rounding explains."""
        return (
            self.largest_logit <= self.allowed_logit
            and self.together <= self.allowed_together
            and (self.largest_mass or 0.0) <= self.allowed_mass
        )

    @property
    def line(self) -> str:
        """What was seen, each beside what rounding explains."""
        said = [
            f"largest deviation of a logit {self.largest_logit:.3g} of its row's largest (rounding explains "
            f"{self.allowed_logit:.3g})",
            f"root mean square {self.together:.3g} ({self.allowed_together:.3g})",
        ]
        if self.largest_mass is not None:
            said.append(f"of the tail's mass {self.largest_mass:.3g} ({self.allowed_mass:.3g})")
        return ", ".join([*said, f"same top class {self.top1_agreement:.2%}"])

    def _root(self, squares: float) -> float:
        return math.sqrt(squares / max(self.distributions, 1))


def compare_with_teacher(
    store: Store, rows: TransferRows, ensemble: Ensemble, *, sample: int = 256, seed: int = 0
) -> Deviation:
    """Run at least `sample` rows of the store (whole teacher batches, drawn by `seed`) through the live teacher.

    Raises:
        OtherWeights, OtherMemberOrder: the weights are not those that the store names, or in another order.
        SpecMismatch: its rows have other positions than the transfer set's.
        UnlabelledRows: the transfer set lacks its rows.
        LogitsError: the teacher's outputs are no logits.
    """
    _require_weights(store, ensemble)
    ensemble.expect(rows.sequence)
    require_ensemble_logits(ensemble, rows.inputs)
    batches = [batch for shard in range(store.spec.shards) for batch in teacher_batches(store.spec, shard)]
    index = KeyIndex(np.asarray(rows.keys))
    stated = max((line.tail_mass_error for line in store.manifest.fidelity.values()), default=0.0)
    found = Deviation(store.spec.teacher.precision, stated)
    for number in np.random.default_rng(seed).permutation(len(batches)):
        if found.rows >= sample:
            break
        at = np.arange(*batches[number])
        inputs = np.array(rows.inputs[_find(index, rows.name, store.gather("content_key", at))])
        columns = {name: np.asarray(store.gather(name, at)) for name in compared_columns(store.spec)}
        compare_batch(store.spec, ensemble, inputs, columns, np.asarray(_labels(store, at, inputs)), found)
    return found


def _require_weights(store: Store, ensemble: Ensemble) -> None:
    stored, live = store.spec.teacher.members, ensemble.spec.members
    ours, theirs = [member.weights for member in live], [member.weights for member in stored]
    if ours != theirs:
        if sorted(ours) == sorted(theirs):
            raise OtherMemberOrder(
                f"the teacher's members stand in another order than in {store.path}",
                remedy="list teacher.members as they were, or their logits are compared with each other's",
            )
        raise OtherWeights(
            f"the teacher's weights ({', '.join(m.weights[:12] for m in live)}) are not those that made the store "
            f"({', '.join(m.weights[:12] for m in stored)})",
            remedy="give the recipe whose teacher made it",
        )


def _find(index: KeyIndex, name: str, keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """The transfer set's rows with these keys (B, 16): (B,)."""
    found = index.find(keys.astype(np.uint8, copy=False))
    missing = int((found < 0).sum())
    if missing:
        raise UnlabelledRows(
            f"{missing} of {len(keys)} sampled rows of the store are not in the transfer set {name}",
            remedy="give the recipe of the transfer set that was labelled, and its transfer_set.key_salt where it has one",
        )
    return found


def _labels(store: Store, at: NDArray[np.int64], inputs: NDArray[np.generic]) -> NDArray[np.int64]:
    """The class (N,) of each distribution, -1 for none. Raises SpecMismatch where sequences have other positions."""
    if store.positions is None:
        return np.asarray(store.gather("label", at), np.int64)
    found = alignment(inputs)
    for name, own in (("position_mask", found.mask), ("document", found.document)):
        stored = np.asarray(store.gather(name, at))
        if own.shape != stored.shape or (own != stored).any():
            raise SpecMismatch(
                f"{name} of the store is not that of the transfer set's rows",
                remedy="give the recipe whose transfer_set.sequences made the store",
            )
    return found.next_token.reshape(-1)


def compared_columns(spec: Spec) -> tuple[str, ...]:
    """What `compare_batch` needs of a store's rows."""
    return spec.soft_columns if spec.positions is None else (*spec.soft_columns, "position_mask")


def compare_batch(
    spec: Spec,
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    """Run inputs (B, ...), as many at once as the recipe lets the teacher see, and add to `found` how far the stored columns
    (B, ...) are from the outputs; positions that do not count are left out. `labels` (N,): the class of each distribution.
    """
    each = len(labels) // len(inputs)  # distributions of a row
    soft, counts = {name: columns[name] for name in spec.soft_columns}, np.ones(len(labels), np.bool_)
    if spec.positions is not None:
        soft = {name: values.reshape(-1, *values.shape[2:]) for name, values in soft.items()}
        counts = columns["position_mask"].reshape(-1).astype(np.bool_)
    found.rows += len(inputs)
    for start in range(0, len(inputs), ensemble.batch_size):
        for where, block in ensemble.outputs(inputs[start : start + ensemble.batch_size]).blocks():
            at = np.arange(where.start, where.stop) + start * each
            real = counts[at]
            if real.any():
                live, at = block[torch.from_numpy(real).to(block.device)], at[real]
                own = {name: values[at] for name, values in soft.items()}
                _compare(spec, live, np.array(ensemble.weights), own, labels[at], found)


def _compare(
    spec: Spec,
    given: Tensor,
    weights: NDArray[np.float64],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    """Live logits (n, M, C) and stored columns (n, ...) of the same distributions, of classes `labels` (n,)."""
    z = (reduced(given, weights) if spec.encoding.reduce == "geometric" else given).double()
    peak = z.amax(dim=-1, keepdim=True)
    found.grid += float((torch.finfo(given.dtype).eps * peak).square().sum())
    if spec.encoding.keeps_all:
        _logits(z, z, _tensor(columns["logits"], z) + _tensor(columns["shift"], z)[..., None], found)
        return
    # The stored classes' logits, that no other class is above them, the label's logit, and the tail's mass.
    given_columns = {name: torch.from_numpy(values) for name, values in columns.items()}
    kept = spec.encoding.members(given_columns, spec.label_space.classes).to(z.device)
    ids = kept.ids()
    stored = _tensor(columns["top_logit"], z) + peak
    _logits(z, z.gather(-1, ids), stored, found)
    _largest(z, z.topk(ids.shape[-1], dim=-1).values, stored.sort(dim=-1, descending=True).values, found)
    label = _tensor(columns["label_logit"], z)[..., None] + peak
    known = ~label.isnan().flatten(1).any(dim=1)  # NaN: its maker knew no label
    has = torch.from_numpy(labels >= 0).to(z.device) & known
    own = torch.from_numpy(labels).to(z.device)[:, None, None].expand(-1, z.shape[1], 1)
    _largest(z[has], z[has].gather(-1, own[has]), label[has], found)
    tail = z.scatter(-1, ids, -math.inf)
    for factor in (1.0, 2.0, 4.0) if kept.tail != "renormalised" else ():
        temperature = factor * spec.encoding.lowest_temperature
        live = ((tail / temperature).logsumexp(-1) - (z / temperature).logsumexp(-1)).exp()
        apart = (live - kept.stored(temperature)[1].exp()).abs().max()
        found.largest_mass = max(found.largest_mass or 0.0, float(apart))


def _logits(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """Live and stored logits (n, M, K) of all or some of the classes of z (n, M, C)."""
    _largest(z, live, stored, found)
    found.agreed += int((live.gather(-1, stored.argmax(dim=-1, keepdim=True))[..., 0] == z.amax(dim=-1)).sum())
    found.distributions += z[..., 0].numel()
    weight = (live / _TEMPERATURE).softmax(dim=-1)
    below = torch.where(weight > 0, stored - stored.amax(dim=-1, keepdim=True), 0.0)
    found.grid += float((weight * (HALF * below).square()).sum())
    found.difference += _variance(live - stored, weight)
    found.spread += _variance(live, weight)


def _variance(values: Tensor, weight: Tensor) -> float:
    """Sum over distributions of the variance of values (n, M, K) under weights (n, M, K)."""
    real = torch.where(weight > 0, values, 0.0)
    about = real - (weight * real).sum(dim=-1, keepdim=True)
    return float((weight * about.square()).sum())


def _largest(z: Tensor, live: Tensor, stored: Tensor, found: Deviation) -> None:
    """The largest single deviation, relative to the largest logit of its distribution."""
    if (torch.isneginf(live) != torch.isneginf(stored)).any() or not (live < math.inf).all():
        found.largest_logit = math.inf
    scale = 1 + torch.where(torch.isfinite(z), z.abs(), 0.0).amax(dim=-1, keepdim=True)
    apart = torch.where(torch.isfinite(live), (live - stored).abs(), 0.0) / scale
    found.largest_logit = max(found.largest_logit, *apart.flatten(1).amax(dim=1).tolist(), 0.0)


def _tensor(values: NDArray[np.generic], like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float64)).to(like.device)
