"""Students held in pieces by several processes (FSDP2 over gloo): the weights of one process, the same bits after a stop or a
kill, and runs that go on with the students held otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.student.divided import are_students_divided
from softlabels.student.sharded import blocks_of, filled, require_alike, taken_from
from softlabels.student.step import cuts
from tests.student.runs import Server
from tests.student.test_ranks import KILLED, assert_near, assert_same, errors, lines, ranks, rows_of, run, told

__all__ = ["ranks"]
ALL = {"micro_batch": 3, "ema": 0.9, "clip_norm": 0.5, "max_norm": 2.0}
SHARD = {"shard": True}


def assert_shares(one: Path, folder: Path, world: int) -> None:
    held = [told(folder, rank)["bytes"] for rank in range(world)]
    assert sum(held) == told(one)["bytes"]
    assert max(held) < 1.25 * sum(held) / world


def test_pieces_end_with_the_weights_of_one_process_in_whatever_way_they_go_on(tmp_path: Path, ranks: Server) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "some" / "run"
    assert run(ranks, one, 1, what="blocks", changes=ALL) == 0
    assert run(ranks, folder, 2, what="blocks", changes=ALL | SHARD, stop=2) == 75
    assert run(ranks, folder, 1, what="blocks", changes=ALL | SHARD, stop=1, at=0) == 75
    assert run(ranks, folder, 2, what="blocks", changes=ALL | SHARD) == 0
    assert_near(one, folder)
    assert_shares(one, folder, 2)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("what", ["mlp", "blocks"])
def test_a_stop_and_a_kill_leave_the_same_bits(tmp_path: Path, ranks: Server, what: str, world: int) -> None:
    unbroken, folder = tmp_path / "unbroken" / "run", tmp_path / "broken" / "run"
    asked: dict[str, Any] = {"what": what, "changes": ALL | SHARD}
    assert run(ranks, unbroken, world, **asked) == 0
    assert run(ranks, folder, world, **asked, stop=1) == 75
    assert run(ranks, folder, world, **asked, kill=[1, 4]) == KILLED
    assert "RankLost" in errors(folder, 1)[0]
    assert run(ranks, folder, world, **asked) == 0
    assert_same(unbroken, folder)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("what", ["mlp", "blocks", "sweep", "values"])
@pytest.mark.parametrize("changes", [{}, ALL, {"micro_batch": 1, "keep": "last"}], ids=["plain", "all", "last"])
def test_pieces_end_with_the_weights_of_one_process(
    tmp_path: Path, ranks: Server, what: str, changes: dict[str, Any], world: int
) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "some" / "run"
    assert run(ranks, one, 1, what=what, changes=changes) == 0
    assert run(ranks, folder, world, what=what, changes=changes | SHARD) == 0
    assert_near(one, folder)
    assert_shares(one, folder, world)
    assert rows_of(folder, world) == rows_of(one, 1)
    for line, other in zip(lines(one), lines(folder), strict=True):
        assert line.get("validation_loss") == pytest.approx(other.get("validation_loss"), abs=1e-6)
        assert line.keys() == other.keys()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_pieces_in_less_precision_come_near_one_process(tmp_path: Path, ranks: Server, precision: str) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "some" / "run"
    assert run(ranks, one, 1, what="blocks", changes={"precision": precision, "clip_norm": 0.5}) == 0
    assert run(ranks, folder, 2, what="blocks", changes={"precision": precision, "clip_norm": 0.5} | SHARD) == 0
    for line, other in zip(lines(one), lines(folder), strict=True):
        assert line.get("validation_loss") == pytest.approx(other.get("validation_loss"), abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["mlp", "blocks"])
def test_a_run_goes_on_however_its_student_is_held(tmp_path: Path, ranks: Server, what: str) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "some" / "run"
    changes = ALL | {"epochs": 4}
    assert run(ranks, one, 1, what=what, changes=changes) == 0
    assert run(ranks, folder, 2, what=what, changes=changes | SHARD, stop=2) == 75
    assert run(ranks, folder, 3, what=what, changes=changes | SHARD, stop=2) == 75
    assert run(ranks, folder, 2, what=what, changes=changes, stop=2) == 75
    assert run(ranks, folder, 1, what=what, changes=changes, stop=2, at=0) == 75
    assert run(ranks, folder, 2, what=what, changes=changes | SHARD) == 0
    assert_near(one, folder)


def test_an_optimizer_whose_state_has_another_shape_is_refused() -> None:
    require_alike(torch.optim.AdamW)
    with pytest.raises(
        ConfigError, match=r"training.shard: Adafactor's row_var has the shape \[4, 1\], its weight \[4, 3\]"
    ):
        require_alike(torch.optim.Adafactor)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4, bias=False) for _ in range(2)])
        self.head = nn.Linear(4, 4)
        self.head.weight = self.blocks[1].weight


def test_what_is_whole_at_a_time_are_members_of_the_outermost_lists() -> None:
    model = nn.ModuleDict({"body": nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Dropout()])})
    assert blocks_of(model) == [model["body"][0]]  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"has no nn.ModuleList or nn.Sequential, whose members"):
        blocks_of(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"head\.weight is shared by blocks that are gathered apart"):
        blocks_of(Tied())


def test_weights_that_are_taken_come_back_tied() -> None:
    model = Tied()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    held = taken_from(model)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert filled(model, held.state_dict()).head.weight is model.blocks[1].weight
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_each_rank_computes_as_many_micro_batches() -> None:
    for size in range(3, 40):
        parts = [size * (rank + 1) // 3 - size * rank // 3 for rank in range(3)]
        for micro_batch in (1, 2, 5, 50):
            found = [cuts(rows, micro_batch, size=size, world=3) for rows in parts]
            assert len({len(each) for each in found}) == 1
            for rows, each in zip(parts, found, strict=True):
                assert [n for cut in each for n in range(cut.start, cut.stop)] == [*range(rows)]
                assert all(0 < cut.stop - cut.start <= max(2, micro_batch) for cut in each)


def test_students_in_pieces_are_not_divided() -> None:
    assert not are_students_divided("auto", 8, 2, shard=True)
    with pytest.raises(
        ConfigError, match=r"training.divide=students, and with training.shard each process holds a piece"
    ):
        are_students_divided("students", 8, 2, shard=True)
