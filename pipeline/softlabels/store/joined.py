"""`Joined`: stores of several teachers over the same rows, read as the one store that `merge` would make of them. Nothing is
written: a chunk of a column is gathered from the stores whenever it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from softlabels.errors import UserError
from softlabels.labels.lost import LostTable
from softlabels.store.basis import Basis
from softlabels.store.derived import Derived
from softlabels.store.digest import store_digest
from softlabels.store.parts import ahead
from softlabels.store.reader import Store
from softlabels.store.records import Commit, Manifest, is_by_target
from softlabels.store.spec import plan_of


class Joined(Store):
    """The stores that a `Derived` is made of, as one.

    Attributes:
        stores: they, in order. path: all their paths, for messages. folder: of the first, whose rows and inputs these are.
        digest: over what merging them would make; `manifest.digests` are their own.
    """

    def __init__(self, made: Derived) -> None:
        self._made = made
        self.stores: tuple[Store, ...] = tuple(part.store for part, _ in made.rows.placed)
        self.folder, self.path = self.stores[0].folder, " + ".join(str(store.path) for store in self.stores)
        self.check = self.stores[0].check
        self._describe(_manifest(made, self.stores))

    @property
    def where(self) -> str:
        """See `Stored`."""
        return str(self.path)

    @property
    def near(self) -> bool:
        """See `ChunkSource`."""
        return all(store.near for store in self.stores)

    def ahead(self, columns: Sequence[str], chunks: Sequence[int]) -> None:
        """See `ChunkSource`: of each store the chunks that hold these rows."""
        size, names = self.rows_per_chunk, [self.columns[column].name for column in columns]
        if chunks:
            rows = [range(chunk * size, min((chunk + 1) * size, self.rows)) for chunk in chunks]
            ahead(self._made.rows, rows, names)

    def read_chunk(self, column: str, chunk: int) -> NDArray[np.generic]:
        """See `Store.read_chunk`: of each store the chunks that hold these rows are read, one at a time."""
        name, start = self.columns[column].name, chunk * self.rows_per_chunk
        found: NDArray[np.generic] = self._made.rows.read(start, min(start + self.rows_per_chunk, self.rows), [name])[
            name
        ]
        return found

    def record(self, shard: int) -> Commit:
        """Raises `UserError`: nothing was written."""
        raise UserError(
            f"{self.path} are read as one and are not one store", remedy="`softlabels merge` makes one of them"
        )

    @property
    def _basis(self) -> Basis | None:  # read once, by the store that has it
        return self.stores[0].basis

    def scattered(self) -> list[tuple[Store, float]]:
        """The stores whose rows stand in quite another order than those of the first, and how often an epoch that reads each
        chunk of this one once reads each of theirs.
        """
        found = []
        for part, _ in self._made.rows.placed:
            rows, size = np.asarray(part.rows, np.int64), part.store.rows_per_chunk
            wanted = sum(
                len(np.unique(rows[start : start + self.rows_per_chunk] // size))
                for start in range(0, len(rows), self.rows_per_chunk)
            )
            if (times := wanted / part.store.chunks) > MANY:
                found.append((part.store, times))
        return found


MANY = 3.0  # times that a chunk is read, where chunks of two stores begin at other rows: twice


def _manifest(made: Derived, stores: Sequence[Store]) -> Manifest:
    """What the one store would say of itself, but for what only files have."""
    plan, spec = plan_of(made.spec, made.about), made.spec
    shards = [made.lost(shard) for shard in range(spec.shards)]
    lost = {each.name: LostTable.of(one[each.name] for one in shards) for each in spec.targets}
    tables: dict[str, Any] = (
        {"fidelity": {}, "targets": lost} if is_by_target(spec) else {"fidelity": lost[""].fidelity}
    )
    digest = store_digest(plan, [blake3(made.choice.encode()).hexdigest(), *(store.digest for store in stores)])
    return Manifest(
        format=plan.format,
        spec=spec,
        about=made.about,
        bytes=sum(store.manifest.bytes for store in stores),
        bytes_per_position=sum(store.manifest.bytes_per_position for store in stores),
        digest=digest,
        content_digest=digest,
        payloads=(),
        commits=(),
        **tables,
    )
