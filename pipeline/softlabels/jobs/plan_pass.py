"""The pilot's pass: the teacher over some rows of each split into stores in a folder that the caller removes, timed batch by
batch, and what that says of the whole pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from softlabels.errors import Interrupted
from softlabels.jobs.label import at_work
from softlabels.jobs.shards import ALL
from softlabels.jobs.watch import Watch
from softlabels.report.estimates import Interval, Timed, Weighed, duration
from softlabels.store import Store, open_store
from softlabels.store.positions import count_positions
from softlabels.store.seal import store_bytes
from softlabels.store.spec import Spec, plan_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import mask_of
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows

_ROWS = 1 << 16  # that are looked at together


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
    clocks, quiet = _Clocks(), dataclasses.replace(watch, say=_nothing)
    began = _now()
    try:
        with at_work([*rows.values()], teacher, labels, folder, ALL, quiet) as worker:
            for split, shards in worker.sizes.items():
                with clocks.running():
                    worker.label(split, range(shards), clocks)
            worker.run()
    except Interrupted as error:
        raise Interrupted(
            "the pilot was stopped, and nothing of it is kept", remedy="run the same command again"
        ) from error
    total = [after - before for before, after in zip(began, _now(), strict=True)]
    stores = {split: open_store(folder / split) for split in rows}
    timed = []
    for clock, every in enumerate(total):
        batches = [Timed(rows, each[clock]) for rows, each in clocks.taken]
        timed.append((max(0.0, every - sum(each.seconds for each in batches)), batches))
    files = {split: bytes_in(folder / split) for split in rows}
    return PilotPass(stores, timed[0], timed[1], files, folder)


def bytes_in(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def weighed(spec: Spec, held: int | None = None) -> Weighed:
    """Bytes of a store, from its specification, and of ragged rows how many positions are `held` (None: all that may be). Its
    bound takes a shard's last chunk as full, which it is in zarr alone.
    """
    shards = range(spec.shards)
    chunks = sum(spec.shard_chunks(shard) for shard in shards)
    row = sum(column.row_bytes for column in spec.columns)
    bound, full = store_bytes(plan_of(spec), shards, {}, block=1), chunks * spec.cut.rows_per_chunk * row
    data = full if spec.layout == "zarr" else spec.rows * row
    if held is not None:
        data = sum(
            held * column.position_bytes if column.by_position else spec.rows * column.row_bytes
            for column in spec.columns
        )
    return Weighed(bound - full + data, data)


def positions_held(spec: Spec, rows: TransferRows) -> int:
    """How many positions ragged rows hold together."""
    total = 0
    for start in range(0, len(rows.keys), _ROWS):
        part = slice(start, start + _ROWS)
        own = {"document": rows.inputs[part, 1, :-1]} if spec.of_tokens else {"position_mask": mask_of(rows)[part]}
        total += int(count_positions(spec, own).sum())
    return total


class _Clocks:
    """Told of each batch that is done: `taken` has its rows, and the seconds since the one before, by both clocks."""

    def __init__(self) -> None:
        self._last = _now()
        self.taken: list[tuple[int, tuple[float, float]]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a split is labelled; what comes after its last batch counts as that one's."""
        self._last = _now()
        yield
        if self.taken:
            rows, (wall, cpu) = self.taken.pop()
            more = self._since()
            self.taken.append((rows, (wall + more[0], cpu + more[1])))

    def __call__(self, rows: int) -> None:
        self.taken.append((rows, self._since()))

    def _since(self) -> tuple[float, float]:
        before, self._last = self._last, _now()
        return self._last[0] - before[0], self._last[1] - before[1]


def _now() -> tuple[float, float]:
    """Seconds of both clocks."""
    return time.perf_counter(), time.process_time()


def _nothing(line: str) -> None:
    """What is done for the pilot is not said as if it were the pass."""
