"""The pilot's pass: the teacher over some rows of each split into stores in a folder that the caller removes, timed batch by
batch, and what that says of the whole pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from softlabels.errors import Interrupted
from softlabels.jobs.label import at_work
from softlabels.jobs.shards import ALL
from softlabels.jobs.watch import Watch
from softlabels.report.estimates import Interval, Timed, Weighed, duration
from softlabels.store import Store, open_store
from softlabels.store.seal import store_bytes
from softlabels.store.spec import Spec, plan_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows


class PilotPass(NamedTuple):
    """What was stored, and how long it took.

    Attributes:
        stores: the pilot's store of each split.
        wall, cpu: seconds of this machine's clock, and of all its processor cores for this process: what does not grow with
            the rows, and each batch.
        files: bytes of all files of a split's store. folder: where they lie.
    """

    stores: Mapping[str, Store]
    wall: tuple[float, list[Timed]]
    cpu: tuple[float, list[Timed]]
    files: Mapping[str, int]
    folder: Path

    def seconds(self, rows: int) -> Interval:
        """Of the whole pass over so many rows of all splits."""
        return duration(*self.wall, rows)

    def cpu_seconds(self, rows: int) -> Interval:
        """The same of the processor."""
        return duration(*self.cpu, rows)


def pilot_pass(
    rows: Mapping[str, TransferRows],
    teacher: Ensemble | Served,
    labels: LabelsConfig,
    folder: Path,
    watch: Watch,
) -> PilotPass:
    """Label these rows as `label` does. Raises as it does; `Interrupted` says that nothing is kept."""
    clocks = _Clocks(watch.should_stop)
    quiet = dataclasses.replace(watch, say=_nothing, should_stop=clocks)
    began = clocks.now()
    try:
        with at_work([*rows.values()], teacher, labels, folder, ALL, quiet) as worker:
            for split, shards in worker.sizes.items():
                clocks.begin()
                worker.label(split, range(shards))
                clocks.end()
            worker.run()
    except Interrupted as error:
        raise Interrupted(
            "the pilot was stopped, and nothing of it is kept", remedy="run the same command again"
        ) from error
    total = [after - before for before, after in zip(began, clocks.now(), strict=True)]
    stores = {split: open_store(folder / split) for split in rows}
    sizes = [size for store in stores.values() for size in _batch_sizes(store.spec, teacher.rows_at_once)]
    timed = []
    for clock in range(2):
        batches = [Timed(size, each[clock]) for size, each in zip(sizes, clocks.taken, strict=True)]
        timed.append((max(0.0, total[clock] - sum(each.seconds for each in batches)), batches))
    files = {split: bytes_in(folder / split) for split in rows}
    return PilotPass(stores, timed[0], timed[1], files, folder)


def bytes_in(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def weighed(spec: Spec) -> Weighed:
    """Bytes of a store, from its specification. Its bound takes a shard's last chunk as full, which it is in zarr alone."""
    shards = range(spec.shards)
    chunks = sum(spec.shard_chunks(shard) for shard in shards)
    row = sum(column.row_bytes for column in spec.columns)
    bound, full = store_bytes(plan_of(spec), shards, {}, block=1), chunks * spec.cut.rows_per_chunk * row
    data = full if spec.layout == "zarr" else spec.rows * row
    return Weighed(bound - full + data, data)


def _batch_sizes(spec: Spec, most: int) -> list[int]:
    """Rows of each batch, which never crosses into the next shard."""
    spans = [len(spec.shard_rows(shard)) for shard in range(spec.shards)]
    return [min(most, span - start) for span in spans for start in range(0, span, most)]


class _Clocks:
    """Asked before every batch, as a watch is whether to stop; keeps when that was, by both clocks."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop, self._ticks = should_stop, list[tuple[float, float]]()
        self.taken: list[tuple[float, float]] = []

    def __call__(self) -> bool:
        self._ticks.append(self.now())
        return self._should_stop()

    @staticmethod
    def now() -> tuple[float, float]:
        """Seconds of both."""
        return time.perf_counter(), time.process_time()

    def begin(self) -> None:
        """A split begins."""
        self._ticks.clear()

    def end(self) -> None:
        """It is done: what each of its batches took, the last until now."""
        ticks = [*self._ticks, self.now()]
        self.taken += [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ticks)]


def _nothing(line: str) -> None:
    """What is done for the pilot is not said as if it were the pass."""
