from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabels.stream.order import Epoch, Order, as_they_stand, order_digest, permute, splitmix64

FACTS = {"rows_per_chunk": 16, "window": 3, "batch_size": 7, "seed": 1}


def digest(seed: int = 1, keys: np.ndarray | None = None, content: str = "abc") -> str:
    keys = np.arange(160, dtype=np.uint8).reshape(10, 16) if keys is None else keys
    return order_digest(content=content, keys=keys, facts=FACTS | {"seed": seed})


def batch(epoch: Epoch, number: int) -> np.ndarray:
    """The items of one batch, out of the windows that it lies in and no others: a seek."""
    start = number * epoch.batch_size
    end = min(start + epoch.batch_size, int(epoch.bounds[-1]))
    first, last = epoch.window_at(start), epoch.window_at(end - 1)
    offset = start - int(epoch.bounds[first])
    return np.concatenate([epoch.window(w) for w in range(first, last + 1)])[offset : offset + end - start]


def sequence(order: Order, epoch: int) -> np.ndarray:
    one = order.epoch(epoch)
    return np.concatenate([one.window(w) for w in range(one.windows)])


sizes = {
    "chunks": st.lists(st.integers(0, 12), min_size=1, max_size=80),
    "window": st.integers(1, 9),
    "batch_size": st.integers(1, 40),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 10**6),
}


@given(**sizes)
def test_an_epoch_holds_every_item_once(chunks: list[int], window: int, batch_size: int, seed: int, epoch: int) -> None:
    order = Order(np.array(chunks), digest=digest(seed), window=window, batch_size=batch_size)
    assert sorted(sequence(order, epoch)) == list(range(len(chunks)))


@given(**sizes)
def test_a_batch_is_found_without_the_ones_before(
    chunks: list[int], window: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = Order(np.array(chunks), digest=digest(seed), window=window, batch_size=batch_size)
    whole = sequence(order, epoch)
    for number in range(-(-len(chunks) // batch_size)):
        expected = whole[number * batch_size : (number + 1) * batch_size]
        assert np.array_equal(batch(order.epoch(epoch), number), expected)


@given(**sizes)
def test_a_window_holds_whole_chunks_and_no_more_than_asked(
    chunks: list[int], window: int, batch_size: int, seed: int, epoch: int
) -> None:
    of_item = np.array(chunks)
    one = Order(of_item, digest=digest(seed), window=window, batch_size=batch_size).epoch(epoch)
    seen: list[int] = []
    for number in range(one.windows):
        items = one.window(number)
        assert len(items) == one.bounds[number + 1] - one.bounds[number]
        here = set(of_item[items].tolist())
        assert len(here) <= window
        seen += here
    assert sorted(seen) == sorted(set(chunks))  # each chunk in one window only


def test_the_order_of_one_fixed_input_never_changes() -> None:
    order = Order(np.repeat(np.arange(5), 4), digest=digest(), window=2, batch_size=7)
    assert digest() == "f343b59d603ac05db926a4aea10234d80b2eb2cc89f361bb9da5bb0c956d1086"
    assert sequence(order, 0).tolist() == [18, 16, 19, 17, 6, 0, 2, 3, 1, 5, 4, 7, 10, 13, 11, 14, 9, 12, 8, 15]
    assert sequence(order, 1).tolist() == [13, 14, 15, 12, 18, 16, 17, 19, 7, 4, 6, 5, 2, 8, 0, 1, 11, 3, 9, 10]


def test_splitmix64_gives_the_published_stream() -> None:
    # First outputs of the reference implementation, https://prng.di.unimi.it/splitmix64.c, seeded with 1234567.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, np.arange(5, dtype=np.uint64)).tolist() == expected


def test_epoch_seed_content_and_keys_each_change_the_order() -> None:
    chunks = np.arange(500) // 10

    def order(of: str, epoch: int = 0) -> list[int]:
        return list(sequence(Order(chunks, digest=of, window=4, batch_size=8), epoch))

    other_keys = np.arange(160, dtype=np.uint8).reshape(10, 16)[::-1]
    variants = [digest(), digest(seed=2), digest(keys=other_keys), digest(content="abd")]
    orders = [order(of) for of in variants] + [order(variants[0], epoch=1)]
    assert len({tuple(one) for one in orders}) == len(orders)
    assert order(variants[0]) == orders[0]


def test_permute_depends_on_the_set_only(rng: np.random.Generator) -> None:
    values = rng.choice(10**9, 1000, replace=False)
    assert np.array_equal(permute(values, 5), permute(rng.permutation(values), 5))
    assert not np.array_equal(permute(values, 5), permute(values, 6))


def test_every_place_of_a_window_is_equally_likely() -> None:
    # One item's place over 4,000 epochs, 10 places: chi-square with 9 degrees of freedom exceeds 40 once in 100,000.
    order = Order(np.zeros(10, np.int64), digest=digest(), window=1, batch_size=10)
    places = [int(np.flatnonzero(sequence(order, epoch) == 3)[0]) for epoch in range(4000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 40


def test_windows_are_of_like_size() -> None:
    # 17 chunks in windows of at most 16: not 16 and 1.
    one = Order(np.arange(170) // 10, digest=digest(), window=16, batch_size=8).epoch(0)
    assert sorted(np.diff(one.bounds)) == [80, 90]


@pytest.mark.parametrize(("items", "window_items"), [(1, 1), (10, 3), (9, 3), (5, 100)])
def test_items_as_they_stand(items: int, window_items: int) -> None:
    one = as_they_stand(items, window_items=window_items, batch_size=2)
    assert np.concatenate([one.window(w) for w in range(one.windows)]).tolist() == list(range(items))
    assert max(len(one.window(w)) for w in range(one.windows)) <= window_items
    assert batch(one, (items - 1) // 2)[-1] == items - 1
