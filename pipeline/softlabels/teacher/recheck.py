"""Whether a store still says what the live teacher says: a sample of its batches run again and compared.

What is compared is `deviation`'s business. B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.errors import OtherMemberOrder, OtherWeights, SpecMismatch, UnlabelledRows
from softlabels.labels import NO_LABEL
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, FidelitySums
from softlabels.store.columns import LABEL, bare, is_soft, stored_name
from softlabels.store.key_index import KeyIndex
from softlabels.store.reader import Store
from softlabels.store.spec import Spec
from softlabels.teacher.comparison import compare, nothing_seen
from softlabels.teacher.deviation import Deviation, ValuesDeviation
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import Counted
from softlabels.teacher.sentinels import require_ensemble_logits
from softlabels.teacher.teacher import teacher_batches
from softlabels.transfer.rows import TransferRows

Seen = Deviation | ValuesDeviation


def compare_with_teacher(store: Store, rows: TransferRows, ensemble: Ensemble, *, sample: int = 256) -> dict[str, Seen]:
    """Run at least `sample` rows of the store (whole teacher batches, always the same ones) through the live teacher: what
    shows of each target, by its name.

    Raises:
        OtherWeights, OtherMemberOrder: the weights are not those that the store names, or in another order.
        SpecMismatch: its rows have other positions than the transfer set's.
        UnlabelledRows: the transfer set lacks its rows.
        LogitsError: the teacher's outputs are no logits. ConfigError: it has no output for a target.
    """
    require_weights(store, ensemble)
    _require_positions(store, rows)
    ensemble.expect(rows.sequence, positions=rows.positions, targets=encodings_of(store.spec))
    require_ensemble_logits(ensemble, rows.inputs, rows.mask)
    batches = [batch for shard in range(store.spec.shards) for batch in teacher_batches(store.spec, shard)]
    index, read = KeyIndex(np.asarray(rows.keys)), 0
    lines = {name: table.fidelity.values() for name, table in store.manifest.lost.items()}
    found = deviations(store.spec, lines)
    for number in np.random.default_rng(0).permutation(len(batches)):
        if read >= sample:
            break
        at = np.arange(*batches[number])
        theirs = _find(index, rows.name, store.gather("content_key", at))
        inputs = np.array(rows.inputs[theirs])
        counted = ensemble.expected.count(rows, theirs, inputs)
        _require_same_mask(store, at, counted)
        compare_batch(ensemble, inputs, counted, _stored(store, at), found, ensemble.fold_of(rows, theirs))
        read += len(at)
    return found


def encodings_of(spec: Spec) -> dict[str, Encoding]:
    """How each target is kept, by its name."""
    return {target.name: target.encoding for target in spec.targets}


def deviations(spec: Spec, lines: Mapping[str, Iterable[Fidelity | FidelitySums]]) -> dict[str, Seen]:
    """Nothing seen yet, of each target; `lines` are what the store states of its fidelity."""
    return {
        each.name: nothing_seen(
            each.encoding, each.label_space.classes, precision=spec.teacher.precision, lines=lines[each.name]
        )
        for each in spec.targets
    }


def compared(spec: Spec) -> list[str]:
    """The columns that are compared: outputs, and hard labels, by which some of them are chosen."""
    return [column.name for column in spec.columns if is_soft(column.name) or bare(column.name) == LABEL]


def _stored(store: Store, at: NDArray[np.int64]) -> Columns:
    """What the store holds of the outputs for the rows `at`, and of their hard labels."""
    return {name: store.gather(name, at) for name in compared(store.spec)}


def require_weights(store: Store, ensemble: Ensemble) -> None:
    """Raise `OtherWeights` or `OtherMemberOrder` where a teacher is not the one that the store names."""
    ours = [member.weights for member in ensemble.spec.members]
    theirs = [member.weights for member in store.spec.teacher.members]
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise OtherMemberOrder(
            f"the teacher's members are in another order than in {store.path}",
            remedy="list teacher.members as they were; otherwise the logits of different members would be compared",
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


def _require_positions(store: Store, rows: TransferRows) -> None:
    """Raise `SpecMismatch` where the transfer set's rows have another number of positions than the store's."""
    if rows.sequence is None and (rows.positions != store.positions or store.spec.of_tokens):
        ours, theirs = (positions_line(each) for each in (rows.positions, store.positions))
        raise SpecMismatch(
            f"the rows of {store.path} have {theirs}, those of the transfer set {rows.name} {ours}",
            remedy="give the recipe whose transfer_set.positions (or sequences) made the store",
        )


def positions_line(positions: int | None) -> str:
    """How many positions rows have, for messages."""
    return "no positions" if positions is None else f"{positions} positions"


def _require_same_mask(store: Store, at: NDArray[np.int64], counted: Counted) -> None:
    """Raise `SpecMismatch` where rows have other positions than the store's rows `at`."""
    section = "sequences" if store.spec.of_tokens else "positions"
    for name in ("position_mask", "document"):
        if name in counted.columns and not np.array_equal(counted.columns[name], store.gather(name, at)):
            raise SpecMismatch(
                f"{name} of the store is not that of the transfer set's rows",
                remedy=f"give the recipe whose transfer_set.{section} made the store",
            )


def compare_batch(
    ensemble: Ensemble,
    inputs: NDArray[np.generic],
    counted: Counted,
    columns: Columns,
    found: Mapping[str, Seen],
    fold: NDArray[np.uint16] | None = None,
) -> None:
    """Run inputs (B, ...), as many at once as the recipe lets the teacher see, and add to `found`, by target, how far the
    stored columns (B, ...) are from the outputs, of what is `counted`; of rows that folds label with the `fold` (B,) of each.

    The class of a distribution is its next token, of rows of tokens, and else its stored hard label.
    """
    expected, rows = ensemble.expected, len(inputs)
    each = expected.positions or 1
    counts = np.ones(rows * each, np.bool_) if counted.flat is None else counted.flat
    labels = {
        name: classes if ensemble.sequence is not None else columns[stored_name(name, LABEL)]
        for name, classes in counted.classes.items()
    }
    flat = {name: np.asarray(values, np.int64).reshape(-1) for name, values in labels.items()}
    for start in range(0, rows, ensemble.batch_size):
        part = slice(start, start + ensemble.batch_size)
        answers = ensemble.answers(inputs[part], None if fold is None else fold[part])
        for name, outputs in answers.items():
            own = _of_target(columns, name, expected.positions)
            for where, block in outputs.blocks():
                real = np.flatnonzero(counts[start * each :][where])
                at = real + where.start + start * each
                if len(at):
                    live = block[torch.from_numpy(real).to(block.device)]
                    classes = flat[name][at] if name in flat else np.full(len(at), NO_LABEL)
                    kept = {column: values[at] for column, values in own.items()}
                    compare(expected.targets[name], live, np.array(ensemble.weights), kept, classes, found[name])
    for deviation in found.values():
        deviation.rows += rows


def _of_target(columns: Columns, name: str, positions: int | None) -> dict[str, NDArray[np.generic]]:
    """The columns (N, M, ...) of a target's outputs, by the names that they have without its own."""
    return {
        bare(column): values if positions is None else values.reshape(-1, *values.shape[2:])
        for column, values in columns.items()
        if is_soft(column) and column == stored_name(name, bare(column))
    }
