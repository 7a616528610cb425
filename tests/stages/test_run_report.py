"""Pictures of a finished run, from its files, and the card that shows them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from softlabels.jobs.run_report import draw, in_order
from softlabels.objects import ObjectSpec
from softlabels.report.model_card import model_card
from softlabels.store import open_store
from softlabels.system.local import LocalFolder
from tests.report import made_up
from tests.stages import toy


@pytest.fixture(autouse=True)
def _wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTLABELS_REPORT")


def report(folder: Path, rng: np.random.Generator, **changes: Any) -> str:
    """The card of a run that was never trained."""
    students = ("hard-seed0", "distilled-T=10-seed0", "distilled-T=2.5-seed0")
    for name in (*students, "left"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "weights.safetensors").touch()
        lines = [json.dumps(line) for line in made_up.log(rng, epochs=3)]
        (folder / name / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "left" / "metrics.jsonl").write_bytes(b"\xff")  # nobody's student
    stores = {split: open_store("store", split=split).manifest for split in ("train", "test")}
    prepare = ObjectSpec("softlabels.transfer.vector")
    results = made_up.results(rng, **changes)
    names = in_order(students)
    pictures = draw(LocalFolder(folder), names, results)
    facts: dict[str, Any] = {"stores": stores, "parameters": 77, "prepare": prepare}
    return model_card(results, toy.recipe(), folders=names, pictures=pictures, **facts)


def test_a_run_gets_its_pictures_and_its_card(store: Path, rng: np.random.Generator) -> None:
    card = report(Path("run"), rng)
    assert sorted(path.name for path in Path("run").iterdir() if path.is_file()) == ["curves.png"]
    assert "![curves.png](curves.png)" in card
    assert "sweep.png" not in card
    assert "`distilled-T=2.5-seed0`, `distilled-T=10-seed0`, `hard-seed0`" in card
    assert "left" not in card
    for split in ("train", "test"):
        assert open_store(store, split=split).digest in card
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["knowledge-distillation", "soft-labels"]

    card = report(Path("run"), rng, swept={"temperature": [1.0, 4.0]})  # again, now a sweep
    assert card.index("![sweep.png](sweep.png)") < card.index("![curves.png](curves.png)")
    for name in ("sweep.png", "curves.png"):
        Image.open(Path("run") / name).verify()


def test_without_matplotlib_there_is_a_card_without_pictures(
    store: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert ".png" not in report(Path("run"), rng)
    assert "no pictures: this needs the package matplotlib" in caplog.text
