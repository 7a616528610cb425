"""The report of the recipe `detect` in small, in Chromium: boxes lie where the recipe's numbers say, computed here in float64;
scores follow the slider; a box is chosen by a click and by keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from softlabels.models import ModelConfig, build_model
from softlabels.store import Store, open_store
from softlabels_stages import recipe as recipes
from softlabels_stages.__main__ import main
from tests.pages.browser import PHONE, Tabs, too_wide, wait_until
from tests.recipes.test_detect import write_cells

if TYPE_CHECKING:
    from playwright.sync_api import Page

H, W, STRIDE, LEAST = 48, 64, 8, 0.2
DRAWN = """() => [...document.querySelectorAll('#rows-0 .row')].map((row) => {
    const whole = row.querySelector('.picture').getBoundingClientRect();
    return [Number(row.dataset.row), [...row.querySelectorAll('.box')].map((box) => {
        const edge = box.querySelector('.edge').getBBox(), at = box.querySelector('.edge').getScreenCTM();
        const x = edge.x * at.a + at.e, y = edge.y * at.d + at.f;
        return {who: box.dataset.who, class: Number(box.dataset.class), position: Number(box.dataset.position),
            score: Number(box.dataset.score),
            box: [(x - whole.x) / whole.width, (y - whole.y) / whole.height, edge.width * at.a / whole.width,
                edge.height * at.d / whole.height]};
    })];
})"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a detector's store, a run and their report."""
    work, rng = tmp_path_factory.mktemp("detect"), np.random.default_rng(3)
    for split, rows in {"train": 16, "test": 6}.items():
        write_cells(work / "cells", rng, rows, split=split)
    own = recipes.load("detect")
    own["transfer_set"]["factory"]["init_args"] = {"source": str(work / "cells"), "size": [H, W]}
    own["transfer_set"] |= {"positions": H * W // STRIDE**2, "splits": {"train": "train", "test": "test"}}
    own["teacher"]["members"] = own["teacher"]["members"][:1]
    own["boxes"]["init_args"] = {"size": [H, W], "least": LEAST}
    own["teacher_training"] |= {"epochs": 10, "batch_size": 4}
    own["training"] |= {"epochs": 2, "seeds": [0], "hard_label_fraction": 1.0, "batch_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SOFTLABELS_CACHE", str(work / "cache"))
        patch.setenv("SOFTLABELS_REPORT", "1")
        patch.setattr("softlabels.jobs.train.draw", lambda *args, **options: [])
        Path("recipe.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        for words in (
            ["train-teacher"],
            ["teacher-logits", "--store=store"],
            ["train-student", "--store=store", "--out=run"],
        ):
            assert main([*words, "--config=recipe.yaml"]) == 0
    return work


@pytest.fixture(scope="module")
def store(made: Path) -> Store:
    return open_store(made / "store", split="test")


def reference(p: np.ndarray, coded: np.ndarray) -> dict[tuple[int, int], list[float]]:
    """(position, class) -> left, top, width, height of what is found, by the definition, in float64."""
    candidates = sorted(
        ((-float(p[n, c]), n, c) for n in range(len(p)) for c in range(p.shape[1] - 1) if p[n, c] >= LEAST),
    )
    kept: dict[tuple[int, int], list[float]] = {}
    for _, n, c in candidates:
        x, y = (n % (W // STRIDE) + 0.5) * STRIDE, (n // (W // STRIDE) + 0.5) * STRIDE
        w, h = (24 * float(np.exp(min(z, 3))) for z in coded[n, 2:])
        mx, my = x + coded[n, 0] * w, y + coded[n, 1] * h
        box = [mx - w / 2, my - h / 2, mx + w / 2, my + h / 2]
        if all(c != other or overlap(box, theirs) <= 0.5 for (_, other), theirs in kept.items()):
            kept[n, c] = box
    sides = np.array([W, H, W, H])
    cut = {at: np.clip(box, 0, sides) / sides for at, box in kept.items()}
    return {at: [*box[:2], *(box[2:] - box[:2])] for at, box in cut.items() if (box[2:] > box[:2]).all()}


def overlap(a: list[float], b: list[float]) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def drawn(tab: Page) -> dict[int, dict[str, dict[tuple[int, int], dict[str, Any]]]]:
    """Row -> whose -> (position, class) -> what is drawn."""
    rows: dict[int, dict[str, dict[tuple[int, int], dict[str, Any]]]] = {}
    for row, boxes in tab.evaluate(DRAWN):
        for each in boxes:
            rows.setdefault(row, {}).setdefault(each["who"], {})[each["position"], each["class"]] = each
    return rows


def set_temperature(tab: Page, temperature: float) -> None:
    tab.fill("#temperature-number", str(temperature))
    wait_until(tab, f"document.documentElement.dataset.temperature === '{temperature:g}'")


def test_boxes_of_a_report(made: Path, store: Store, tabs: Tabs) -> None:
    tab = tabs.open(made / "run/report.html")
    tab.locator("#rows-0").scroll_into_view_if_needed()
    tab.wait_for_selector("#rows-0 .box")
    for student in (2, 3):
        tab.check(f"#rows-0-boxes-{student}")
    assert sum(_compare(tab, store, temperature) for temperature in (1.0, 0.6, 8.0)) > 10
    set_temperature(tab, 0.6)
    assert sum(_compare_student(drawn(tab), made, store, kind, 0.6) for kind in ("hard", "distilled")) > 0
    set_temperature(tab, 1.0)
    _choose(tab)
    tab.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert _compare(tab, store, 3.0) > 5
    assert too_wide(tab) == []
    assert tab.locator("#rows-1 .row").count() == 6
    assert tab.locator("#rows-1 .box").count() == 0  # of values there is the table alone


def _compare(tab: Page, store: Store, temperature: float) -> int:
    """How many boxes of the ensemble were compared."""
    set_temperature(tab, temperature)
    rows = drawn(tab)
    assert {who for said in rows.values() for who in said} >= {"teacher", "hard labels"}
    own, coded = store.only("class"), store.only("box")
    for row, said in rows.items():
        p = np.exp(own.log_probs([row], temperature=temperature))[0]
        want = reference(own.probabilities([row], temperature=1.0)[0], coded.values([row])[0])
        want = {at: box for at, box in want.items() if p[at] >= 0.2}
        found = said.get("teacher", {})
        assert found.keys() == want.keys()
        for at, box in want.items():
            assert found[at]["score"] == pytest.approx(p[at], abs=1e-3)
            assert found[at]["box"] == pytest.approx(box, abs=2e-3)
        labels = own.gather("label", [row])[0]
        flat = reference(np.eye(4)[labels], coded.gather("label", [row])[0].astype(np.float64))
        hard = {at: each["box"] for at, each in said["hard labels"].items()}
        assert hard == {at: pytest.approx(box, abs=2e-3) for at, box in flat.items()}
    return sum(len(said.get("teacher", {})) for said in rows.values())


def _compare_student(
    rows: dict[int, dict[str, dict[tuple[int, int], dict[str, Any]]]], made: Path, store: Store, kind: str, at: float
) -> int:
    """How many boxes of a student were compared with what its own weights say of the rows."""
    own = yaml.safe_load((made / "recipe.yaml").read_text())["student"]
    model = build_model(ModelConfig(**own, weights=str(made / f"run/{kind}-seed0/weights.safetensors"))).eval()
    with torch.inference_mode():
        outputs = model(torch.from_numpy(store.gather("input", np.arange(store.rows))))
    for row, said in rows.items():
        z, coded = (outputs[name][row].double().numpy() for name in ("class", "box"))
        p, now = (each / each.sum(-1, keepdims=True) for each in (np.exp(z), np.exp(z / at)))
        found = said.get(f"student, {kind}", {})
        want = {place: box for place, box in reference(p, coded).items() if now[place] >= 0.2}
        assert {place: each["box"] for place, each in found.items()} == {
            place: pytest.approx(box, abs=2e-3) for place, box in want.items()
        }
        assert all(each["score"] == pytest.approx(now[place], abs=1e-3) for place, each in found.items())
    return sum(len(said.get(f"student, {kind}", {})) for said in rows.values())


def _choose(tab: Page) -> None:
    """By a click, and by keys."""
    row = tab.locator("#rows-0 .row").filter(has=tab.locator(".box[data-who=teacher]")).first
    chosen = "(row) => Number(row.querySelector('.row-bars').dataset.position)"
    box = row.locator(".box").last  # the smallest, above all others
    box.click()
    assert row.evaluate(chosen) == int(box.get_attribute("data-position") or -1)
    assert box.get_attribute("aria-selected") == "true"
    assert (box.get_attribute("aria-label") or "").split(", position")[0] in row.locator(".box-names").inner_text()
    row.locator(".boxes").focus()
    seen = set()
    for key in ["ArrowLeft"] * row.locator(".box").count() + ["ArrowRight"] * row.locator(".box").count():
        tab.keyboard.press(key)
        at = row.locator(".boxes").get_attribute("aria-activedescendant")
        seen.add(at)
        assert row.evaluate(chosen) == int(tab.get_attribute(f"[id='{at}']", "data-position") or -1)
    assert len(seen) == row.locator(".box").count()
    tab.keyboard.press("]")  # the boxes keep the focus
    wait_until(tab, "document.documentElement.dataset.temperature !== '1'")
    assert tab.evaluate("document.activeElement.classList.contains('boxes')")
    tab.uncheck("#rows-0-boxes-0")
    assert tab.locator(".box.hard").count() == 0
    tab.check("#rows-0-boxes-0")


def test_code_that_may_not_run_and_another_size(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(made / "cache"))
    theirs = made / "theirs"
    theirs.mkdir()
    for name in ("results.json", "run.json"):
        (theirs / name).write_bytes((made / "run" / name).read_bytes())
    own = yaml.safe_load((made / "run" / "config.yaml").read_text())
    (theirs / "config.yaml").write_text(yaml.safe_dump(own | {"boxes": {"class_path": "evil.find"}}, sort_keys=False))
    assert main(["report", "store/test", "theirs", "--out=theirs.html"]) == 0
    assert "no boxes are drawn: evil.find does not ship with softlabels" in capsys.readouterr().err
    assert '"boxes":[' not in (made / "theirs.html").read_text()
    assert '"boxes":[' in (made / "run/report.html").read_text()
    wrong = {"boxes": {"class_path": "softlabels.recipes.cell_boxes", "init_args": {"size": [48, 72]}}}
    (theirs / "config.yaml").write_text(yaml.safe_dump(own | wrong, sort_keys=False))
    assert main(["report", "store/test", "theirs", "run", "--out=theirs.html"]) == 0  # it costs the boxes alone
    assert "no boxes are drawn: boxes: 54 cells" in capsys.readouterr().err
    words = ["report", "store/test", "--config=recipe.yaml", "--out=no.html"]
    assert main([*words, "--boxes.init_args.size=[48,72]"]) == 2
    assert (
        "boxes: 54 cells of an image of 48 x 72 pixels, and rows have 48; give boxes.init_args.size"
        in capsys.readouterr().err
    )
