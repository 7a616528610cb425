"""Keys that are looked up, also where somebody made their first halves alike."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.store.key_index import KeyIndex

ANY = 1 << 62


def keys_of(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return np.stack([high, low], axis=-1).astype(np.uint64).view(np.uint8).reshape(-1, 16)


@pytest.mark.parametrize("high", [1, 3, 100, ANY])
@pytest.mark.parametrize("low", [1, 4, ANY])
def test_each_key_leads_to_its_first_row_whatever_halves_are_alike(rng, high: int, low: int) -> None:
    for rows in (0, 1, 2, 200):
        keys = keys_of(rng.integers(0, high, rows), rng.integers(0, low, rows))
        others = keys_of(rng.integers(0, high + 1, 50), rng.integers(0, low + 1, 50))
        asked = np.concatenate([keys[rng.permutation(rows)], others])
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            first.setdefault(key.tobytes(), row)
        assert KeyIndex(keys).find(asked).tolist() == [first.get(key.tobytes(), -1) for key in asked]


class Counted(np.ndarray):
    """An array that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, index):
        Counted.looks += 1
        return np.asarray(self)[index]


def test_keys_of_one_first_half_are_no_step_each(rng, monkeypatch) -> None:
    monkeypatch.setattr(Counted, "looks", 0)
    keys = keys_of(np.zeros(2000), rng.permutation(4000)[:2000])
    index = KeyIndex(keys)
    index._low = index._low.view(Counted)
    assert index.find(keys).tolist() == list(range(2000))
    assert Counted.looks < 20
