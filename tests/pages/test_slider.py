"""The slider of a page: by pointer, number and keys, as tall as it should be, and what follows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from softlabels.pages import page as pages
from softlabels.pages.markup import joined, paragraph
from softlabels.pages.numbers import numbers
from softlabels.pages.page import page
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from tests.pages.browser import DESKTOP, PHONE, Tabs, too_wide

DRAW = """
softlabels.sections.shown = (root, data) => {
  const logits = softlabels.numbers(data.logits);
  const place = softlabels.element("output", {});
  root.append(place);
  softlabels.onTemperature((T) => { place.textContent = JSON.stringify([T, ...softlabels.logSoftmax(logits, T)]); });
};
"""


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 5, 7).astype(np.float32)


def write(path: Path, logits: np.ndarray, slider: Slider | None, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = pages.static
    monkeypatch.setattr(pages, "static", lambda name: DRAW if name == "shown.js" else own(name))
    long = joined(paragraph("text " * 40) for _ in range(40))
    sections = [Section("shown", "Shown", long, {"logits": numbers(logits)}, "shown"), Section("more", "More", long)]
    (path / "page.html").write_text(page("Slider", sections, slider=slider), encoding="utf-8")
    return path / "page.html"


def expected(logits: np.ndarray, temperature: float) -> np.ndarray:
    z = logits.astype(np.float64) / temperature
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=str)
def test_everything_follows_the_slider(
    tmp_path: Path, logits: np.ndarray, tabs: Tabs, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    opened = tabs.open(write(tmp_path, logits, Slider(), monkeypatch), size)

    def check() -> float:
        opened.evaluate("new Promise(requestAnimationFrame)")
        temperature, *found = json.loads(opened.inner_text("output"))
        np.testing.assert_allclose(found, expected(logits, temperature), rtol=1e-12)
        assert opened.input_value("#temperature-number") == f"{temperature:g}"
        assert opened.get_attribute("#temperature", "aria-valuetext") == f"T = {temperature:g}"
        return temperature

    assert check() == 1
    opened.fill("#temperature-number", "7.5")
    assert check() == 7.5
    opened.keyboard.press("[")  # the number field takes it for itself
    assert check() == 7.5
    opened.locator("h1").click()
    opened.keyboard.press("]")
    assert 7.5 < check() < 10
    opened.keyboard.press("[")
    assert check() == pytest.approx(7.5, rel=0.01)
    for _ in range(30):
        opened.keyboard.press("[")
    assert check() == 0.5
    opened.focus("#temperature")
    opened.keyboard.press("End")
    assert check() == 20
    opened.keyboard.press("ArrowLeft")
    assert 19 < check() < 20
    box = opened.locator("#temperature").bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert check() == pytest.approx(np.sqrt(0.5 * 20), rel=0.05)  # the middle of a logarithmic scale
    opened.fill("#temperature-number", "1000")
    opened.locator("h1").click()
    assert check() == 20
    assert too_wide(opened) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=str)
def test_the_slider_stays_in_sight_and_covers_no_heading(
    tmp_path: Path, logits: np.ndarray, tabs: Tabs, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    opened = tabs.open(write(tmp_path, logits, Slider(), monkeypatch), size)
    opened.click("nav a[href='#more']")
    bar, heading = opened.locator("#temperature-bar").bounding_box(), opened.locator("#more-title").bounding_box()
    assert bar is not None
    assert heading is not None
    assert bar["y"] == 0
    assert bar["y"] + bar["height"] <= heading["y"] < size[1] / 3
    assert bar["height"] < size[1] / 6


def test_on_paper_the_temperature_is_a_number(
    tmp_path: Path, logits: np.ndarray, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tabs.open(write(tmp_path, logits, Slider(), monkeypatch))
    opened.emulate_media(media="print")
    assert not opened.is_visible("#temperature")
    assert opened.is_visible("#temperature-number")
    assert not opened.is_visible("nav")


def test_where_one_temperature_is_known_the_slider_says_why_and_stays(
    tmp_path: Path, logits: np.ndarray, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = Slider(least=2, most=2, at=2, fixed="known at T = 2 alone")
    opened = tabs.open(write(tmp_path, logits, fixed, monkeypatch))
    assert opened.is_disabled("#temperature")
    assert opened.is_disabled("#temperature-number")
    assert "known at T = 2 alone" in opened.inner_text("#temperature-bar")
    opened.keyboard.press("]")
    opened.evaluate("new Promise(requestAnimationFrame)")
    assert json.loads(opened.inner_text("output"))[0] == 2


def test_without_a_temperature_there_is_no_slider(
    tmp_path: Path, logits: np.ndarray, tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tabs.open(write(tmp_path, logits, None, monkeypatch))
    assert opened.locator("#temperature-bar").count() == 0
