"""Which token a position predicts: against a loop that reads the row as a person does."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import TransferSetError
from softlabels.transfer.alignment import alignment


def slowly(tokens: list[int], documents: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Next token, mask and document of each position, one after the other."""
    found: tuple[list[int], list[int], list[int]] = ([], [], [])
    for place in range(len(tokens) - 1):
        here, there = documents[place], documents[place + 1]
        counts = here != 0 and there != 0 and here == there
        found[0].append(tokens[place + 1] if counts else -1)
        found[1].append(1 if counts else 0)
        found[2].append(here)
    return found


def random_rows(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Rows (rows, 2, length) of documents of 1 to 6 tokens, some padded, some not."""
    out = np.zeros((rows, 2, length), np.int32)
    for row in out:
        place, document, end = 0, 0, int(rng.integers(1, length + 1)) if rng.random() < 0.5 else length
        while place < end:
            document, stop = document + 1, min(end, place + int(rng.integers(1, 7)))
            row[0, place:stop], row[1, place:stop] = rng.integers(0, 90_000, stop - place), document
            place = stop
    return out


@pytest.mark.parametrize("length", [2, 3, 17, 40])
def test_it_is_what_a_slow_reader_says(length: int, rng: np.random.Generator) -> None:
    rows = random_rows(rng, 60, length)
    found = alignment(rows)
    for number, (tokens, documents) in enumerate(rows.tolist()):
        expected = slowly(tokens, documents)
        for given, wanted in zip((found.next_token, found.mask, found.document), expected, strict=True):
            assert given[number].tolist() == wanted
    assert [a.dtype for a in (found.next_token, found.mask, found.document)] == [np.int64, np.uint8, np.uint16]
    assert found.mask.any()
    assert length < 5 or (found.mask == 0).any()


def test_the_example_of_the_page() -> None:
    rows = np.array([[[5, 6, 7, 0, 8, 9, 0], [1, 1, 1, 1, 2, 2, 0]]], np.int32)
    found = alignment(rows)
    assert found.next_token.tolist() == [[6, 7, 0, -1, 9, -1]]
    assert found.mask.tolist() == [[1, 1, 1, 0, 1, 0]]
    assert found.document.tolist() == [[1, 1, 1, 1, 2, 2]]


def test_a_row_of_one_token_predicts_nothing() -> None:
    found = alignment(np.array([[[7, 0, 0], [1, 0, 0]]], np.int32))
    assert found.mask.tolist() == [[0, 0]]
    assert found.next_token.tolist() == [[-1, -1]]
    assert found.document.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "documents",
    [[2, 2, 2], [1, 3, 3], [1, 2, 1], [1, 0, 1], [0, 0, 0], [1, -1, -1], [1, 2, -5]],
)
def test_documents_that_no_row_has_are_refused(documents: list[int]) -> None:
    good = [[4, 5, 6], [1, 1, 2]]
    with pytest.raises(TransferSetError, match="row 1 of a batch"):
        alignment(np.array([good, [[4, 5, 6], documents]], np.int64))


@pytest.mark.parametrize("rows", [np.zeros((3, 8), np.int32), np.ones((3, 2, 8)), np.ones((3, 2, 1), np.int32)])
def test_what_are_no_token_rows_is_refused(rows: np.ndarray) -> None:
    with pytest.raises(TransferSetError, match="token rows are integers"):
        alignment(rows)


def test_more_documents_than_their_numbers_hold_are_refused() -> None:
    numbers = np.arange(1, (1 << 16) + 2)
    with pytest.raises(TransferSetError, match="not 1, 2"):
        alignment(np.stack([numbers, numbers])[None])
