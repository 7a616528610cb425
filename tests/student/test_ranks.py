"""Several processes that train together: the weights of one process, the same bits after a stop or a kill, and typed errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.student.runs import Server, server

REQUEST: dict[str, Any] = {
    "what": "mlp", "changes": {}, "stop": None, "kill": None, "other": None, "at": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def ranks() -> Server:
    return server("tests.student.rank_runs")


def run(ranks: Server, folder: Path, world: int, **request: Any) -> int:
    return ranks.run(**REQUEST | {"world": world, "folder": str(folder)} | request)


def told(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder.parent / "told" / f"rank{rank}.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name if path.parent != folder else ''} {name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {}),
    ("tokens", {}),
    ("sweep", {}),
    ("mlp", {"ema": 0.9, "clip_norm": 0.5, "micro_batch": 3}),
]


@pytest.mark.parametrize(("what", "changes"), WAYS)
def test_any_number_of_processes_ends_with_the_weights_of_one(
    tmp_path: Path, ranks: Server, what: str, changes: dict[str, Any]
) -> None:
    for world in (1, 2, 3, 4):
        assert run(ranks, tmp_path / f"{world}" / "run", world, what=what, changes=changes) == 0
        one, other = weights(tmp_path / "1" / "run"), weights(tmp_path / f"{world}" / "run")
        assert one
        assert one.keys() == other.keys()
        print(world, max((one[name] - other[name]).abs().max().item() for name in one))
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
        assert len({str(told(tmp_path / f"{world}" / "run", rank)["weights"]) for rank in range(world)}) == 1
