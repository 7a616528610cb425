"""One of the workers that fill the stores of several splits: it labels shards that no other live worker is at, waits for those
that others are at, and seals what is whole. A worker that is alone never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Protocol

from tqdm import tqdm

from softlabels.errors import some
from softlabels.jobs.shards import Shards
from softlabels.jobs.watch import Watch, counted
from softlabels.store.claims import SEALING, Claims
from softlabels.store.paths import MANIFEST
from softlabels.store.records import Manifest
from softlabels.store.writer import StoreWriter
from softlabels.teacher.label import label_each
from softlabels.teacher.teacher import Teacher

_POLL = 1.0  # seconds between two looks at what others do


class Job(Protocol):
    """What a worker needs of `softlabels.jobs.stores.Stores`."""

    rows: Mapping[str, Any]
    watch: Watch

    def asked(self, split: str) -> Teacher[Any]:
        """As there."""

    def say_what_was_made(self, split: str, manifest: Manifest) -> None:
        """As there."""


class Filling:
    """A worker at the stores of a job, which are open. `run` does its share; `sizes` says how many shards each split has."""

    def __init__(
        self, job: Job, writers: Mapping[str, StoreWriter], claims: Mapping[str, Claims], shards: Shards
    ) -> None:
        self._job, self._watch = job, job.watch
        self._writers, self._claims, self._shards = writers, claims, shards
        self.sizes = {split: writer.spec.shards for split, writer in writers.items()}
        self._own = shards.own(self.sizes)
        self._made: dict[str, Manifest] = {}
        self._has_waited = False

    def run(self) -> dict[str, Manifest]:
        """The manifests of the splits that are whole at its end: of all, unless it does shards of its own."""
        left = list(self._writers)
        while left := [split for split in left if not self._is_done(split)]:
            self._wait(left)
        return {split: self._made[split] for split in self._writers if split in self._made}

    def _is_done(self, split: str) -> bool:
        """Label what is free of a split, and seal it where it is whole; whether nothing of it is left to this worker."""
        writer, claims = self._writers[split], self._claims[split]
        self.label(split, range(self.sizes[split]) if self._own is None else self._own[split])
        if missing := writer.pending:
            if self._own is None or self._own[split] & set(missing):
                return False
            self._say_missing(split, missing, self._own[split])
            return True
        if not (writer.folder.exists(MANIFEST) or claims.take(SEALING)):
            return False
        self._made[split] = writer.seal(beat=claims.beat)
        claims.release(SEALING)
        for line in writer.said:
            self._watch.say(f"{split}: {line}")
        self._job.say_what_was_made(split, self._made[split])
        return True

    def label(self, split: str, these: Iterable[int], told: Callable[[int], object] = lambda rows: None) -> None:
        """Those of these shards that are free, with a bar on a terminal, and one line after the first; `told` is given the
        number of rows of each batch when it is done.
        """
        writer, claims = self._writers[split], self._claims[split]
        wanted = sorted({*these} & {*writer.pending})
        shards = claims.shards(wanted, regardless=self._own is not None)
        first = next(shards, None)
        if first is None:
            return
        sizes = {shard: len(writer.spec.shard_rows(shard)) for shard in wanted}
        pending, seen, began = sum(sizes.values()), 0, time.monotonic()
        with tqdm(total=pending, desc=split, unit="row", unit_scale=True, disable=None) as bar:

            def progress(rows: int) -> None:
                nonlocal seen
                seen += rows
                claims.beat()
                told(rows)
                bar.update(rows)
                if seen == sizes[first] < pending:
                    rate, workers = seen / max(time.monotonic() - began, 1e-9), self._workers(split)
                    left = f"about {(pending - seen) / rate / workers:,.0f} s left"
                    with bar.external_write_mode():
                        self._watch.say(
                            f"{split}: first shard at {rate:,.0f} rows/s, {left}{f' for {workers} workers' * (workers > 1)}"
                        )

            rows, should_stop = self._job.rows[split], self._watch.should_stop
            every = chain([first], shards)
            label_each(rows, self._job.asked(split), writer, every, should_stop=should_stop, progress=progress)
        claims.release_recorded()
        if writer.beaten:
            which = f"{counted(len(writer.beaten), 'shard')} ({some(writer.beaten)})"
            self._watch.say(f"{split}: another worker had recorded {which} first: computed twice, stored once")
            writer.beaten.clear()

    def _workers(self, split: str) -> int:
        """How many share what is pending."""
        return 1 if self._own is not None else 1 + len({*self._claims[split].others().values()})

    def _wait(self, left: list[str]) -> None:
        """A moment, for other workers. Raises `Interrupted` where `should_stop` says so."""
        if self._watch.should_stop():
            raise self._writers[left[0]].stopped()
        others = {split: found for split in left if (found := self._claims[split].others())}
        if others and not self._has_waited:
            said = (
                f"{split} {some(found)} ({', '.join(sorted({*found.values()}))})" for split, found in others.items()
            )
            until = self._claims[left[0]].until_lapse
            self._watch.say(f"waiting for shards of other workers: {'; '.join(said)}; {until}")
            self._has_waited = True
        time.sleep(min(_POLL, self._shards.lapse / 10))

    def _say_missing(self, split: str, missing: list[int], own: set[int]) -> None:
        parts = self._shards.parts_of(self.sizes, split, missing)
        of = f", of parts {some(parts)}" if parts else ""
        done = "this part is done" if own else "this part has no shards"
        self._watch.say(
            f"{split}: {done}; of {self.sizes[split]} shards {len(missing)} {'is' if len(missing) == 1 else 'are'} missing "
            f"({some(missing)}{of}); the worker that writes the last one seals the store"
        )
