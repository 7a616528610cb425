"""Whether a store still says what the live teacher says: a sample of its batches run again and compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SpecMismatch, UnlabelledRows
from pipeline.labels.dense import reduce_geometric
from pipeline.labels.fidelity import measure_dense
from pipeline.store.key_index import KeyIndex
from pipeline.store.reader import Store
from pipeline.teacher.ensemble import TOLERANCE, Ensemble
from pipeline.teacher.label import shard_batches
from pipeline.transfer.rows import TransferRows


@dataclass(frozen=True)
class Deviation:
    """What the sample shows: `largest_logit` is the largest |z - stored z| over finite logits, `allowed` what rounding
    explains, `kl_max` the largest KL(live || stored) at T = 1 in nats, `top1_agreement` the share of equal top classes.
    """

    rows: int
    largest_logit: float
    allowed: float
    kl_max: float
    top1_agreement: float

    @property
    def sound(self) -> bool:
        """Whether the deviation is no larger than rounding explains."""
        return self.largest_logit <= self.allowed


def compare_with_teacher(
    store: Store, rows: TransferRows, ensemble: Ensemble, *, sample: int = 256, seed: int = 0
) -> Deviation:
    """Run at least `sample` rows of the store (whole teacher batches, drawn by `seed`) through the live teacher.

    Raises:
        SpecMismatch: the weights are not those that the store names. UnlabelledRows: the transfer set lacks its rows.
    """
    stored_members, live_members = store.spec.teacher.members, ensemble.spec.members
    if [member.weights for member in stored_members] != [member.weights for member in live_members]:
        raise SpecMismatch(
            f"the teacher's weights ({', '.join(m.weights[:12] for m in live_members)}) are not those that made the store "
            f"({', '.join(m.weights[:12] for m in stored_members)})",
            remedy="give the recipe whose teacher made it",
        )
    batches = [batch for shard in range(store.spec.shards) for batch in shard_batches(store.spec, shard)]
    order = np.random.default_rng(seed).permutation(len(batches))
    index = KeyIndex(np.asarray(rows.keys))
    largest, scale, kl_max, agreed, samples, seen = 0.0, 0.0, 0.0, 0, 0, 0
    for number in order:
        if seen >= sample:
            break
        at = np.arange(*batches[number])
        live = ensemble.logits(rows.inputs[_find(index, rows.name, store.gather("content_key", at))]).numpy()
        if store.reduce == "geometric":
            live = reduce_geometric(live, np.array([member.weight for member in stored_members])).astype(np.float32)
        encoded = np.asarray(store.gather("logits", at), np.float16)
        stored = encoded.astype(np.float32) + np.asarray(store.gather("shift", at), np.float32)[..., None]
        finite = np.isfinite(live)
        if (finite != np.isfinite(stored)).any():
            largest = math.inf
        finite &= np.isfinite(stored)
        largest = max(largest, float(np.abs(live - stored)[finite].max(initial=0.0)))
        scale = max(
            scale, float(np.abs(live)[finite].max(initial=0.0)), float(np.abs(encoded[finite]).max(initial=0.0))
        )
        sums = measure_dense(live, encoded)[0]
        kl_max, agreed, samples = max(kl_max, sums.kl_max), agreed + sums.top1_agreed, samples + sums.samples
        seen += len(at)
    allowed = TOLERANCE[store.spec.teacher.precision] * (1 + scale) + scale * 2.0**-11
    return Deviation(seen, largest, allowed, kl_max, agreed / samples)


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
