"""The store's section in a real Chromium: its numbers at the slider's temperature, target by target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels import open_store, write_store
from softlabels.pages.page import page
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from tests.pages.browser import PHONE, Tabs, too_wide, until
from tests.pages.hostile import NAMES
from tests.pages.test_outcomes import entropy, softmax


def test_numbers_follow_the_slider_target_by_target(tmp_path: Path, tabs: Tabs, rng: np.random.Generator) -> None:
    classes = [name for name in dict.fromkeys(NAMES) if 0 < len(name) <= 200 and name.isprintable()][:5]
    logits = {
        "kind": rng.normal(size=(90, 2, 5)) * 3,
        "tags": rng.normal(size=(90, 2, 3)),
        "box": rng.normal(size=(90, 2, 2)),
    }
    store = write_store(
        tmp_path / "s" / "train", logits, kind={"kind": "softmax", "tags": "sigmoid", "box": "values"},
        classes={"kind": classes}, inputs=rng.normal(size=(90, 2)),
    )  # fmt: skip
    slider = Slider.of([store])
    out = tmp_path / "page.html"
    out.write_text(page("a store", store_sections({"train": store}, slider), slider=slider), encoding="utf-8")
    tab = tabs.open(out, PHONE)
    tab.wait_for_selector('[data-target="0"] [data-plot="square"] svg')
    assert too_wide(tab) == []
    z = np.asarray(store.only("kind").column("logits"), np.float64)
    for temperature in (1.0, 3.37, 20.0):
        tab.fill("#temperature-number", str(temperature))
        until(tab, "T => document.documentElement.dataset.temperature === String(T)", temperature)
        p = softmax(z / temperature)
        mean = p.mean(axis=1)
        for voice, each in enumerate([mean, p[:, 0], p[:, 1]]):
            for name, wanted in (("entropy", entropy(each).mean()), ("top", each.max(axis=-1).mean())):
                shown = tab.text_content(f'[data-target="0"] [data-mean="{name}-{voice}"]')
                assert abs(float(shown or "nan") - wanted) < 1e-3, (temperature, name, voice)
        group = softmax(z).mean(axis=1).argmax(axis=-1)
        mass = {(i, j): mean[group == i, j].sum() for i in range(5) for j in range(5) if i != j}
        i, j = max(mass, key=lambda pair: mass[pair])
        cells = tab.locator('[data-target="0"] [data-table="pairs"] tr').first.locator("td").all_text_contents()
        assert abs(float(cells[2]) - mean[group == i, j].mean()) < 1e-3
        assert cells[3] == str((group == i).sum())
        apart = entropy(mean).mean() - entropy(p).mean()
        assert abs(float(tab.text_content('[data-target="0"] [data-mean="apart"]') or "nan") - apart) < 1e-3
    for number, plot in ((1, "classes"), (2, "values")):
        assert not tab.is_visible(f'[data-target="{number}"]')
        tab.select_option('[data-choice="target"]', str(number))
        tab.wait_for_selector(f'[data-target="{number}"] [data-plot="{plot}"] svg')
        assert not tab.is_visible('[data-target="0"]')
        assert too_wide(tab) == []


@pytest.mark.slow
def test_one_member_flags_and_labels_beside(tmp_path: Path, tabs: Tabs, rng: np.random.Generator) -> None:
    """What other pages lack: a teacher of one model, hard values and flags, positions, more classes than a map shows."""
    flags, values = rng.integers(0, 2, (40, 3, 4)), rng.normal(size=(40, 2))
    keys = rng.integers(0, 256, (40, 16), np.uint8)
    places = {name: tmp_path / name / "train" for name in ("one", "values", "frames")}
    write_store(places["one"], rng.normal(size=(40, 50)), keys=keys)
    write_store(places["values"], rng.normal(size=(40, 2)), labels=values, kind="values", keys=keys)
    write_store(places["frames"], rng.normal(size=(40, 3, 4)), labels=flags, kind="sigmoid", keys=keys, positions=3)
    stores = {name: open_store(place) for name, place in places.items()}
    slider = Slider.of([*stores.values()])
    out = tmp_path / "page.html"
    out.write_text(page("stores", store_sections(stores, slider), slider=slider), encoding="utf-8")
    tab = tabs.open(out)
    until(tab, "() => [...document.querySelectorAll('.plot')].every((each) => each.querySelector('svg'))")
    assert tab.locator("#store-0 [data-table=pairs] tr").count() == 10
    assert tab.locator(".broken").count() == 0
    assert too_wide(tab) == []
