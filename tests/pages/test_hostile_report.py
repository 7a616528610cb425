"""Reports of stores, runs and rows whose every name and text a stranger chose, in Chromium: nothing runs, nothing is fetched,
nothing is broken or too wide.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softlabels import TransferSetConfig, load_transfer_set, write_store
from softlabels.jobs.plan_page import write_page
from softlabels.jobs.report import report
from softlabels.objects import ObjectSpec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels_stages.__main__ import main
from tests.pages import digits, texts
from tests.pages.browser import DESKTOP, PHONE, Tabs, too_wide
from tests.pages.hostile import CLASSES, FOLDER, LONG, RUN, SCRIPTS, TEXTS
from tests.pages.test_plan_page import made_up

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
STRAY = "main :is(iframe, object, embed, base, link, script, style, form:not(.row-controls, .vega-bindings), img:not(.picture))"
SHORT = [each for each in [*SCRIPTS, *TEXTS] if each.encode(errors="ignore").decode() == each]  # no lone surrogates


def looked_at(tab: Page) -> None:
    """All is drawn, each list turned, sorted, filtered and found in, each target shown, at both widths."""
    tab.wait_for_selector("[data-drawn]", state="attached")
    assert tab.locator("p.broken").count() == 0
    for select in tab.locator("main select").all():
        for value in select.locator("option").evaluate_all("all => all.slice(0, 6).map((each) => each.value)"):
            if select.is_visible():
                select.select_option(value)
        if select.is_visible():
            select.select_option(index=0)
    tab.fill("#temperature-number", "3.5")
    for search in tab.locator("main input[type=search]").all():
        search.fill("onerror")
        search.fill("")
    for mark in tab.locator("svg :is([aria-roledescription=bar], [aria-roledescription=point])").all()[:6]:
        mark.dispatch_event("pointermove")  # its tooltip
    tab.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    for width, height in (DESKTOP, PHONE):
        tab.set_viewport_size({"width": width, "height": height})
        assert too_wide(tab) == []
    assert tab.eval_on_selector_all(STRAY, "all => all.map((each) => each.outerHTML.slice(0, 200))") == []


def forged(run: Path) -> None:
    """What its results say under names of a stranger's."""
    file = run / "results.json"
    found: dict[str, Any] = json.loads(file.read_text())
    found["store"], found["split"] = SCRIPTS[0], FOLDER
    found["swept"] = [SCRIPTS[2]]
    found["class_names"] = CLASSES
    found["teacher"]["members"] = dict(zip(SCRIPTS, found["teacher"]["members"].values(), strict=False))
    for number, student in enumerate(found["students"]):
        student["label"] = SCRIPTS[number]
        student["settings"] |= {SCRIPTS[2]: SCRIPTS[3]}
    file.write_text(json.dumps(found))


def test_digits_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tabs: Tabs) -> None:
    """Classes, members, teacher, runs and students; hard labels of which some are likely wrong."""
    monkeypatch.setattr("softlabels.jobs.train.draw", lambda *args, **options: [])
    monkeypatch.chdir(tmp_path)
    digits.write_store(
        tmp_path / "store", names=tuple(CLASSES), members=(SCRIPTS[0], LONG[2][:4096]), teacher=SCRIPTS[2]
    )
    digits.train(tmp_path, transfer_set=digits.recipe()["transfer_set"] | {"classes": CLASSES})
    (tmp_path / "run").rename(FOLDER)
    shutil.copytree(FOLDER, "forged")
    forged(tmp_path / "forged")
    assert main(["report", "store", FOLDER, "forged", "--config=recipe.yaml", "--label_errors=errors.csv"]) == 0
    tab = tabs.open(tmp_path / "report.html")
    looked_at(tab)
    assert CLASSES[1] in tab.inner_text("#store-0")
    assert FOLDER.split(" \u202e")[0] in tab.inner_text("#rows-0 .row-legend")
    assert tab.locator("#rows-0 .picture").count() > 5


def test_texts_targets_and_columns(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    """Texts and cells under names of columns, three targets, their classes and outputs."""
    words = [*SHORT, *LONG, *CLASSES]
    columns = [SCRIPTS[0], SCRIPTS[2], "\u202ecolumn"]
    folder = tmp_path / "data"
    folder.mkdir()
    values = {columns[0]: words, columns[1]: words[::-1], columns[2]: rng.normal(size=len(words))}
    pq.write_table(pa.table(values), folder / "test.parquet")
    config = TransferSetConfig(
        name=SCRIPTS[0], source=str(folder), inputs=tuple(columns), label=None, splits={"test": "test"},
        prepare=ObjectSpec(f"{__name__}.lengths"),
    )  # fmt: skip
    keys = np.array(load_transfer_set(config, "test", cache=tmp_path / "cache").keys)
    z = rng.normal(size=(len(words), 2, 10)) * 3
    store, members = tmp_path / FOLDER / "test", tuple(MemberSpec(model=each, weights="") for each in SCRIPTS[:2])
    write_store(
        store, {"kind": z, "tags": z[:, :, :4], "box": z[:, :, :4]},
        kind={"kind": "softmax", "tags": "sigmoid", "box": "values"}, keys=keys,
        labels={"kind": z[:, 0].argmax(axis=1), "box": z[:, 0, :4]},
        classes={"kind": CLASSES, "tags": SCRIPTS[:4], "box": SCRIPTS[4:8]},
        teacher=TeacherSpec(name=SCRIPTS[5], precision="float32", members=members),
    )  # fmt: skip
    report(store.parent, out=tmp_path / "page.html", transfer=config)
    tab = tabs.open(tmp_path / "page.html")
    looked_at(tab)
    tab.fill("#rows-0-words", f"<img src=x onerror={RUN}>")
    seen = tab.locator("#rows-0 .row .text bdi").all_inner_texts()
    assert f"<img src=x onerror={RUN}>" in seen


def lengths(rows: list[tuple[str, str, float]]) -> np.ndarray:
    return np.array([[len(one), len(other), x] for one, other, x in rows], np.float32)


def test_tokens(tmp_path: Path, tabs: Tabs) -> None:
    """Of a stranger's tokenizer."""
    store, config = texts.of_tokens(tmp_path, added=[each for each in SHORT if each.strip()])
    report(Path(str(store.path)), out=tmp_path / "page.html", transfer=config)
    tab = tabs.open(tmp_path / "page.html")
    looked_at(tab)
    tab.fill("#rows-0-words", "</script>")
    assert SCRIPTS[0] in tab.locator("#rows-0 .token").all_inner_texts()


def test_plan(tmp_path: Path, tabs: Tabs) -> None:
    for number, name in enumerate([*CLASSES[:4], LONG[2]]):
        write_page(made_up(name), tmp_path / f"{number}.html")
        tab = tabs.open(tmp_path / f"{number}.html", PHONE)
        tab.wait_for_selector("[data-drawn]", state="attached")
        assert tab.locator("p.broken").count() == 0
        assert too_wide(tab) == []
