from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from softlabels.errors import ConfigError
from softlabels.stream import Part
from softlabels.stream.order import Order, as_they_stand
from softlabels.stream.stretch import Stretch


def sizes(rows: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Of the batches of a process, by their definition: of each batch of all processes, as many as each other, within one."""
    of_all = [batch_size] * (rows // batch_size) + [rows % batch_size] * (rows % batch_size > 0)
    return [size * (rank + 1) // world - size * rank // world for size in of_all]


@given(rows=st.integers(1, 60), batch_size=st.integers(1, 9), world=st.integers(1, 4), workers=st.integers(1, 4))
def test_stretches_are_those_of_the_definition(rows: int, batch_size: int, world: int, workers: int) -> None:
    assume(all(not 0 < size < world for size in (batch_size, rows % batch_size)))
    at = 0
    for rank in range(world):
        own = sizes(rows, batch_size, rank, world)
        assert min(own) > 0
        for worker in range(workers):
            found = Stretch(rows, batch_size, Part(rank, world), worker, workers)
            mine = own[worker::workers]
            assert (found.start, found.stop, found.steps) == (at, at + sum(mine), len(own))
            assert all(size == found.size for size in mine[:-1])
            assert [found.number(i) for i in range(len(mine))] == list(range(len(own)))[worker::workers]
            for batch in range(len(own) + 1):
                assert found.first(batch) == len([number for number in range(batch) if number % workers == worker])
            at = found.stop
    assert at == rows


@pytest.mark.parametrize(("rows", "batch_size", "short"), [(100, 33, 1), (100, 2, 2)])
def test_a_batch_of_fewer_rows_than_processes_is_refused(rows: int, batch_size: int, short: int) -> None:
    with pytest.raises(ConfigError, match=f"a batch of {short} rows for 3 processes"):
        Stretch(rows, batch_size, Part(0, 3))


@given(rows=st.integers(1, 80), cuts=st.lists(st.integers(0, 80), min_size=2, max_size=5))
def test_a_stretch_of_an_epoch_is_that_part_of_its_sequence(rows: int, cuts: list[int]) -> None:
    cuts = sorted({min(cut, rows) for cut in cuts})
    order = Order(np.arange(rows) // 3, digest="x", window=4, batch_size=5, span=2)
    for epoch in (order.epoch(1), as_they_stand(rows, window_items=7, batch_size=5)):
        whole = epoch.several(0, epoch.windows)
        for start, stop in pairwise(cuts):
            part = epoch.stretch(start, stop, batch_size=2)
            assert part.batch_size == 2
            assert part.several(0, part.windows).tolist() == whole[start:stop].tolist()
            assert np.diff(part.bounds).tolist() == [len(part.window(w)) for w in range(part.windows)]
            assert part.bounds[0] == 0
            assert part.bounds[-1] == stop - start
