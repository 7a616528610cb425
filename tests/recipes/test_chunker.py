"""Automatizer and chunker of the recipe `chunker`, against their definition, and the sequences that they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.recipes.chunker import Automatizer, Chunker
from softlabels.recipes.recall_rows import recall_rows


def test_the_chunker_is_given_what_was_not_foreseen(rng: np.random.Generator) -> None:
    """Its states are those of the recurrence over these symbols alone, in float64; between them they stay."""
    model = Chunker(symbols=6, hidden=5, answers=3, state=4, foreseen=1 / 6).double().eval()
    symbols = rng.integers(0, 6, (7, 11))
    with torch.no_grad():
        found = {name: each.numpy() for name, each in model(torch.from_numpy(symbols)).items()}
    weight = {name: each.detach().numpy() for name, each in model.named_parameters()}
    skipped = 0
    for row, sequence in enumerate(symbols):
        units, state = np.zeros(5), np.zeros(4)
        coming = None
        for position, symbol in enumerate(sequence):
            if coming is None or np.exp(coming)[symbol] / np.exp(coming).sum() < 1 / 6:
                before = weight["cell.weight_hh"] @ state + weight["cell.bias_hh"]
                state = np.tanh(
                    weight["cell.weight_ih"] @ weight["symbols.weight"][symbol] + weight["cell.bias_ih"] + before
                )
            else:
                skipped += 1
            name = "units.memory."
            own = weight[name + "weight_ih_l0"] @ weight["units.symbols.weight"][symbol] + weight[name + "bias_ih_l0"]
            units = np.tanh(own + weight[name + "weight_hh_l0"] @ units + weight[name + "bias_hh_l0"])
            coming = weight["next.weight"] @ units + weight["next.bias"]
            np.testing.assert_allclose(found["next"][row, position], coming)
            np.testing.assert_allclose(found["state"][row, position], state)
            answer = weight["answer.weight"] @ state + weight["answer.bias"]
            np.testing.assert_allclose(found["answer"][row, position], answer)
    assert 0 < skipped < symbols.size - len(symbols)


def test_an_automatizer_says_all_three_of_what_came_so_far(rng: np.random.Generator) -> None:
    model = Automatizer(symbols=6, hidden=5, answers=3, state=4)
    symbols = torch.from_numpy(rng.integers(0, 6, (2, 9)))
    found = model(symbols)
    assert {name: [*each.shape] for name, each in found.items()} == {
        "next": [2, 9, 6],
        "answer": [2, 9, 3],
        "state": [2, 9, 4],
    }
    later = symbols.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 6
    for name, each in model(later).items():
        torch.testing.assert_close(each[:, :5], found[name][:, :5])
        assert not torch.isclose(each[:, 5], found[name][:, 5]).all()
    with pytest.raises(ConfigError, match=r"whole numbers \(B, P\), a batch has torch.float32 of shape \[2, 9\]"):
        model(symbols.float())


def test_each_sequence_asks_for_its_message_after_the_gap() -> None:
    train, test = (recall_rows(split=split, gap=5, first=3, ring=4, messages=2) for split in ("train", "test"))
    every = {name: np.concatenate([train[name], test[name]]) for name in train}
    assert [len(each["symbols"]) for each in (train, test)] == [20, 4]
    assert len(np.unique(every["symbols"], axis=0)) == 3 * 4 * 2  # all there are, and none in both splits
    assert np.array_equal(every["next"][:, :-1], every["symbols"][:, 1:])
    for symbols, after, answer in zip(every["symbols"], every["next"], every["answer"], strict=True):
        [at] = np.flatnonzero(symbols >= 4)
        assert at < 3
        assert len(symbols) - 1 - at >= 5
        ring = np.append(np.delete(symbols, at), after[-1])
        assert np.array_equal(np.diff(ring) % 4, np.ones(len(ring) - 1))
        assert answer[-1] == symbols[at] - 4
        assert (answer[:-1] == -1).all()
    with pytest.raises(ConfigError, match="split is 'other'"):
        recall_rows(split="other")
