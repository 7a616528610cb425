from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from softlabels.errors import LabelError, TransferSetError
from softlabels.transfer.decode import storage
from softlabels.transfer.hard_labels import hard_labels

NAMES = ("cat", "dog", "owl")


def labels(array: pa.Array, names: tuple[str, ...] | None = NAMES) -> list[int]:
    found = hard_labels(storage(array), name="label", class_names=names, rows=range(50, 99))
    assert found.dtype == np.int64
    return found.tolist()


def test_integers_pass_and_null_is_none() -> None:
    for kind in (pa.int8(), pa.uint64(), pa.int64()):
        assert labels(pa.array([2, None, 0], kind)) == [2, -1, 0]
    assert labels(pa.array([-1, 1])) == [-1, 1]
    assert labels(pa.array([2**60]), None) == [2**60]
    assert labels(pa.array([2**60 + 1, None]), None) == [2**60 + 1, -1]
    assert labels(pa.array([None, None])) == [-1, -1]


def test_false_and_true_are_0_and_1() -> None:
    array = pa.array([True, None, False])
    assert labels(array, ("no", "yes")) == labels(array, None) == [1, -1, 0]


def test_text_goes_through_the_class_names() -> None:
    array = pa.array(["owl", None, "cat"])
    assert labels(array) == labels(array.dictionary_encode()) == [2, -1, 0]


@pytest.mark.parametrize(
    ("array", "names", "words"),
    [
        (pa.array([0, 3]), NAMES, r"label 3 in row 51 is outside \[-1, 3\)"),
        (pa.array([0, 1, -2]), NAMES, "label -2 in row 52"),
        (pa.array([-7]), None, "label -7 in row 50"),
        (pa.array([2**63 + 1], pa.uint64()), None, "label 9223372036854775809 in row 50"),
        (pa.array(["cat", "cow"]), NAMES, "label 'cow' in row 51"),
    ],
)
def test_a_label_outside_the_label_space_is_refused(array: pa.Array, names: tuple[str, ...] | None, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        labels(array, names)


@pytest.mark.parametrize(
    ("array", "names", "words"),
    [
        (pa.array([datetime.date(2020, 1, 1)]), NAMES, "type date32"),
        (pa.array([[1]]), NAMES, "type list"),
        (pa.array(["owl", None, "cat", "owl"]), None, "in transfer_set.classes; the first rows have 'cat', 'owl'$"),
        (pa.array(list("abcdefghijkl")), None, "'i', 'j', ...$"),
    ],
)
def test_a_column_that_holds_no_labels_is_refused(array: pa.Array, names: tuple[str, ...] | None, words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        labels(array, names)
