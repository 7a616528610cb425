from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabels.stream.order import (
    Epoch,
    Order,
    as_they_stand,
    default_block,
    default_span,
    order_digest,
    order_digest_by_chunks,
    permute,
    splitmix64,
    times_wanted,
)

FACTS = {"block": 4, "window": 3, "batch_size": 7, "seed": 1}
KEYS = np.arange(160, dtype=np.uint8).reshape(10, 16)


def digest(seed: int = 1, keys: np.ndarray = KEYS, blocks: np.ndarray | None = None) -> str:
    blocks = np.arange(len(keys)) // 4 if blocks is None else blocks
    return order_digest(keys=keys, blocks=blocks, facts=FACTS | {"seed": seed})


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
    "span": st.integers(1, 6),
    "blocks": st.lists(st.integers(0, 12), min_size=1, max_size=80),
    "window": st.integers(1, 9),
    "batch_size": st.integers(1, 40),
    "seed": st.integers(0, 2**40),
    "epoch": st.integers(0, 10**6),
}


@given(**sizes)
def test_an_epoch_holds_every_item_once(
    blocks: list[int], span: int, window: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = Order(np.array(blocks), digest=digest(seed), window=window, batch_size=batch_size, span=span)
    assert sorted(sequence(order, epoch)) == list(range(len(blocks)))


@given(**sizes)
def test_a_batch_is_found_without_the_ones_before(
    blocks: list[int], span: int, window: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = Order(np.array(blocks), digest=digest(seed), window=window, batch_size=batch_size, span=span)
    whole = sequence(order, epoch)
    for number in range(-(-len(blocks) // batch_size)):
        expected = whole[number * batch_size : (number + 1) * batch_size]
        assert np.array_equal(batch(order.epoch(epoch), number), expected)


@given(**sizes)
def test_a_window_holds_whole_blocks_and_no_more_than_asked(
    blocks: list[int], span: int, window: int, batch_size: int, seed: int, epoch: int
) -> None:
    of_item = np.array(blocks)
    one = Order(of_item, digest=digest(seed), window=window, batch_size=batch_size, span=span).epoch(epoch)
    seen: list[int] = []
    for number in range(one.windows):
        items = one.window(number)
        assert len(items) == one.bounds[number + 1] - one.bounds[number]
        here = set(of_item[items].tolist())
        assert len(here) <= window
        seen += here
    assert sorted(seen) == sorted(set(blocks))  # each block in one window only


@pytest.mark.parametrize("block", [16, 64, 128])
@pytest.mark.parametrize("chunk", [16, 48, 64, 256, 1024])
def test_a_chunk_is_wanted_in_few_windows_one_behind_the_other(block: int, chunk: int) -> None:
    """So that a cache of a window of chunks spares reading them again, whatever their size; yet blocks are shuffled."""
    rows, window = 1 << 16, 16
    of_item = np.arange(rows) // block
    order = Order(of_item, digest=digest(), window=window, batch_size=8, span=default_span(block, rows, window))
    one = order.epoch(3)
    kept, read = dict[int, None](), 0
    for number in range(one.windows):
        for at in np.unique(one.window(number) // chunk).tolist():
            read += at not in kept
            kept.pop(at, None)
            kept[at] = None
            if len(kept) > window + 2:
                kept.pop(next(iter(kept)))
    assert read <= (1.0 if chunk != 48 else 1.8) * -(-rows // chunk)
    firsts = sequence(order, 3)[::block] // block
    assert abs(np.corrcoef(firsts[:-1], firsts[1:])[0, 1]) < 0.3


@pytest.mark.parametrize("rows", [2_000, 10_000, 100_000])
def test_a_window_takes_rows_of_all_places_also_where_there_are_few(rows: int) -> None:
    block, window = 16, 16
    span = default_span(block, rows, window)
    one = Order(np.arange(rows) // block, digest=digest(), window=window, batch_size=8, span=span).epoch(0)
    for number in range(one.windows):
        places = np.unique(one.window(number) // block)
        assert (np.diff(places) == 1).sum() < window / 2  # but for some neighbours


@pytest.mark.parametrize(
    ("row_bytes", "rows"), [(0, 512), (2 * 10, 512), (2048, 512), (2049, 256), (54_600, 16), (12_865_792, 16)]
)
def test_the_default_block_is_512_rows_or_about_a_mebibyte(row_bytes: int, rows: int) -> None:
    assert default_block(row_bytes) == rows


@pytest.mark.parametrize(
    ("block", "items", "blocks"),
    [(512, 10**6, 2), (1024, 10**6, 1), (16, 10**6, 64), (100, 10**6, 8), (16, 2100, 2), (16, 9, 1)],
)
def test_a_span_is_1024_rows_or_fewer_of_few(block: int, items: int, blocks: int) -> None:
    assert default_span(block, items, 16) == blocks


def test_how_often_chunks_are_wanted() -> None:
    blocks = np.arange(16_000) // 16
    one = Order(blocks, digest=digest(), window=10, batch_size=8).epoch(0)
    assert one.windows == 100
    assert times_wanted(one, blocks) == 1
    assert times_wanted(one, blocks // 1000) == 100
    assert times_wanted(one, blocks // 1000, at_once=10) == 10
    assert times_wanted(one, blocks, at_once=7) == pytest.approx(1, rel=0.1)
    shuffled = np.random.default_rng(0).permutation(blocks)
    assert 14 < times_wanted(one, shuffled) < 16  # 160 rows of a window lie in about 148 of 1,000 chunks
    assert times_wanted(as_they_stand(9, window_items=100, batch_size=2), np.arange(9)) == 1


def test_the_order_of_one_fixed_input_never_changes() -> None:
    order = Order(np.repeat(np.arange(5), 4), digest=digest(), window=2, batch_size=7, span=2)
    assert digest() == "7dde94c433cfcf177d245338a0e3dbfc5cd943303f26a4819749467537051930"
    assert sequence(order, 0).tolist() == [12, 14, 13, 15, 3, 10, 0, 2, 11, 8, 9, 1, 6, 7, 16, 18, 5, 19, 17, 4]
    assert sequence(order, 1).tolist() == [0, 1, 3, 2, 4, 5, 7, 13, 6, 15, 14, 12, 9, 19, 8, 10, 18, 17, 16, 11]


def test_the_order_by_chunks_of_one_fixed_input_never_changes() -> None:
    """That of earlier versions, in which their runs go on."""
    facts = {"rows_per_chunk": 16, "window": 3, "batch_size": 7, "seed": 1}
    of = order_digest_by_chunks(content="abc", keys=KEYS, facts=facts)
    order = Order(np.repeat(np.arange(5), 4), digest=of, window=2, batch_size=7)
    assert of == "f343b59d603ac05db926a4aea10234d80b2eb2cc89f361bb9da5bb0c956d1086"
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


def test_epoch_seed_keys_and_blocks_each_change_the_order() -> None:
    blocks = np.arange(500) // 10

    def order(of: str, epoch: int = 0) -> list[int]:
        return list(sequence(Order(blocks, digest=of, window=4, batch_size=8), epoch))

    variants = [digest(), digest(seed=2), digest(keys=KEYS[::-1]), digest(blocks=np.arange(1, 11) // 4)]
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
    # 17 blocks in windows of at most 16: not 16 and 1.
    one = Order(np.arange(170) // 10, digest=digest(), window=16, batch_size=8).epoch(0)
    assert sorted(np.diff(one.bounds)) == [80, 90]


@pytest.mark.parametrize(("items", "window_items"), [(1, 1), (10, 3), (9, 3), (5, 100)])
def test_items_as_they_stand(items: int, window_items: int) -> None:
    one = as_they_stand(items, window_items=window_items, batch_size=2)
    assert np.concatenate([one.window(w) for w in range(one.windows)]).tolist() == list(range(items))
    assert max(len(one.window(w)) for w in range(one.windows)) <= window_items
    assert batch(one, (items - 1) // 2)[-1] == items - 1
