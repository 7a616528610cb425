"""Several processes that train together: the weights of one process, the same bits after a stop or a kill, and typed errors.

More worlds and more kills: the tests marked slow, and tests/faults/trials_ranks.py.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from softlabels.errors import ConfigError
from softlabels.student.config import TrainingConfig
from softlabels.student.distributed import ranks_here
from softlabels.student.divided import are_students_divided, of_batch_norm, require_divisible
from softlabels.student.learner import Student
from softlabels.student.ranks import ALONE
from tests.student.runs import Server, net, server

REQUEST: dict[str, Any] = {"what": "mlp", "changes": {}, "stop": None, "kill": None, "other": None, "at": 1}
BOTH, KILLED = {"epochs": 2}, 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def ranks() -> Server:
    return server("tests.student.rank_runs")


def run(ranks: Server, folder: Path, world: int, **request: Any) -> int:
    changes = BOTH | request.pop("changes", {})
    return ranks.run(**REQUEST | {"world": world, "folder": str(folder), "changes": changes} | request)


def told(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.parent / "told" / f"rank{rank}.json").read_text())
    return found


def errors(folder: Path, world: int) -> list[str]:
    return [told(folder, rank)["error"] for rank in range(world)]


def said(folder: Path, world: int) -> list[int]:
    """Which ranks say their error."""
    return [rank for rank in range(world) if not told(folder, rank)["is_said"]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.relative_to(folder)} {name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def lines(folder: Path) -> list[dict[str, Any]]:
    logs = sorted(folder.rglob("metrics.jsonl"))
    found = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "times"} for line in found]


def assert_near(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-6)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert lines(one) == lines(other)


WAYS: list[Any] = [
    pytest.param("mlp", {"ema": 0.9, "clip_norm": 0.5, "micro_batch": 3}, [3], id="mlp"),
    pytest.param("tokens", {}, [2], id="tokens"),
    *(
        pytest.param(what, changes, [2, 3, 4], id=f"{what}-{number}", marks=pytest.mark.slow)
        for what in ("mlp", "tokens", "sweep", "flags", "values")
        for number, changes in enumerate(({}, {"micro_batch": 3, "ema": 0.9, "clip_norm": 0.5, "max_norm": 2.0}))
    ),
]


@pytest.mark.parametrize(("what", "changes", "worlds"), WAYS)
def test_any_number_of_processes_ends_with_the_weights_of_one(
    tmp_path: Path, ranks: Server, what: str, changes: dict[str, Any], worlds: list[int]
) -> None:
    one = tmp_path / "1" / "run"
    assert run(ranks, one, 1, what=what, changes=changes) == 0
    for world in worlds:
        folder = tmp_path / f"{world}" / "run"
        assert run(ranks, folder, world, what=what, changes=changes) == 0
        assert_near(one, folder)
        assert len({str(told(folder, rank)["weights"]) for rank in range(world)}) == 1
        for line, other in zip(lines(one), lines(folder), strict=True):
            assert line.get("validation_loss") == pytest.approx(other.get("validation_loss"), rel=1e-6)
            assert line.keys() == other.keys()
        assert rows_of(folder, world) == rows_of(one, 1)


def test_all_ranks_have_the_statistics_of_the_first(tmp_path: Path, ranks: Server) -> None:
    assert run(ranks, tmp_path / "run", 3, what="remembering", changes={"epochs": 1}) == 0
    assert len({str(told(tmp_path / "run", rank)["weights"]) for rank in range(3)}) == 1


def rows_of(folder: Path, world: int) -> dict[str, list[int]]:
    """The rows of each step and student, those of the parts behind each other in their order."""
    found: dict[str, list[tuple[int, list[int]]]] = {}
    for rank in range(world):
        for line in told(folder, rank)["rows"]:
            step, name, _, first, _, rows = line.split(" ", 5)
            found.setdefault(f"{step} {name}", []).append((int(first), json.loads(rows)))
    return {step: [row for _, rows in sorted(parts) for row in rows] for step, parts in found.items()}


def test_a_run_that_was_stopped_or_killed_goes_on_to_the_same_bits(tmp_path: Path, ranks: Server) -> None:
    unbroken, folder = tmp_path / "unbroken" / "run", tmp_path / "broken" / "run"
    assert run(ranks, unbroken, 3, what="all") == 0
    assert run(ranks, folder, 3, what="all", stop=4) == 75
    assert (
        errors(folder, 3)
        == ["Interrupted: stopped in epoch 1 of 2, after step 4; run the same command again to resume"] * 3
    )
    assert len(said(folder, 3)) == 1
    assert run(ranks, folder, 3, what="all", kill=[2, 12]) == KILLED
    assert all("RankLost" in error and "without a word" in error for error in errors(folder, 2))
    assert run(ranks, folder, 3, what="all") == 0
    assert_same(unbroken, folder)


def test_another_number_of_processes_goes_on_with_the_next_rows(tmp_path: Path, ranks: Server) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "some" / "run"
    assert run(ranks, one, 1) == 0
    assert run(ranks, folder, 2, stop=4) == 75
    assert run(ranks, folder, 3, stop=7) == 75
    assert run(ranks, folder, 1) == 0
    assert_near(one, folder)
    assert rows_of(folder, 1).keys() == {f"{step} " for step in range(11, 20)}


def test_a_rank_that_would_train_something_else_is_named(tmp_path: Path, ranks: Server) -> None:
    folder = tmp_path / "run"
    assert run(ranks, folder, 2, other={"temperature": 2.0}) == 2
    [error] = set(errors(folder, 2))
    assert error.startswith("SpecMismatch: rank 1 of 2 would train something else than rank 0: training.temperature")
    assert len(said(folder, 2)) == 1
    assert not folder.exists()


def test_an_error_of_one_rank_ends_all_and_is_said_once(tmp_path: Path, ranks: Server) -> None:
    folder = tmp_path / "run"
    assert run(ranks, folder, 2, fail=[1, 3]) in (2, 75)
    assert errors(folder, 2) == [
        "RankLost: rank 1 of 2 has failed: ConfigError: rows of this rank; change them; run the same command again to resume",
        "ConfigError: rows of this rank; change them",
    ]
    assert said(folder, 2) == [1]


def test_a_model_whose_gradients_ddp_cannot_add_up_is_refused(tmp_path: Path, ranks: Server) -> None:
    assert run(ranks, tmp_path / "run", 2, what="reentrant") == 2
    assert all("ConfigError" in error and "use_reentrant=False" in error for error in errors(tmp_path / "run", 2))
    assert len(said(tmp_path / "run", 2)) == 1


def test_a_rank_that_does_not_come_is_waited_for_so_long(tmp_path: Path, ranks: Server) -> None:
    folder = tmp_path / "run"
    assert run(ranks, folder, 2, missing=1, patience="1") == 75
    assert "RankLost: the 2 processes have not all met within 1 s" in errors(folder, 1)[0]


def test_a_rank_that_hangs_is_waited_for_so_long(tmp_path: Path, ranks: Server) -> None:
    folder = tmp_path / "run"
    assert run(ranks, folder, 2, hang=[1, 3], patience="1") == 75
    assert errors(folder, 1)[0].startswith(
        "RankLost: another of the 2 processes has not answered for 1 s; end what hangs"
    )


def test_processes_may_meet_again_and_are_told_of_a_group_of_their_own(
    tmp_path: Path, ranks: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(ranks, tmp_path / "run", 2, changes={"epochs": 1}, before=2, patience="5") == 0
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="this process is in a process group already"), ranks_here("cpu"):
        pass


def test_one_process_is_alone() -> None:
    with ranks_here() as found:
        assert found is ALONE


def student(**settings: Any) -> Student:
    return Student.begin("", TrainingConfig(**settings), net)


@pytest.mark.parametrize(
    ("rows", "batch_size", "what"),
    [
        (100, 3, "batch_size is 3, and each of 4 processes needs a row of every batch; start fewer processes, or give another "
                 "batch_size, such as 4"),
        (101, 25, "an epoch of 101 rows ends in a batch of 1, and each of 4 processes needs a row of every batch; start fewer "
                  "processes, or give another batch_size, such as 26"),
        (3, 128, "an epoch of 3 rows ends in a batch of 3, and each of 4 processes needs a row of every batch; start fewer "
                 "processes"),
    ],
)  # fmt: skip
def test_more_processes_than_rows_of_a_batch_are_refused(rows: int, batch_size: int, what: str) -> None:
    with pytest.raises(ConfigError) as error:
        require_divisible([student()], rows=rows, batch_size=batch_size, world=4)
    assert str(error.value) == what
    require_divisible([student()], rows=104, batch_size=25, world=4)


def test_a_loss_over_the_whole_batch_is_not_divided() -> None:
    with pytest.raises(ConfigError, match="dist correlates over the whole batch, which 2 processes would cut"):
        require_divisible([student(loss="dist")], rows=100, batch_size=20, world=2)


def test_batch_norm_is_said() -> None:
    assert of_batch_norm([student()], 32, 4).startswith(
        "BatchNorm1d takes the statistics of each process's own rows, about 8 of a batch's 32"
    )


def test_students_are_divided_where_there_are_as_many_as_processes() -> None:
    assert [are_students_divided("auto", count, 2) for count in (1, 2, 3)] == [False, True, True]
    assert not are_students_divided("batches", 8, 2)
    assert not are_students_divided("students", 8, 1)
    with pytest.raises(ConfigError, match="students=1, processes=2; start at most 1 of them"):
        are_students_divided("students", 1, 2)


def test_divided_students_end_with_the_bits_of_one_process(tmp_path: Path, ranks: Server) -> None:
    one, folder = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert run(ranks, one, 1, what="sweep") == 0
    assert run(ranks, folder, 2, what="sweep", by_students=True, stop=1) == 75
    assert run(ranks, folder, 2, what="sweep", by_students=True, kill=[1, 18]) == KILLED
    assert run(ranks, folder, 2, what="sweep", by_students=True) == 0
    assert_same(one, folder)
