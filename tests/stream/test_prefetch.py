from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from softlabels.errors import DamagedShard
from softlabels.stream.prefetch import prefetch


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("softlabels")]


def test_values_come_in_order_and_the_thread_ends() -> None:
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert not alive()


def test_nothing_runs_before_the_first_value_is_asked_for() -> None:
    prefetch(iter(range(3)))
    assert not alive()


def test_the_next_value_is_made_while_this_one_is_in_use() -> None:
    made = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        made.set()
        yield 1

    values = prefetch(source())
    assert next(values) == 0
    assert made.wait(timeout=60)
    values.close()


def test_it_runs_at_most_two_values_ahead() -> None:
    made: list[int] = []
    values = prefetch(made.append(i) or i for i in range(100))
    for consumed in range(10):
        next(values)
        assert len(made) <= consumed + 3
    values.close()


@pytest.mark.parametrize("used", [1, 4])
def test_values_that_are_made_together_are_made_in_equal_number(used: int) -> None:
    """By a producer that is two values ahead when the consumer leaves, and by one that is not."""
    for head_start in (0.0, 0.05):
        made: list[int] = []
        values = prefetch((made.append(i) or i for i in range(100)), together=True)  # type: ignore[func-returns-value]
        for _ in range(used):
            next(values)
        time.sleep(head_start)
        values.close()
        assert len(made) == used + 2
        assert not alive()
    ending = prefetch(iter(range(3)), together=True)
    assert next(ending) == 0
    ending.close()


def test_an_error_reaches_the_consumer_after_the_values_before_it() -> None:
    error = DamagedShard("shard 3 differs", remedy="verify")

    def source() -> Iterator[int]:
        yield 1
        raise error

    values = prefetch(source())
    assert next(values) == 1
    with pytest.raises(DamagedShard) as caught:
        next(values)
    assert caught.value is error
    assert not alive()


@pytest.mark.parametrize("how", ["close", "drop", "cycle"])
def test_an_abandoned_generator_stops_its_thread_and_closes_the_source(how: str) -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    values = prefetch(source())
    next(values)
    time.sleep(0.01)  # the producer now waits for room in the queue
    if how == "close":
        values.close()
    elif how == "cycle":
        ring: list[object] = [values]
        ring.append(ring)
        del ring
    del values
    gc.collect()
    assert not alive()
    assert closed.is_set()
