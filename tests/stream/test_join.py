from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError, OtherLabels, UnlabelledRows
from softlabels.stream.examples import join_examples
from softlabels.stream.join import find_labels
from tests.stream.samples import CLASSES, keys_of, rows_of

NAMES = ("digits", "teacher/train")


def join(numbers, store, *, items=None, missing="error"):
    items = np.arange(len(numbers)) if items is None else np.asarray(items)
    return find_labels(keys_of(numbers), store, items=items, missing=missing, names=NAMES)


def test_rows_in_the_stores_order_need_no_index(make_store, monkeypatch) -> None:
    store = make_store(np.arange(100))
    monkeypatch.setattr(store, "find", None)  # calling it would be a TypeError
    items, rows = join(np.arange(100), store)
    assert np.array_equal(items, np.arange(100))
    assert np.array_equal(rows, np.arange(100))
    items, rows = join(np.arange(100), store, items=[5, 3, 99])
    assert rows.tolist() == items.tolist() == [5, 3, 99]


def test_shuffled_and_filtered_copies_find_their_labels(make_store, rng) -> None:
    store = make_store(rng.permutation(300))
    stored = store.column("content_key")
    wanted = rng.choice(300, 120, replace=False)
    items, rows = join(wanted, store)
    assert np.array_equal(items, np.arange(120))
    assert np.array_equal(stored[rows], keys_of(wanted))


def test_a_repeated_key_gives_its_first_row_whatever_the_order(make_store) -> None:
    numbers = np.array([7, 8, 7, 9, 8, 7])
    assert join(numbers, make_store(numbers))[1].tolist() == [0, 1, 0, 3, 1, 0]
    assert join(numbers[::-1].copy(), make_store(numbers))[1].tolist() == [0, 1, 3, 0, 1, 0]
    assert join(np.array([7, 8]), make_store(numbers))[1].tolist() == [0, 1]


def test_rows_without_labels_are_counted_and_named(make_store) -> None:
    store = make_store(np.arange(40))
    numbers = np.arange(50)
    numbers[[2, 3, 5]] = [71, 72, 73]
    with pytest.raises(
        UnlabelledRows, match="no labels for 13 of 50 rows of digits, first rows 2, 3, 5, 40, 41;"
    ) as info:
        join(numbers, store)
    assert "--missing=skip" in info.value.remedy
    with pytest.raises(UnlabelledRows, match="1 of 3 rows of digits, first rows 45"):
        join(numbers, store, items=[0, 45, 4])


def test_skip_leaves_them_out(make_store) -> None:
    numbers = np.array([90, 3, 91, 1, 2])
    items, rows = join(numbers, make_store(np.arange(10)), missing="skip")
    assert items.tolist() == [1, 3, 4]
    assert rows.tolist() == [3, 1, 2]


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_no_shared_key_is_an_error_of_its_own(make_store, missing: str) -> None:
    message = r"digits \(20 rows\) and the store teacher/train \(10 rows\) share no content keys"
    with pytest.raises(UnlabelledRows, match=message) as info:
        join(np.arange(100, 120), make_store(np.arange(10)), missing=missing)
    assert "id column" in info.value.remedy


def test_missing_is_one_of_two_words(make_store) -> None:
    with pytest.raises(ConfigError, match="missing must be error or skip, not 'drop'"):
        join(np.arange(3), make_store(np.arange(3)), missing="drop")


def test_two_classes_exchanged_are_refused_where_the_teacher_does_not_say_that_they_were_mended(make_store) -> None:
    numbers = np.arange(200)
    right = numbers % CLASSES
    wrong = np.array([1, 0, *range(2, CLASSES)])[right]
    top = np.where(numbers % 10 < 6, right, 2)  # of a teacher that is no better than most
    mended = make_store(numbers, labels=wrong, top=top)
    assert (join_examples(rows_of(numbers, labels=right), mended).targets[""].labels == right).all()
    for store in (make_store(numbers, top=top), make_store(numbers, top=np.full(200, 2))):
        with pytest.raises(OtherLabels, match=r"digits calls class 1 what .* calls class 0"):
            join_examples(rows_of(numbers, labels=wrong), store)
