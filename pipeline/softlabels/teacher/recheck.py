"""Whether a store still says what the live teacher says: a sample of its batches run again and compared.

N distributions of a batch, M stored members, C classes, K stored classes of a top-k encoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.checks.rounding import TOLERANCE
from softlabels.errors import OtherMemberOrder, OtherWeights, SpecMismatch, UnlabelledRows
from softlabels.labels.base import Columns
from softlabels.labels.blocks import reduced
from softlabels.labels.dense_encode import measure_dense
from softlabels.labels.encoding import Encoding
from softlabels.store.key_index import KeyIndex
from softlabels.store.reader import Store
from softlabels.store.spec import Spec
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.label import shard_batches
from softlabels.teacher.sentinels import require_ensemble_logits
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows

# Root mean square of the deviations of all compared logits, relative to that of the teacher's logits about their mean: four
# times what was measured (docs/runs.md). One logit among thousands may be off by more, which `TOLERANCE` bounds.
TOLERANCE_TOGETHER = {"float32": 1e-4, "float16": 6e-3, "bfloat16": 5e-2}
_SMALL = 0.1  # logits that are small because large terms cancel are rounded as those terms are
_FARTHEST = -100.0  # z - max(z); what lies below is mostly a mark, and counts for the bound on single logits only
_MASS = 2e-3  # what the encoding of a tail's mass loses, with room
_MOST_MASS = 0.1  # in coarse arithmetic the bound on single logits would allow any mass


@dataclass
class RootMeanSquare:
    """Of the finite values that were added."""

    squares: float = 0.0
    count: int = 0

    def add(self, values: Tensor | NDArray[np.floating]) -> None:
        """More values, of any shape."""
        given = torch.as_tensor(values)
        finite = torch.isfinite(given)
        self.squares += float(torch.where(finite, given, 0.0).double().square().sum())
        self.count += int(finite.sum())

    @property
    def value(self) -> float:
        """0 of none."""
        return math.sqrt(self.squares / max(self.count, 1))


@dataclass
class Deviation:
    """What the sample shows.

    Attributes:
        rows: how many were compared.
        largest_logit: the largest |z - stored z| over finite logits; of top-k labels over the stored classes and the row's
            label, with z - max(z) on both sides.
        scale: the largest |z| that was seen.
        difference, magnitude, stored: root mean squares over classes at most 100 below the largest: of z - stored z and of the
            teacher's z, both about the distribution's mean; of what the store holds, z - max(z).
        peak: root mean square of max(z), of the teacher.
        spacing: between the numbers near 1 of the teacher's outputs' dtype.
        largest_mass: of top-k labels, the largest error of the tail's mass at the lowest temperature and twice and four times
            that; None without a tail.
        kl_max: of dense labels, the largest KL(live || stored) at T = 1 in nats; else None.
        top1_agreement: the share of equal top classes.
        precision: of the teacher.
        beta: the largest inverse temperature at which the tail's mass is compared.
        encoded_mass: the error of the mass that the store itself states.
    """

    precision: str
    beta: float = 1.0
    encoded_mass: float = 0.0
    rows: int = 0
    largest_logit: float = 0.0
    scale: float = 0.0
    difference: RootMeanSquare = field(default_factory=RootMeanSquare)
    magnitude: RootMeanSquare = field(default_factory=RootMeanSquare)
    stored: RootMeanSquare = field(default_factory=RootMeanSquare)
    peak: RootMeanSquare = field(default_factory=RootMeanSquare)
    spacing: float = 0.0
    largest_mass: float | None = None
    kl_max: float | None = None
    agreed: int = 0
    samples: int = 0

    @property
    def top1_agreement(self) -> float:
        """As above."""
        return self.agreed / max(self.samples, 1)

    @property
    def allowed(self) -> float:
        """The deviation of a logit that rounding explains: in the teacher's arithmetic, and of float16."""
        return TOLERANCE[self.precision] * (1 + self.scale) + self.scale * 2.0**-11

    @property
    def allowed_together(self) -> float:
        """The root mean square of all deviations that rounding explains, as above.

        A constant that is added to all logits changes no label, but what is far from 0 is rounded coarsely.
        """
        within = TOLERANCE_TOGETHER[self.precision] * (_SMALL + self.magnitude.value)
        return max(within, self.spacing * self.peak.value) + self.stored.value * 2.0**-11

    @property
    def allowed_mass(self) -> float:
        """The same of the tail's mass: logits that are off by d move it by at most beta d / 2, and rounding by far less."""
        return _MASS + 2 * self.encoded_mass + min(self.beta * self.allowed / 2, _MOST_MASS)

    @property
    def sound(self) -> bool:
        """Whether the deviation is no larger than rounding explains."""
        return (
            self.largest_logit <= self.allowed
            and self.difference.value <= self.allowed_together
            and (self.largest_mass or 0.0) <= self.allowed_mass
        )


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
    batches = [batch for shard in range(store.spec.shards) for batch in shard_batches(store.spec, shard)]
    index = KeyIndex(np.asarray(rows.keys))
    stated = max((line.tail_mass_error for line in store.manifest.fidelity.values()), default=0.0)
    found = Deviation(store.spec.teacher.precision, 1 / (store.encoding.lowest_temperature or 1.0), stated)
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
            remedy="give the recipe of the transfer set that was labelled",
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
    for start in range(0, len(inputs), ensemble.batch_size):
        at = slice(start, start + ensemble.batch_size)
        own = {name: values[at] for name, values in columns.items()}
        _compare(spec, ensemble, inputs[at], own, labels[at.start * each : at.stop * each], found)


def _compare(
    spec: Spec,
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    soft = {name: columns[name] for name in spec.soft_columns}
    counts = np.ones(len(labels), np.bool_)
    if spec.positions is not None:
        soft = {name: values.reshape(-1, *values.shape[2:]) for name, values in soft.items()}
        counts = columns["position_mask"].reshape(-1).astype(np.bool_)
    found.rows += len(inputs)
    for where, block in ensemble.outputs(inputs).blocks():
        real = counts[where]
        if real.any():
            live = block[torch.from_numpy(real).to(block.device)]
            found.spacing = max(found.spacing, torch.finfo(block.dtype).eps)
            if spec.encoding.reduce == "geometric":
                live = reduced(live, np.array(ensemble.weights))
            own = {name: values[where][real] for name, values in soft.items()}
            if spec.encoding.keeps_all:
                _dense(live, own, found)
            else:
                _topk(spec.encoding, spec.label_space.classes, live, own, labels[where][real], found)


def _dense(logits: Tensor, columns: Columns, found: Deviation) -> None:
    """Every class's logit."""
    live, encoded = logits.float().cpu().numpy(), columns["logits"].astype(np.float16)
    stored = encoded.astype(np.float32) + columns["shift"].astype(np.float32)[..., None]
    _logits(live, stored, found)
    _together(_below_largest(logits, found).float().cpu().numpy(), encoded.astype(np.float32), found)
    found.scale = max(found.scale, float(np.abs(encoded[np.isfinite(encoded)]).max(initial=0.0)))
    both = np.isfinite(live.max(axis=-1)) & (np.isneginf(live) == np.isneginf(encoded)).all(axis=-1)
    real = both.all(axis=-1)  # rows whose distributions have the same classes, without which the KL is infinite
    sums = measure_dense(torch.from_numpy(live[real]), torch.from_numpy(encoded[real]))[0]
    kl_max = sums.kl_max if real.all() else None
    found.kl_max = max(found.kl_max or 0.0, math.inf if kl_max is None else kl_max)
    found.agreed, found.samples = found.agreed + sums.top1_agreed, found.samples + live[..., 0].size


def _topk(
    encoding: Encoding,
    classes: int,
    logits: Tensor,
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    """The stored classes' logits, that no other class is above them, the label's logit, and the tail's mass."""
    found.scale = max(found.scale, float(torch.where(torch.isfinite(logits), logits.abs(), 0.0).max()))
    z = _below_largest(logits, found)
    kept = encoding.members({name: torch.from_numpy(values) for name, values in columns.items()}, classes).to(z.device)
    ids = kept.ids()
    stored = columns["top_logit"].astype(np.float32)
    live = z.gather(-1, ids).float().cpu().numpy()
    _logits(live, stored, found)
    _together(live, stored, found)
    _logits(z.topk(ids.shape[-1], dim=-1).values.float().cpu().numpy(), -np.sort(-stored, axis=-1), found)
    given = (labels >= 0) & ~np.isnan(columns["label_logit"]).any(axis=-1)  # NaN: the encoder knew no label
    if given.any():
        own = torch.from_numpy(labels[given]).to(z.device)[:, None, None].expand(-1, z.shape[1], 1)
        live = z[torch.from_numpy(given).to(z.device)].gather(-1, own)[..., 0].float().cpu().numpy()
        _logits(live, columns["label_logit"][given].astype(np.float32), found)
    top = ids.gather(-1, torch.from_numpy(stored.argmax(axis=-1)[..., None]).to(z.device))[..., 0]
    found.agreed += int((z.argmax(dim=-1) == top).sum())
    found.samples += top.numel()
    tail = z.scatter(-1, ids, -math.inf)
    for factor in (1.0, 2.0, 4.0) if kept.tail != "renormalised" else ():
        temperature = factor * encoding.lowest_temperature
        mass = (tail / temperature).logsumexp(-1).sub((z / temperature).logsumexp(-1)).exp()
        found.largest_mass = max(
            found.largest_mass or 0.0, float((mass - kept.stored(temperature)[1].exp()).abs().max())
        )


def _below_largest(logits: Tensor, found: Deviation) -> Tensor:
    """The teacher's z - max(z) (n, M, C) float64; where max(z) lies and how far the logits lie apart is noted."""
    peak = logits.double().amax(dim=-1, keepdim=True)
    z = logits - peak
    counts = z > _FARTHEST
    mean = torch.where(counts, z, 0.0).sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True).clamp_min(1)
    found.magnitude.add(torch.where(counts, z - mean, torch.nan))
    found.peak.add(peak)
    return z


def _together(live: NDArray[np.float32], stored: NDArray[np.float32], found: Deviation) -> None:
    """Of the teacher and of the store z - max(z), for the bound on all logits together: what moves all alike is none."""
    counts = (live > _FARTHEST) & (stored > _FARTHEST)
    apart = np.where(counts, live, 0.0) - np.where(counts, stored, 0.0)
    mean = apart.sum(axis=-1, keepdims=True) / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    found.difference.add((apart - mean)[counts])
    found.stored.add(stored[counts])


def _logits(live: NDArray[np.float32], stored: NDArray[np.float32], found: Deviation) -> None:
    """The differences; the largest is infinite where a class is impossible on one side only, or a logit NaN or +inf."""
    finite = np.isfinite(live)
    if (np.isneginf(live) != np.isneginf(stored)).any() or not (live < math.inf).all():
        found.largest_logit = math.inf
    finite &= np.isfinite(stored)
    apart = live[finite] - stored[finite]
    found.largest_logit = max(found.largest_logit, float(np.abs(apart).max(initial=0.0)))
    found.scale = max(found.scale, float(np.abs(live)[finite].max(initial=0.0)))
