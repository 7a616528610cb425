"""Promise 6: of several processes that write the same shards with different bytes, one wins each shard, and its record,
digest and bytes are that one's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.system.local import LocalFolder
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.writers import Acknowledge, Case, Child
from tests.store.samples import Sample

COMMITTERS = 8


def races(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_race, lambda: None))


def lawless_races(seed: int) -> Outcome:
    return repeated(16, seed, partial(_race, last_record_wins))


def _race(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """Writers with the same keys and different distributions, on all shards at once, each in an order of its own."""
    with scratch() as folder:
        path = Path(folder) / "store"
        case = Case.make(rng, Path(folder))
        versions = [case.data.changed(1 + n / 11) for n in range(COMMITTERS)]
        children = [Child(_writer(case, path, version, rng, prepare)) for version in versions]
        for child in children:
            child.go()
        for ended in [child.end() for child in children]:
            assert ended.code == 0, ended.error
        problems = verify(path)
        assert not problems, "; ".join(map(str, problems[:4]))
        assert not (path / "staging").exists(), "staging is left"
        for shard, owners in _owners(path, versions).items():
            assert len(owners) == 1, f"shard {shard} holds the bytes of writers {owners}"


def _writer(
    case: Case, path: Path, version: Sample, rng: np.random.Generator, prepare: Callable[[], None]
) -> Callable[[Acknowledge], None]:
    order = rng.permutation(case.spec.shards).tolist()

    def work(acknowledge: Acknowledge) -> None:
        prepare()
        case.with_data(version).write(path, acknowledge, order)

    return work


def _owners(path: Path, versions: list[Sample]) -> dict[int, list[int]]:
    """Whose distributions stand in each shard."""
    store = open_store(path)
    columns = {name: store.column(name) for name in store.soft_columns}
    found = {}
    for shard in range(store.spec.shards):
        rows = np.array(store.spec.shard_rows(shard))
        found[shard] = [
            n for n, version in enumerate(versions)
            if all(version[rows].stored()[name].tobytes() == values[rows].tobytes() for name, values in columns.items())
        ]  # fmt: skip
    return found


def last_record_wins() -> None:
    """Take the defence away, in this process: a record replaces the one that stands there."""

    def replacing(self: LocalFolder, name: str, data: bytes, *, staged: str) -> bool:
        self.put(name, data)
        return True

    LocalFolder.create = replacing  # type: ignore[method-assign]


TRIALS = (
    Trial(
        promise=6,
        what=f"{COMMITTERS} processes on every shard of a store, each with other bytes",
        count=100,
        quick=3,
        run=partial(apart, races),
        control=partial(apart, lawless_races),
        control_what="a record may replace another",
        slow=True,
    ),
)
