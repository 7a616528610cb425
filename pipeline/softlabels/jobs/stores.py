"""`Stores`: what labelling and encoding share: one basis of the tails, a writer a split, room, the shard loop, seals."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor
from tqdm import tqdm

from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import Encoding
from softlabels.labels.tail_basis import find_basis
from softlabels.store.basis import Basis, resumable_basis
from softlabels.store.commit import is_bound
from softlabels.store.json_files import read_json
from softlabels.store.paths import MANIFEST, PLAN
from softlabels.store.records import Manifest
from softlabels.store.same_plan import require_same_plan
from softlabels.store.spec import About, Plan, Spec, plan_of
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.files import Folder
from softlabels.teacher.label import label_rows
from softlabels.teacher.teacher import Teacher

Rows = TypeVar("Rows")


class Stores(Protocol[Rows]):
    """The stores of several splits, which one teacher fills: of each split its `rows`, of which the teacher is asked, the
    `folders` of its store, and the number of `classes` of each target. The basis of the `encodings`, by target, is not found
    yet.
    """

    rows: Mapping[str, Rows]
    folders: Mapping[str, Folder]
    classes: Mapping[str, Mapping[str, int]]
    teacher: Teacher[Rows]
    encodings: Mapping[str, Encoding]
    watch: Watch

    def spec(self, split: str, basis: Basis | None) -> Spec:
        """What decides the bytes of a split's store."""

    def about(self, split: str) -> About:
        """What its card says beside that."""

    def pilot(self, target: str) -> Iterable[Tensor]:
        """Logits (n, M, C) of a target, in which its tails' basis is found."""

    def compare(self, split: str, writer: StoreWriter) -> None:
        """Raise `SpecMismatch` and the like where a store that is begun holds other labels, which its plan cannot show."""

    def announce(self, writers: Mapping[str, StoreWriter], free: int | None) -> None:
        """Say what the pass will take; so many bytes are `free` where the stores lie, which is enough, or nobody knows."""

    def say_what_was_made(self, split: str, manifest: Manifest) -> None:
        """Say what a store holds, and what encoding lost."""

    def basis(self) -> Basis | None:
        """The prior and basis of the tails, one for all splits: that of a store that is begun, else found now. None where the
        tails have none. Raises `SpecMismatch` where a store that is begun has other tails.
        """
        ranks = {name: rank for name, each in self.encodings.items() if (rank := each.basis_rank) is not None}
        if not ranks:
            return None
        name, rank = next(iter(ranks.items()))
        for split, folder in self.folders.items():
            shape = (1 + rank, self.classes[split][name])
            found = resumable_basis(folder, rank=rank)
            if found is not None and found.shape == shape:
                return found
            if is_begun(folder) and (standing := read_json(folder, PLAN, Plan)).spec.basis_shape != shape:
                require_same_plan(plan_of(self.spec(split, np.zeros(shape, np.float16))), standing, str(folder))
        basis: Basis = find_basis(self.pilot(name), rank)
        return basis

    def asked(self, split: str) -> Teacher[Rows]:
        """Who labels a split."""
        return self.teacher

    def open(self, split: str, spec: Spec, basis: Basis | None) -> StoreWriter:
        """Begin a split's store, or go on with it."""
        environment = self.teacher.environment()
        return StoreWriter(self.folders[split], spec, basis=basis, about=self.about(split), environment=environment)

    def fill(self) -> dict[str, Manifest]:
        """Label one split after the other, and seal its store."""
        basis = self.basis()
        specs = {split: self.spec(split, basis) for split in self.rows}
        with ExitStack() as stack:
            writers = {}
            for split, spec in specs.items():
                writers[split] = stack.enter_context(self.open(split, spec, basis))
                self.compare(split, writers[split])
            self.announce(writers, require_room(writers.values()))
            return {split: self._filled(split, writer) for split, writer in writers.items()}

    def _filled(self, split: str, writer: StoreWriter) -> Manifest:
        """With a bar on a terminal, and one line after the first shard."""
        shards = [len(writer.spec.shard_rows(shard)) for shard in writer.pending]
        pending, first, began, seen = sum(shards), sum(shards[:1]), time.monotonic(), 0
        with tqdm(total=pending, desc=split, unit="row", unit_scale=True, disable=None) as bar:

            def progress(count: int) -> None:
                nonlocal seen
                seen += count
                bar.update(count)
                if seen == first < pending:
                    rate = seen / max(time.monotonic() - began, 1e-9)
                    left = f"about {(pending - seen) / rate:,.0f} s left"
                    with bar.external_write_mode():
                        self.watch.say(f"{split}: first shard at {rate:,.0f} rows/s, {left}")

            rows, should_stop = self.rows[split], self.watch.should_stop
            manifest = label_rows(rows, self.asked(split), writer, should_stop=should_stop, progress=progress)
        for line in writer.said:
            self.watch.say(f"{split}: {line}")
        self.say_what_was_made(split, manifest)
        return manifest


def is_begun(store: Folder) -> bool:
    """Whether a store is there that binds whoever goes on with it: sealed, or with committed shards."""
    return store.exists(PLAN) and (store.exists(MANIFEST) or is_bound(store))
