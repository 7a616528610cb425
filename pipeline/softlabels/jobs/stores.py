"""`Stores`: what labelling and encoding share: one basis of the tails, found by one worker, a writer a split, room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from softlabels.errors import Interrupted
from softlabels.jobs.filling import Filling
from softlabels.jobs.shards import ALL, Shards
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import Encoding
from softlabels.labels.tail_basis import find_basis
from softlabels.store.basis import Basis, resumable_basis
from softlabels.store.claims import PLANNING, Claims
from softlabels.store.commit import is_bound
from softlabels.store.json_files import read_json
from softlabels.store.paths import MANIFEST, PLAN
from softlabels.store.planning import begin_plan, give_up_plan
from softlabels.store.records import Manifest
from softlabels.store.same_plan import require_same_plan
from softlabels.store.spec import About, Plan, Spec, plan_of
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.files import Folder, Presence
from softlabels.teacher.teacher import Teacher

Rows = TypeVar("Rows")
PAUSE = 0.2  # seconds between two looks for a plan


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
        standing = self.standing_basis()
        return self._found_basis() if standing is None else standing

    @property
    def _tails(self) -> tuple[str, int] | None:
        """The target whose tails have a basis, and its rank."""
        ranks = {name: rank for name, each in self.encodings.items() if (rank := each.basis_rank) is not None}
        return next(iter(ranks.items()), None)

    def standing_basis(self) -> Basis | None:
        """That of a store that is begun."""
        if self._tails is None:
            return None
        name, rank = self._tails
        for split, folder in self.folders.items():
            shape = (1 + rank, self.classes[split][name])
            found = resumable_basis(folder, rank=rank)
            if found is not None and found.shape == shape:
                return found
            if is_begun(folder) and (standing := read_json(folder, PLAN, Plan)).spec.basis_shape != shape:
                require_same_plan(plan_of(self.spec(split, np.zeros(shape, np.float16))), standing, str(folder))
        return None

    def _found_basis(self, beat: Callable[[], object] = lambda: None) -> Basis | None:
        if self._tails is None:
            return None
        name, rank = self._tails
        basis: Basis = find_basis(_Beating(self.pilot(name), beat), rank)
        return basis

    def _planned(self, claims: Claims) -> tuple[Basis | None, dict[str, Spec], Presence | None]:
        """The basis, the specifications, and the mark of a live writer where this worker is the one that found the basis: the
        others wait for it.
        """
        first, has_waited, standing = next(iter(self.folders.values())), False, None
        while self._tails is not None and (standing := self.standing_basis()) is None:
            made = [folder for folder in (first, first.above()) if not folder.exists()]
            presence = begin_plan(first, claims)
            if presence is not None:
                try:
                    basis = self._found_basis(claims.beat)
                    return basis, self._specs(basis), presence
                except BaseException:
                    give_up_plan(first, claims, presence, made)
                    raise
            if not has_waited:
                self.watch.say(f"waiting for the plan of {first}, which another worker is making; {claims.until_lapse}")
                has_waited = True
            if self.watch.should_stop():
                raise Interrupted(f"stopped before {first} was planned", remedy="run the same command again to resume")
            time.sleep(PAUSE)
        return standing, self._specs(standing), None

    def _specs(self, basis: Basis | None) -> dict[str, Spec]:
        return {split: self.spec(split, basis) for split in self.rows}

    def asked(self, split: str) -> Teacher[Rows]:
        """Who labels a split."""
        return self.teacher

    def open(self, split: str, spec: Spec, basis: Basis | None, presence: Presence | None = None) -> StoreWriter:
        """Begin a split's store, or go on with it."""
        return StoreWriter(
            self.folders[split],
            spec,
            basis=basis,
            about=self.about(split),
            environment=self.teacher.environment(),
            presence=presence,
        )

    def fill(self) -> dict[str, Manifest]:
        """Label one split after the other, and seal its store."""
        with self.opened() as worker:
            return worker.run()

    @contextmanager
    def opened(self, shards: Shards = ALL) -> Iterator[Filling]:
        """A worker that does some shards of the stores, each begun or gone on with."""
        with ExitStack() as stack:
            claims = {
                split: stack.enter_context(Claims(folder, lapse=shards.lapse, say=partial(self._say_of, split)))
                for split, folder in self.folders.items()
            }
            first, writers = next(iter(self.rows)), {}
            basis, specs, presence = self._planned(claims[first])
            if presence is not None:
                stack.callback(presence.close)
            for split, spec in specs.items():
                mark = presence if split == first else None
                writers[split] = stack.enter_context(self.open(split, spec, basis, mark))
                stack.push(claims[split])  # they go before the writer does, who may be followed by one that is alone
                claims[split].release(PLANNING)
                self.compare(split, writers[split])
            self.announce(writers, require_room(writers.values()))
            yield Filling(self, writers, claims, shards)

    def _say_of(self, split: str, line: str) -> None:
        self.watch.say(f"{split}: {line}")


class _Beating:
    """Blocks of logits, with a beat after each."""

    def __init__(self, blocks: Iterable[Tensor], beat: Callable[[], object]) -> None:
        self._blocks, self._beat = blocks, beat

    def __iter__(self) -> Iterator[Tensor]:
        for block in self._blocks:
            yield block
            self._beat()


def is_begun(store: Folder) -> bool:
    """Whether a store is there that binds whoever goes on with it: sealed, or with committed shards."""
    return store.exists(PLAN) and (store.exists(MANIFEST) or is_bound(store))
