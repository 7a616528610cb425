"""Greedy selection against trying it out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels import write_store
from softlabels.recipes import selection


def test_members_are_added_as_long_as_they_help(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, 60)
    wanted = np.eye(3)[labels]
    logits = 2 * wanted + rng.normal(size=(4, 60, 3)) * np.array([0.8, 1, 1.5, 6])[:, None, None]
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    chosen: list[int] = []
    best, kept = np.inf, [0] * 4
    for _ in range(12):
        scores = [((p[[*chosen, m]].mean(axis=0) - wanted) ** 2).sum(axis=1).mean() for m in range(4)]
        chosen.append(int(np.argmin(scores)))
        if min(scores) < best:
            best, kept = min(scores), [chosen.count(m) for m in range(4)]
    found = selection.greedy(p, labels, rounds=12)
    assert found.tolist() == kept
    assert found[3] == 0 < found[1]
    assert selection.bagged(p, labels, rounds=12, bags=1).tolist() == kept
    rows = np.random.default_rng(1).integers(0, 60, 60)
    other = selection.greedy(p[:, rows], labels[rows], rounds=12)
    assert selection.bagged(p, labels, rounds=12, bags=2).tolist() == (found + other).tolist()


def test_the_command_says_weights_of_a_store(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = rng.integers(0, 2, 40)
    good = 3 * np.eye(2)[labels]
    logits = np.stack([good + rng.normal(size=good.shape), rng.normal(size=good.shape)], axis=1)
    write_store(tmp_path / "test", logits, labels=np.r_[labels[:30], [-1] * 10], inputs=np.arange(40.0))
    assert selection.main([str(tmp_path / "test")]) == 0
    lines = capsys.readouterr().out.splitlines()
    p = np.exp(logits[:30]) / np.exp(logits[:30]).sum(axis=2, keepdims=True)
    alone = ((p - np.eye(2)[labels[:30], None]) ** 2).sum(axis=2).mean(axis=0)
    assert f"Brier {alone[0]:.4f}, weight" in lines[0]
    assert f"Brier {alone[1]:.4f}, weight 0" in lines[1]
    write_store(tmp_path / "train", logits, inputs=np.arange(40.0))
    assert selection.main([str(tmp_path / "train")]) == 2
    assert "has no hard labels" in capsys.readouterr().err
