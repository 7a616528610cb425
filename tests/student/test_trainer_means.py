"""Means of members that do not exist, met in training, in validation and in the scores of the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from softlabels.errors import NoPossibleClass
from softlabels.student.evaluate import Asked, evaluate_teacher
from tests.student.runs import MemoryBatches, examples, run


@pytest.mark.parametrize("micro_batch", [None, 8])
def test_a_row_whose_members_have_no_geometric_mean_is_named(tmp_path: Path, micro_batch: int | None) -> None:
    batch, held_out = examples(), examples(seed=1, rows=60)
    for each, row in ((batch, 77), (held_out, 44)):
        assert each.soft is not None
        each.soft.members.logits[row, 0, 1:] = -torch.inf
        each.soft.members.logits[row, 1, 0] = -torch.inf
    config = {"mean": "geometric", "micro_batch": micro_batch}
    with pytest.raises(NoPossibleClass, match=r"no possible class in common \(row 77\); ask for mean=arithmetic"):
        run(tmp_path / "train", train=MemoryBatches(batch, 32), **config)
    with pytest.raises(NoPossibleClass, match=r"\(row 44\)"):
        run(tmp_path / "validation", validation=MemoryBatches(held_out, 25, seed=None), **config)
    cpu = torch.device("cpu")
    with pytest.raises(NoPossibleClass, match=r"\(row 44\)"):
        evaluate_teacher(MemoryBatches(held_out, 25, seed=None), {"": Asked((), "geometric")}, device=cpu)
