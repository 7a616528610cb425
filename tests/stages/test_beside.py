"""What stands beside a recipe: which messages are worth a word about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from softlabels_stages import beside


@pytest.mark.parametrize(("message", "is_named"), [
    ("there is no file or folder ./images; correct source", True),
    ("there is no file or folder images", True),
    ("images/a.png does not exist", True),
    ("cannot open images.", True),
    ("the option --images-only is unknown", False),
    ("cannot open other/images", False),
    ("myimages and images.csv", False),
])  # fmt: skip
def test_only_a_path_of_the_recipe_is_hinted_at(
    work: Path, monkeypatch: pytest.MonkeyPatch, message: str, is_named: bool
) -> None:
    (work / "recipes" / "images").mkdir(parents=True)
    monkeypatch.setattr(beside, "look_in", lambda folder: None)
    beside.use(work / "recipes" / "r.yaml", {"transfer_set": {"source": "./images"}})
    try:
        assert ("exists beside the recipe" in beside.hint(message)) == is_named
    finally:
        beside.forget()
