"""The report of the digits in Chromium: what is drawn is what the store says at the slider's temperature, and it can be read
with a pointer, with keys alone, on a phone, in the dark and on paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from softlabels.store import Store, open_store
from softlabels_stages.__main__ import main
from tests.pages import digits
from tests.pages.browser import DESKTOP, PHONE, SMALL, Tabs, too_wide, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a run and their report."""
    work = tmp_path_factory.mktemp("digits")
    digits.write_store(work / "store")
    digits.train(work)
    words = ["report", f"{work}/store", f"{work}/run", f"--config={work}/recipe.yaml", f"--out={work}/report.html"]
    assert main(words) == 0
    return work


@pytest.fixture(scope="module")
def store(made: Path) -> Store:
    return open_store(made / "store", split="test")


def opened(made: Path, tabs: Tabs, size: tuple[int, int] = DESKTOP) -> Page:
    page = tabs.open(made / "report.html", size)
    assert page.locator("p.broken").count() == 0
    return page


def temperature(page: Page) -> float:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return float(page.get_attribute("html", "data-temperature") or "nan")


def shown(page: Page) -> list[tuple[int, str, int, float]]:
    """(row, whose, class, probability) of every bar of the split test."""
    return page.eval_on_selector_all(
        "#rows-0 .bar-fill",
        """all => all.map((bar) => [Number(bar.closest(".row").dataset.row), bar.dataset.who, Number(bar.dataset.class),
            Number(bar.dataset.probability)])""",
    )


def check_bars(page: Page, store: Store, logits: np.ndarray) -> None:
    """Bars of ensemble and members are right to 1e-3, those of classes that are not shown among them."""
    at, bars = temperature(page), shown(page)
    rows = sorted({row for row, *_ in bars})
    assert len(rows) == 20
    ensemble = dict(zip(rows, np.exp(store.log_probs(rows, temperature=at)), strict=True))
    z = logits / at
    members = np.exp(z - z.max(-1, keepdims=True))
    members /= members.sum(-1, keepdims=True)
    seen = {
        (row, who): [label for r, w, label, _ in bars if (r, w) == (row, who) and label >= 0] for row, who, *_ in bars
    }
    for row, who, label, found in bars:
        if who.startswith("student"):
            continue
        p = ensemble[row] if who == "ensemble" else members[row, int(who.split()[1])]
        assert found == pytest.approx(p[label] if label >= 0 else 1 - p[seen[row, who]].sum(), abs=1e-3), (
            row,
            who,
            label,
        )
    assert {who for _, who, *_ in bars} == {"ensemble", "member 0", "member 1", "student, hard", "student, distilled"}


def test_bars_are_the_stores_at_the_temperature_of_the_slider(made: Path, store: Store, tabs: Tabs) -> None:
    page = opened(made, tabs)
    logits = np.asarray(zarr.open_group(made / "store" / "test", mode="r")["logits"][:], np.float64)
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        for at in ("0.5", "3.7"):
            page.fill("#temperature-number", at)
            assert temperature(page) == float(at)
            check_bars(page, store, logits)
        page.focus("#temperature")
        for key in ("]", "[", "ArrowLeft"):
            before = temperature(page)
            page.keyboard.press(key)
            assert (temperature(page) > before) == (key == "]")
        check_bars(page, store, logits)
        box = page.locator("#temperature").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
        assert 8 < temperature(page) < 16


def test_means_and_histograms_are_those_of_the_store(made: Path, store: Store, tabs: Tabs) -> None:
    page = opened(made, tabs)
    for at in (1.0, 2.3, 8.0):
        page.fill("#temperature-number", str(at))
        temperature(page)
        log_p = store.log_probs(range(store.rows), temperature=at)
        entropy, top = -(np.exp(log_p) * log_p).sum(1), np.exp(log_p.max(1))
        found = [page.locator(f"#store-0 [data-mean='{name}-0']").inner_text() for name in ("entropy", "top")]
        assert [*map(float, found)] == pytest.approx([entropy.mean(), top.mean()], abs=1e-3)


def rows_of(page: Page) -> list[int]:
    return page.eval_on_selector_all("#rows-0 .row", "all => all.map(each => Number(each.dataset.row))")


def test_rows_are_sorted_and_filtered(made: Path, store: Store, tabs: Tabs) -> None:
    page = opened(made, tabs)
    page.select_option("#rows-0-sort", "entropy")
    page.fill("#temperature-number", "2")
    at = temperature(page)
    first = rows_of(page)
    log_p = store.log_probs(first, temperature=at)
    entropy = -(np.exp(log_p) * log_p).sum(1)
    assert (np.diff(entropy) < 1e-3).all()
    scores = page.eval_on_selector_all(
        "#rows-0 [data-score=entropy]", "all => all.map(each => Number(each.dataset.value))"
    )
    np.testing.assert_allclose(scores, entropy, atol=1e-3)

    page.select_option("#rows-0-class", "7")
    labels, tops = store.gather("label", rows_of(page)), store.log_probs(rows_of(page), temperature=at).argmax(1)
    assert ((labels == 7) | (tops == 7)).all()
    page.check("#rows-0-differs")
    assert 0 < len(rows_of(page)) <= 20
    page.fill("#rows-0-words", "no such words")
    assert rows_of(page) == []
    assert "No row fits" in page.inner_text("#rows-0 [role=status]")


def test_keys_alone_reach_everything(made: Path, tabs: Tabs) -> None:
    page = opened(made, tabs)
    focused = "() => { const e = document.activeElement; return e.id || e.getAttribute('href') || e.tagName; }"
    ring = "() => getComputedStyle(document.activeElement).outlineStyle"
    stops = []
    while len(stops) < 200 and (not stops or stops[-1] != "BODY"):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))
        assert stops[-1] == "BODY" or page.evaluate(ring) != "none", stops[-1]
    own = [
        "temperature",
        "temperature-number",
        "rows-0-sort",
        "rows-0-class",
        "rows-0-words",
        "rows-0-differs",
        "rows-1-sort",
    ]
    assert [stop for stop in stops if stop in own] == own
    assert stops.index("#rows-0") < stops.index("temperature")  # the contents come first

    page.focus("#rows-0-sort")  # of two lists the keys are those of the one used last
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate(focused) == "rows-0-words"
    page.keyboard.type("jk/[")
    assert page.input_value("#rows-0-words") == "jk/["
    page.fill("#rows-0-words", "")
    page.evaluate("document.activeElement.blur()")
    rows = rows_of(page)
    now = "() => Number(document.activeElement.dataset.row)"
    for key, expected in (("j", rows[0]), ("j", rows[1]), ("k", rows[0])):
        page.keyboard.press(key)
        assert page.evaluate(now) == expected
    for _ in range(20):
        page.keyboard.press("j")
    assert page.evaluate(now) == rows_of(page)[0]
    assert rows_of(page) != rows  # the next twenty
    page.keyboard.press("]")
    temperature(page)
    assert page.evaluate(now) == rows_of(page)[0]  # still there


def test_it_fits_phones_and_paper(made: Path, tabs: Tabs) -> None:
    page = opened(made, tabs, SMALL)
    for width, height in (SMALL, PHONE, (768, 1024)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        assert too_wide(page) == [], width
        plots = page.eval_on_selector_all(".plot svg", "all => all.map(each => each.getBoundingClientRect().right)")
        assert max(plots) <= width
    page.emulate_media(media="print")
    assert not page.is_visible("#temperature")
    assert page.is_visible("#temperature-number")
    assert not page.is_visible("#rows-0-sort")


def test_every_plot_says_what_it_shows(made: Path, tabs: Tabs) -> None:
    page = opened(made, tabs)
    plots = page.query_selector_all(".plot")
    assert len(plots) > 8
    assert [
        each.get_attribute("aria-label") for each in plots if len(each.get_attribute("aria-label") or "") < 10
    ] == []
    assert (
        page.eval_on_selector_all(
            "main select, main input",
            "all => all.filter((each) => !each.labels.length && !each.ariaLabel).map(e => e.id)",
        )
        == []
    )
    assert (made / "report.html").stat().st_size < 5_000_000


def test_in_the_dark_text_is_light(made: Path, tabs: Tabs) -> None:
    page = tabs.open(made / "report.html", color_scheme="dark")
    colours = "(e) => getComputedStyle(e).{0}.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 765"
    assert page.eval_on_selector("body", colours.format("backgroundColor")) < 0.2
    for place in ("body", "dd", "#rows-0-sort", "td", ".quiet"):
        assert page.eval_on_selector(place, colours.format("color")) > 0.6, place
    assert page.eval_on_selector(".plot svg text", colours.format("fill")) > 0.6


@pytest.mark.slow
def test_what_is_far_below_waits_for_the_browser_or_the_printer(made: Path, tabs: Tabs) -> None:
    page = tabs.browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.add_init_script("window.requestIdleCallback = () => 0")  # there is always something else to do
    page.goto((made / "report.html").resolve().as_uri())
    page.wait_for_selector("[data-ready]", state="attached")
    assert page.locator(".row").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wait_until(page, "document.querySelector('.chart.undrawn') === null")
    assert page.locator(".row").count() > 0
    assert page.locator("p.broken").count() == 0
    page.context.close()
