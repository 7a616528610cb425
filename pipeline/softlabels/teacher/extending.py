"""`Extending`: an ensemble that is asked only about the rows that a store lacks; the others are copied out of it, bit for bit.

R rows of the transfer set, B of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.labels.lost import Lost
from softlabels.store.gather import Ints, gather
from softlabels.store.reader import Store
from softlabels.store.spec import Spec, TeacherSpec
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.teacher import Batch, Kept
from softlabels.transfer.rows import TransferRows


class Extending:
    """See above, and `Teacher`.

    Args:
        ensemble: the teacher that labelled the store.
        store: what is there already.
        at: (R,) the store's row for each row of the transfer set, -1 where it has none; none twice.
    """

    def __init__(self, ensemble: Ensemble, store: Store, at: Ints) -> None:
        self._ensemble, self._store, self._at = ensemble, store, at
        self.spec: TeacherSpec = ensemble.spec
        self.device: torch.device = ensemble.device

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """As `Teacher.weights`."""
        return self._ensemble.weights

    def environment(self) -> dict[str, str]:
        """As `Teacher.environment`."""
        return self._ensemble.environment()

    def cut(self, rows: TransferRows, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """Batches of as many new rows as the teacher takes at once, among no more rows than a chunk has."""
        span = spec.shard_rows(shard)
        is_new = self._at[span.start : span.stop] < 0
        batch = (np.cumsum(is_new) - is_new) // self._ensemble.batch_size
        chunk = np.arange(len(span)) // spec.cut.rows_per_chunk
        ends = np.flatnonzero(np.diff(batch) | np.diff(chunk)) + 1
        edges = [span.start, *(span.start + ends).tolist(), span.stop]
        return list(pairwise(edges))

    def batch(self, rows: TransferRows, start: int, stop: int, *, embed: bool) -> Batch:
        """As `Teacher.batch`: the new rows, and those beside them that are copied."""
        at = self._at[start:stop]
        is_kept = at >= 0
        new = start + np.flatnonzero(~is_kept)
        if len(new):
            made = self._ensemble.batch_of(rows, new, new.tolist(), embed=embed)
        else:
            made = Batch({}, {"content_key": rows.keys[:0]}, {}, None, str)
        columns = gather(self._store, list(self._store.columns), at[is_kept])
        return replace(made, kept=Kept(is_kept, columns, self._lost(start, stop), self._unknown))

    @cached_property
    def _firsts(self) -> Ints:
        """(shards,) where the first row of each of the store's shards stands, of a store whose rows are all here."""
        spec, places = self._store.spec, np.empty(self._store.rows, np.int64)
        places[self._at[self._at >= 0]] = np.flatnonzero(self._at >= 0)
        return places[np.arange(spec.shards) * spec.cut.rows_per_shard]

    def _lost(self, start: int, stop: int) -> Mapping[str, Lost]:
        """What storing lost of the store's shards whose first rows are among these."""
        if self._unknown == {*self._store.targets}:
            return {}
        shards = np.flatnonzero((self._firsts >= start) & (self._firsts < stop)).tolist()
        records = [self._store.record(shard).lost for shard in shards]
        return {name: Lost.total(lost[name] for lost in records) for name in self._store.targets}

    @cached_property
    def _unknown(self) -> set[str]:
        """The targets of which nobody knows what storing the copied rows lost: sums are known of whole shards alone."""
        lost = self._store.manifest.lost
        whole = int((self._at >= 0).sum()) == self._store.rows
        return {name for name, each in lost.items() if not whole or not (each.fidelity or each.errors)}
