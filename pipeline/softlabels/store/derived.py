"""`Derived`: a store that is made of the rows of others, and `fill`, which writes it: streamed, resumed, sealed. Nothing is
encoded anew.

What storing lost is carried where each row of each source is here once, and else unknown. The sums of a source's shard then
stand in the record of the new shard that holds its first row: sums over part of a shard are known to nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from blake3 import blake3

from softlabels.labels.lost import Lost
from softlabels.store.basis import Basis
from softlabels.store.parts import Picked, Rows, ahead
from softlabels.store.records import Manifest
from softlabels.store.same_plan import require_same_maker
from softlabels.store.spec import About, Spec
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.places import Target

AT_ONCE = 16  # chunks whose rows are wanted of sources at once


@dataclass(frozen=True)
class Derived:
    """A new store: what it says of itself, and its rows. `choice` tells apart what specifications do not, as `choice_of` says;
    `about.source` ends in it.
    """

    spec: Spec
    rows: Rows
    about: About
    basis: Basis | None = None
    choice: str = ""

    @cached_property
    def _sums(self) -> Mapping[str, Mapping[int, list[tuple[Picked, int]]]]:
        """Of each target whose loss is known: by number of a new shard the shards of sources whose sums stand there."""
        placed = self.rows.placed
        if not all(part.is_whole for part, _ in placed):
            return {}
        found: dict[int, list[tuple[Picked, int]]] = defaultdict(list)
        for part, begin in placed:
            firsts = np.arange(part.store.spec.shards) * part.store.spec.cut.rows_per_shard
            where = (begin + part.at(firsts)) // self.spec.cut.rows_per_shard
            for shard, new in enumerate(where.tolist()):
                found[new].append((part, shard))
        said = [part.store.manifest.lost for part, _ in placed]
        known = [
            each.name
            for each in self.spec.targets
            if all(one[each.name].fidelity or one[each.name].errors for one in said)
        ]
        return dict.fromkeys(known, found)

    def lost(self, shard: int) -> dict[str, Lost]:
        """What storing the rows of a shard lost, by target."""
        return {
            each.name: Lost.total(
                part.store.record(old).lost[each.name] for part, old in self._sums.get(each.name, {}).get(shard, [])
            )
            for each in self.spec.targets
        }


def choice_of(how: str, rows: Rows) -> str:
    """Words that tell apart what the specification does not: which rows and members of the sources (two members may be called
    alike), and their classes in which order.
    """
    hasher = blake3()
    for part, _ in rows.placed:
        numbers = np.arange(len(part)) if isinstance(part.rows, range) else part.rows
        hasher.update(np.ascontiguousarray(numbers, "<i8").view(np.uint8).data)
        if part.members is not None:
            hasher.update(f"members {[*part.members]}".encode())
        for name, order in sorted(part.orders.items()):
            hasher.update(name.encode() + np.ascontiguousarray(order, "<i8").tobytes())
    return f"{how}: choice of rows and classes {hasher.hexdigest()[:16]}"


def fill(
    target: Target,
    made: Derived,
    *,
    progress: Callable[[int], object] = lambda shards: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Manifest:
    """Write the store, or go on where an earlier try stopped.

    Args:
        progress: called with 1 after each shard. should_stop: asked before each.

    Raises:
        DamagedStore: a chunk of a source is damaged; nothing of the shard is written.
        SpecMismatch, StorePathError: `target` holds something else. DiskFull: before the first shard, where possible.
        Interrupted: `should_stop` said so; calling again goes on.
    """
    spec, step = made.spec, made.spec.cut.rows_per_chunk
    names = [column.name for column in spec.columns]
    with StoreWriter(target, spec, basis=made.basis, about=made.about) as writer:
        if made.choice:
            require_same_maker(writer.folder, made.choice, remedy="choose as then")
        require_room([writer])
        for shard in writer.pending:
            if should_stop():
                raise writer.stopped()
            with writer.shard(shard) as out:
                rows = spec.shard_rows(shard)
                for number, start in enumerate(range(rows.start, rows.stop, step)):
                    if number % AT_ONCE == 0:
                        ahead(made.rows, [range(start, min(start + AT_ONCE * step, rows.stop))], names)
                    stop = min(start + step, rows.stop)
                    out.add(made.rows.read(start, stop, names), stop - start)
                out.commit(made.lost(shard))
            progress(1)
        return writer.seal(checked=True)
