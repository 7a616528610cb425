"""Rows that splits share, counted by content key, against a count by Python's sets."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.checks.leaks import leak_lines, leaks


def keys(rng: np.random.Generator, rows: int, kinds: int) -> np.ndarray:
    """Keys with repeats, some of which differ in the last byte only."""
    base = np.zeros((kinds, 16), np.uint8)
    base[:, -1], base[:, 0] = np.arange(kinds) % 256, np.arange(kinds) // 256
    return base[rng.integers(0, kinds, rows)]


def test_they_are_those_that_sets_find(rng: np.random.Generator) -> None:
    first, second = keys(rng, 300, 200), keys(rng, 150, 400)
    ours, theirs = [bytes(key) for key in first], [bytes(key) for key in second]
    found = leaks({"train": first, "test": second, "validation": np.zeros((0, 16), np.uint8)})
    shared = sum(key in set(ours) for key in theirs)
    repeated = {"train": len(ours) - len(set(ours)), "test": len(theirs) - len(set(theirs))}
    assert found == repeated | {"test in train": shared}
    assert min(found.values()) > 0


def test_one_line_for_each_finding(rng: np.random.Generator) -> None:
    train = np.unique(keys(rng, 500, 600), axis=0)
    splits = {"test": np.concatenate([train[:30], train[:1]]), "train": train, "validation": train[30:40]}
    found = leaks(splits)
    assert found == {"test": 1, "validation in train": 10, "test in train": 31}
    assert leak_lines(found, {name: len(part) for name, part in splits.items()}) == [
        "1 of 31 test rows repeat an earlier one",
        "10 of 10 validation rows are train rows too (equal content keys)",
        "31 of 31 test rows are train rows too (equal content keys)",
    ]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_repeat_nothing(rows: int) -> None:
    assert leaks({"train": np.zeros((rows, 16), np.uint8)}) == {}
