"""A run that was begun when the order of rows went by chunks ends as it would have; `golden_order/make.py` says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file

from softlabels.student.checkpoint import environment
from softlabels_stages import train_student
from tests.stages.golden_order.make import COMMAND, HERE, loaders, order_of

EXPECTED = json.loads((HERE / "finished" / "expected.json").read_text())
# Of other processors and versions the last bits may differ; see make.py.
IS_SAME_ENVIRONMENT = all(environment()[name] == value for name, value in EXPECTED["environment"].items())
[WEIGHTS] = EXPECTED["weights"]


@pytest.fixture
def left(work: Path) -> Path:
    """The current folder as that commit left it."""
    return Path(shutil.copytree(HERE / "work", work, dirs_exist_ok=True))


def is_as_before(path: str) -> bool:
    """Whether weights are those of that commit: its bytes in its environment, else all but the last bits."""
    before, now = load_file(HERE / "finished" / WEIGHTS), load_file(path)
    is_close = all(torch.allclose(now[name], values, rtol=1e-3, atol=1e-4) for name, values in before.items())
    is_same = blake3(Path(path).read_bytes()).hexdigest() == EXPECTED["weights"][WEIGHTS]
    return is_same if IS_SAME_ENVIRONMENT else is_close


def test_an_unfinished_run_gets_its_weights_in_its_own_folder(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(WEIGHTS).parents[1]
    assert train_student.main(COMMAND) == 0
    assert is_as_before(WEIGHTS)
    assert [path.name for path in Path("runs").iterdir()] == [run.name]
    assert json.loads((run / "results.json").read_text())["order"] == {"by": "chunks"}
    assert "an order that went by the store's content and chunks" in (run / "README.md").read_text()
    assert "order" not in json.loads((run / "run.json").read_text())
    capsys.readouterr()
    assert train_student.main(COMMAND) == 0
    assert "side by side" not in capsys.readouterr().out  # it is shown


def test_the_same_command_begins_a_run_in_the_new_order(left: Path) -> None:
    """Under the same name: what tells runs apart has not changed."""
    run = Path(WEIGHTS).parents[1]
    shutil.rmtree("runs")
    assert train_student.main(COMMAND) == 0
    assert not is_as_before(WEIGHTS)
    for name in ("results.json", "run.json"):
        assert json.loads((run / name).read_text())["order"] == {"by": "keys", "block": 512}
    assert "an order of their keys and the seed, shuffled in blocks of 512" in (run / "README.md").read_text()


@pytest.mark.parametrize("name", EXPECTED["orders"])
def test_the_order_by_chunks_is_what_it_was(left: Path, name: str) -> None:
    assert order_of(loaders()[name].by_chunks()) == EXPECTED["orders"][name]
