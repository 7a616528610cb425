"""The members of a teacher as they are timed: what cannot be an ONNX file still has its bytes, and the table says what ran."""

from __future__ import annotations

from importlib import import_module  # skops takes a second, in each worker
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import nn

from softlabels.jobs.edge import in_turn
from softlabels.models.config import ModelConfig
from softlabels.models.estimator import build_member


@pytest.mark.slow
def test_a_forest_is_timed_as_it_is(rng: np.random.Generator, tmp_path: Path) -> None:
    rows = rng.normal(size=(30, 4)).astype(np.float32)
    file = tmp_path / "forest.skops"
    import_module("skops.io").dump(RandomForestClassifier(3).fit(rows, np.arange(30) % 2), file)
    forest = build_member(ModelConfig("sklearn.ensemble.RandomForestClassifier", {}, str(file)))
    (run, batch), size, note = in_turn([forest], torch.from_numpy(rows))
    assert (size, note) == (file.stat().st_size, " (scikit-learn)")
    _, with_net, note = in_turn([nn.Linear(4, 2), forest], batch)
    assert with_net > size
    assert note == " (scikit-learn)"
    [answer] = run(batch)
    torch.testing.assert_close(answer, forest(batch))
