"""Generators are seeded, saved and put back; what is deterministic stays inside its block."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from softlabels.student.seeding import deterministic, rng_state, seed_everything, set_rng_state


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), *np.random.normal(size=3).tolist(), *torch.randn(5).tolist()]


def test_a_seed_decides_every_generator() -> None:
    seed_everything(5)
    first = draws()
    seed_everything(5)
    assert draws() == first
    seed_everything(6)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_the_state_goes_through_a_file_and_back(drawn: int) -> None:
    seed_everything(7)
    for _ in range(drawn):  # an odd number of normal draws leaves a second one cached
        random.gauss(0, 1)
        np.random.normal()
        torch.randn(1)
    file = io.BytesIO()
    torch.save(rng_state(), file)
    want = draws()
    file.seek(0)
    draws()
    set_rng_state(torch.load(file, weights_only=True))
    assert draws() == want


def test_deterministic_ends_with_its_block() -> None:
    threads = torch.get_num_threads()
    with deterministic(torch.device("cpu"), 2):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_num_threads() == 2
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.get_num_threads() == threads
    assert torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(KeyError), deterministic(torch.device("cpu"), 2):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    with deterministic(torch.device("cuda"), None):
        assert torch.is_deterministic_algorithms_warn_only_enabled()
