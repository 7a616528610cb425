"""Whether a store still says what the live teacher says: a sample of its batches run again and compared.

What is compared is `deviation`'s business. B rows of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.errors import OtherMemberOrder, OtherWeights, SpecMismatch, UnlabelledRows
from softlabels.labels.base import Columns
from softlabels.store.key_index import KeyIndex
from softlabels.store.reader import Store
from softlabels.store.spec import Spec
from softlabels.teacher.deviation import Deviation, compare
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.sentinels import require_ensemble_logits
from softlabels.teacher.teacher import teacher_batches
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows


def compare_with_teacher(store: Store, rows: TransferRows, ensemble: Ensemble, *, sample: int = 256) -> Deviation:
    """Run at least `sample` rows of the store (whole teacher batches, always the same ones) through the live teacher.

    Raises:
        OtherWeights, OtherMemberOrder: the weights are not those that the store names, or in another order.
        SpecMismatch: its rows have other positions than the transfer set's.
        UnlabelledRows: the transfer set lacks its rows.
        LogitsError: the teacher's outputs are no logits.
    """
    _require_weights(store, ensemble)
    ensemble.expect(rows.sequence)
    require_ensemble_logits(ensemble, rows.inputs, store.encoding.target)
    batches = [batch for shard in range(store.spec.shards) for batch in teacher_batches(store.spec, shard)]
    index = KeyIndex(np.asarray(rows.keys))
    found = Deviation.of(
        store.encoding, store.classes, precision=store.spec.teacher.precision, lines=store.manifest.fidelity.values()
    )
    for number in np.random.default_rng(0).permutation(len(batches)):
        if found.rows >= sample:
            break
        at = np.arange(*batches[number])
        inputs = np.array(rows.inputs[_find(index, rows.name, store.gather("content_key", at))])
        _require_positions(store, at, inputs)
        columns = {name: store.gather(name, at) for name in store.soft_columns}
        compare_batch(store.spec, ensemble, inputs, columns, np.asarray(store.gather("label", at), np.int64), found)
    return found


def _require_weights(store: Store, ensemble: Ensemble) -> None:
    ours = [member.weights for member in ensemble.spec.members]
    theirs = [member.weights for member in store.spec.teacher.members]
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise OtherMemberOrder(
            f"the teacher's members stand in another order than in {store.path}",
            remedy="list teacher.members as they were, or their logits are compared with each other's",
        )
    if ours != theirs:
        raise OtherWeights(
            f"the teacher's weights ({', '.join(digest[:12] for digest in ours)}) are not those that made the store "
            f"({', '.join(digest[:12] for digest in theirs)})",
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


def _require_positions(store: Store, at: NDArray[np.int64], inputs: NDArray[np.generic]) -> None:
    """Raise SpecMismatch where rows of tokens have other positions than the store's rows `at`."""
    if store.positions is None:
        return
    found = alignment(inputs)
    for name, own in (("position_mask", found.mask), ("document", found.document)):
        if not np.array_equal(own, store.gather(name, at)):
            raise SpecMismatch(
                f"{name} of the store is not that of the transfer set's rows",
                remedy="give the recipe whose transfer_set.sequences made the store",
            )


def compare_batch(
    spec: Spec,
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    columns: Columns,
    labels: NDArray[np.int64],
    found: Deviation,
) -> None:
    """Run inputs (B, ...), as many at once as the recipe lets the teacher see, and add to `found` how far the stored columns
    (B, ...) of soft labels are from the outputs. `labels` (B,): the rows' hard labels; the class of a position is its next
    token, and one that has none does not count.
    """
    counts = np.ones(len(labels), np.bool_)
    if spec.positions is not None:
        labels = alignment(inputs).next_token.reshape(-1)
        columns = {name: values.reshape(-1, *values.shape[2:]) for name, values in columns.items()}
        counts = labels >= 0
    each = len(labels) // len(inputs)  # distributions of a row
    found.rows += len(inputs)
    for start in range(0, len(inputs), ensemble.batch_size):
        for where, block in ensemble.outputs(inputs[start : start + ensemble.batch_size]).blocks():
            real = np.flatnonzero(counts[start * each :][where])
            at = real + where.start + start * each
            if len(at):
                live = block[torch.from_numpy(real).to(block.device)]
                own = {name: values[at] for name, values in columns.items()}
                compare(spec.encoding, live, np.array(ensemble.weights), own, labels[at], found)
