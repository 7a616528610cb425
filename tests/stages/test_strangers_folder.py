"""Folders that a stranger prepared for a command to write into: links lead out of them, and nothing of what they lead to is
written, moved or removed. `tests/faults/trials_links.py` tries every name of stores and runs that are there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from softlabels import write_store
from softlabels_stages.__main__ import main
from tests.stages import toy

NAMES = (
    "staging",
    "commits",
    "tail_basis",
    "logits",
    "content_key",
    "set_aside",
    "plan.json",
    "manifest.json",
    "README.md",
)
WRITERS = {
    "convert": ["convert", "store", "target", "--layout=zarr"],
    "encode": ["encode", "store", "target", "--k=2", "--tail=uniform"],
    "import": ["import", "--from=outputs.npz", "--store=target/train"],
    "teacher-logits": ["teacher-logits", "--config=recipe.yaml", "--store=target"],
}


@pytest.fixture
def there(work: Path, rng: np.random.Generator) -> dict[str, bytes]:
    """A store, outputs, and somebody's own folder; what that holds."""
    inputs, logits = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(40, 5))
    write_store("store/train", logits, inputs=inputs)
    np.savez("outputs.npz", logits=logits, inputs=inputs)
    toy.write_recipe(work / "recipe.yaml")
    for name in ("photos/a.jpg", "thesis.tex", "0/b.txt", "1/c.txt", "00000.json"):
        file = work / "own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"precious {name}")
    return own(work)


def own(work: Path) -> dict[str, bytes]:
    return {str(file.relative_to(work)): file.read_bytes() for file in (work / "own").rglob("*") if file.is_file()}


@pytest.mark.parametrize("place", ["target", "target/train"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_target_that_holds_a_link(work: Path, there: dict[str, bytes], writer: str, place: str) -> None:
    """It is all that it holds. Where links are followed, writers sweep the folder behind one called staging."""
    for name in NAMES:
        shutil.rmtree("target", ignore_errors=True)
        (work / place).mkdir(parents=True)
        (work / place / name).symlink_to(work / "own")
        assert main(WRITERS[writer]) in (0, 2, 3), name  # 0: the link itself gave way to a file of the store
        assert own(work) == there, name
        assert sorted(file.name for file in (work / "own").iterdir()) == [
            "0",
            "00000.json",
            "1",
            "photos",
            "thesis.tex",
        ], name


@pytest.mark.parametrize("command", [["repair", "store"], WRITERS["convert"]], ids=["repair", "convert"])
@pytest.mark.parametrize("name", ["staging/lock", "staging/{id}", "staging", "set_aside", "commits"])
def test_an_unfinished_store_that_holds_a_link(
    work: Path, there: dict[str, bytes], name: str, command: list[str]
) -> None:
    """Where links are followed, the folder that the record names is emptied, and a lock is made behind a link."""
    shutil.copytree("store", "target")
    place = work / command[-1 if command[0] == "repair" else 2] / "train"
    write_id = json.loads((place / "commits" / "00000.json").read_bytes())["write_id"]
    for file in ("manifest.json", "content_key/c.0.0"):
        (place / file).unlink()
    link = place / name.format(id=write_id)
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(work / "own" / ("new" if name == "staging/lock" else ""))
    assert main(command) in (0, 2, 3)
    assert own(work) == there
    assert not (work / "own" / "new").exists()


def test_a_sealed_store_whose_lock_leads_out(work: Path, there: dict[str, bytes]) -> None:
    (work / "store" / "train" / "staging").mkdir()
    (work / "store" / "train" / "staging" / "lock").symlink_to(work / "own" / "nologin")
    for command in ("verify", "repair", "info"):
        main([command, "store"])
    assert own(work) == there
    assert not (work / "own" / "nologin").exists()
