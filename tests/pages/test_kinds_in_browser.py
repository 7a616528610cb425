"""Reports of a language model and of values, made by recipes in small, in Chromium: all is drawn, at any width."""

from __future__ import annotations

from pathlib import Path

import pytest

from softlabels_stages.__main__ import main
from tests.pages.browser import DESKTOP, PHONE, SMALL, Tabs, too_wide
from tests.stages import lm

CLONE = ["--config=clone", "--transfer_set.factory.init_args.episodes=2"]
TRAINED = {"clone": ["--epochs=1", "--seeds=0", "--device=cpu"], "lm": []}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clone", "lm"])
def test_every_kind_is_drawn(name: str, tmp_path: Path, tabs: Tabs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = CLONE
    if name == "lm":
        lm.write_texts(tmp_path / "texts")
        lm.write_recipe(tmp_path / "recipe.yaml")
        recipe = ["--config=recipe.yaml"]
        assert main(["train-teacher", *recipe]) == 0
    assert main(["teacher-logits", *recipe, "--store=store"]) == 0
    assert main(["train-student", *recipe, "--store=store", "--out=run", *TRAINED[name]]) == 0
    assert main(["report", "store", "run", *recipe, "--out=report.html"]) == 0
    page = tabs.open(tmp_path / "report.html", DESKTOP)
    page.wait_for_selector("[data-drawn]", state="attached")
    assert page.locator("p.broken").count() == 0
    assert page.locator("#rows-0 .row").count() > 5
    assert page.locator("#temperature").count() == (name == "lm")
    for width, height in (PHONE, SMALL):
        page.set_viewport_size({"width": width, "height": height})
        assert too_wide(page) == []
