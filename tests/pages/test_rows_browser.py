"""Rows in a real browser: bars are the store's probabilities at the slider's temperature; rows are sorted, filtered and walked
through by keyboard.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from softlabels import TransferSetConfig, load_transfer_set, write_store
from softlabels.labels.dense import DenseEncoding
from softlabels.objects import ObjectSpec
from softlabels.pages.answers import Answers
from softlabels.pages.page import page
from softlabels.pages.slider import Slider
from softlabels.store import Store
from tests.pages.browser import PHONE, SMALL, Tabs, too_wide, wait_until
from tests.pages.looked_rows import looked_rows
from tests.store import samples

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS = 45
BARS = """(root) => [...document.querySelectorAll(root + ' .row')].map((row) => ({
    row: Number(row.dataset.row),
    position: Number(row.querySelector('.row-bars')?.dataset.position ?? -1),
    bars: [...row.querySelectorAll('.bar-fill')]
        .map(({dataset}) => [dataset.who, Number(dataset.class), Number(dataset.probability)]),
    scores: Object.fromEntries([...row.querySelectorAll('[data-score]')]
        .map(({dataset}) => [dataset.score, Number(dataset.value)])),
}))"""


def shown(tab: Page, root: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tab.evaluate(BARS, root)
    return found


def set_temperature(tab: Page, temperature: float) -> None:
    tab.fill("#temperature-number", str(temperature))
    wait_until(tab, f"document.documentElement.dataset.temperature === '{temperature:g}'")


def write(
    path: Path,
    stores: dict[str, Store],
    answers: dict[str, list[Answers]] | None = None,
    transfer: TransferSetConfig | None = None,
) -> Path:
    sections = looked_rows(stores, transfer, answers=answers)
    path.write_text(page("rows", sections, slider=Slider.of([*stores.values()])), encoding="utf-8")
    return path


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


@pytest.fixture
def digits(tmp_path: Path, rng: np.random.Generator) -> tuple[Store, Answers]:
    """Three members over twelve classes, pictures, and a student."""
    truth = rng.integers(0, 12, ROWS)
    z = rng.normal(size=(ROWS, 3, 12)) * 2
    z[np.arange(ROWS), :, truth] += rng.uniform(0, 6, ROWS)[:, None]
    labels = np.where(np.arange(ROWS) < 4, (truth + 1) % 12, truth)
    names = ["<b>one</b>", "שלום", *map(str, range(2, 12))]
    inputs = rng.integers(0, 256, (ROWS, 8, 8), np.uint8)
    store = write_store(tmp_path / "test", z, labels=labels, inputs=inputs, classes=names)
    student = z[:, 0] + rng.normal(size=(ROWS, 12))
    return store, Answers("student, distilled", "distilled", np.arange(ROWS), student.astype(np.float32))


@pytest.mark.parametrize("size", [(1280, 900), PHONE], ids=["desktop", "phone"])
def test_bars_are_the_probabilities_of_the_store(
    tmp_path: Path, digits: tuple[Store, Answers], tabs: Tabs, size: tuple[int, int]
) -> None:
    store, student = digits
    tab = tabs.open(write(tmp_path / "page.html", {"test": store}, {"test": [student]}), size)
    tab.wait_for_selector(".bar-fill")
    for temperature in (0.5, 3.3, 20):
        set_temperature(tab, temperature)
        rows = shown(tab, "#rows-0")
        assert len(rows) == 20
        for each in rows:
            row = [each["row"]]
            p = np.exp(store.log_probs(row, temperature=temperature))[0]
            members = softmax(store.gather("logits", row)[0].astype(np.float64) / temperature)
            said = softmax(student.outputs[row[0]].astype(np.float64) / temperature)
            want = {"ensemble": p, student.label: said, **{f"member {m}": members[m] for m in range(3)}}
            kept = [number for who, number, _ in each["bars"] if who == "ensemble" and number >= 0]
            assert [*np.argsort(-p)[:8]] == kept[:8]
            for who, number, value in each["bars"]:
                expected = want[who][number] if number >= 0 else 1 - want[who][kept].sum()
                assert value == pytest.approx(expected, abs=1e-3)
            mean_h = -(p * np.log(p)).sum()
            assert each["scores"]["entropy"] == pytest.approx(mean_h, abs=1e-3)
            assert each["scores"]["disagreement"] == pytest.approx(
                mean_h + (members * np.log(members)).sum(axis=1).mean(), abs=1e-3
            )
            kl = (p * (np.log(p) - np.log(said))).sum()
            assert each["scores"][f"KL of {student.label}"] == pytest.approx(kl, abs=1e-3)
    assert too_wide(tab) == []


def test_flags_of_a_student_that_round_to_1(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    z, student = rng.normal(size=(6, 2, 5)) * 2, rng.choice([-25.0, 25.0], (6, 5))
    store = write_store(tmp_path / "test", z, kind="sigmoid", keys=rng.integers(0, 256, (6, 16), np.uint8))
    said = Answers("student", "distilled", np.arange(6), student.astype(np.float32))
    tab = tabs.open(write(tmp_path / "page.html", {"test": store}, {"test": [said]}))
    tab.wait_for_selector("#rows-0 .row")
    set_temperature(tab, 0.5)
    p = store.probabilities(np.arange(6), temperature=0.5)
    log_q, log_other = -np.logaddexp(0, -student / 0.5), -np.logaddexp(0, student / 0.5)
    kl = (p * (np.log(p) - log_q) + (1 - p) * (np.log1p(-p) - log_other)).sum(axis=1)
    for each in shown(tab, "#rows-0"):
        assert each["scores"]["KL of student"] == pytest.approx(kl[each["row"]], rel=1e-3)


def test_rows_are_sorted_and_filtered(tmp_path: Path, digits: tuple[Store, Answers], tabs: Tabs) -> None:
    store, student = digits
    tab = tabs.open(write(tmp_path / "page.html", {"test": store}, {"test": [student]}), SMALL)
    every, p = np.arange(ROWS), np.exp(store.log_probs(np.arange(ROWS), temperature=2.0))
    set_temperature(tab, 2)
    tab.select_option("#rows-0-sort", "entropy")
    entropy = -(p * np.log(p)).sum(axis=1)
    assert [each["row"] for each in shown(tab, "#rows-0")] == every[np.argsort(-entropy)][:20].tolist()
    tab.select_option("#rows-0-sort", "student-0")
    said = np.log(softmax(student.outputs.astype(np.float64) / 2))
    furthest = every[np.argsort(-(p * (np.log(p) - said)).sum(axis=1))]
    assert [each["row"] for each in shown(tab, "#rows-0")] == furthest[:20].tolist()
    tab.check("#rows-0-differs")
    differ = p.argmax(axis=1) != said.argmax(axis=1)
    assert [each["row"] for each in shown(tab, "#rows-0")] == furthest[differ[furthest]][:20].tolist()
    tab.uncheck("#rows-0-differs")
    tab.select_option("#rows-0-sort", "row")
    tab.select_option("#rows-0-class", "1")
    labels = store.gather("label", every)
    assert {each["row"] for each in shown(tab, "#rows-0")} == {*every[(labels == 1) | (p.argmax(axis=1) == 1)].tolist()}
    tab.select_option("#rows-0-class", "")
    tab.check("#rows-0-errors")
    assert {0, 1, 2, 3} & {each["row"] for each in shown(tab, "#rows-0")}
    assert too_wide(tab) == []


def test_rows_by_keyboard(tmp_path: Path, digits: tuple[Store, Answers], tabs: Tabs) -> None:
    tab = tabs.open(write(tmp_path / "page.html", {"test": digits[0]}))
    tab.wait_for_selector(".row")
    focused = "Number(document.activeElement.dataset.row ?? -1)"
    first = shown(tab, "#rows-0")
    tab.keyboard.press("j")
    assert tab.evaluate(focused) == first[0]["row"]
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("k")
    assert tab.evaluate(focused) == first[1]["row"]
    tab.keyboard.press("]")  # the row stays where it is
    wait_until(tab, "document.documentElement.dataset.temperature !== '1'")
    assert tab.evaluate(focused) == first[1]["row"]
    for _ in range(19):
        tab.keyboard.press("j")
    assert "Rows 21 to 40" in tab.inner_text("#rows-0 [role=status]")
    assert tab.evaluate(focused) == shown(tab, "#rows-0")[0]["row"]
    tab.keyboard.press("k")
    assert tab.evaluate(focused) == first[19]["row"]
    tab.keyboard.press("/")
    tab.keyboard.type("row 17")
    assert [each["row"] for each in shown(tab, "#rows-0")] == [17]
    tab.fill("#rows-0-words", "entropy")  # of the lists that chose them nothing is seen in a row
    assert shown(tab, "#rows-0") == []
    tab.keyboard.type(" never")
    assert "No row fits" in tab.inner_text("#rows-0 [role=status]")


KINDS = ("topk-zarr", "ragtokens-arrow", "sigmoid-zarr", "ragseveral-arrow")


def test_rows_of_every_kind(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    """Of the position that is chosen, and of another one."""
    stores = {}
    for kind in KINDS:
        data = samples.sample(rng, 8, kind)
        stores[kind] = samples.write_store(tmp_path / kind, data, samples.make_spec(data, kind))
    tab = tabs.open(write(tmp_path / "page.html", stores))
    wait_until(tab, "document.querySelectorAll('.row-list').length === " + str(len(tab.query_selector_all("section"))))
    every = [store.only(target) for store in stores.values() for target in store.targets]
    for number, store in enumerate(every):
        if store.encoding.target != "values":
            _compare(tab, f"#rows-{number}", store, 1.0)
    set_temperature(tab, 6.1)
    tab.evaluate("document.querySelectorAll('.row [role=option]:last-child').forEach((each) => each.click())")
    for number, store in enumerate(every):
        if store.encoding.target != "values":
            _compare(tab, f"#rows-{number}", store, 6.1)
    assert too_wide(tab) == []


def test_rows_known_at_one_temperature_stay_there(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    """Beside a store that the slider moves."""
    data = replace(samples.sample(rng, 8, "dense-zarr"), encoding=DenseEncoding(known_at=3.0))
    at_3 = samples.write_store(tmp_path / "at", data, samples.make_spec(data, "dense-zarr"))
    stores = {"at": at_3, "free": write_store(tmp_path / "train", rng.normal(size=(8, 6)) * 3, keys=data.keys)}
    tab = tabs.open(write(tmp_path / "page.html", stores))
    tab.wait_for_selector(".row")
    for temperature in (1.5, 8.0):
        set_temperature(tab, temperature)
        _compare(tab, "#rows-0", at_3, 3.0)
        _compare(tab, "#rows-1", stores["free"], temperature)


def test_what_is_open_stays_open_when_the_slider_moves(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    store = write_store(tmp_path / "test", rng.normal(size=(4, 6)), inputs=rng.normal(size=(4, 20)).astype(np.float32))
    tab = tabs.open(write(tmp_path / "page.html", {"test": store}))
    tab.click(".row summary")
    set_temperature(tab, 2)
    assert tab.evaluate("document.querySelectorAll('.row details[open]').length") == 1


def test_values_are_sorted_in_parts_of_their_usual_sizes(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    """An output in large units does not decide alone, and one that is always the same decides nothing."""
    z = rng.normal(size=(60, 3, 3)) * [1, 1000, 0] + [0, 0, 5]
    hard = z.mean(axis=1) + rng.normal(size=(60, 3)) * [1, 10, 0]
    store = write_store(tmp_path / "test", z, kind="values", labels=hard, inputs=rng.normal(size=(60, 2)))
    tab = tabs.open(write(tmp_path / "page.html", {"test": store}))
    tab.wait_for_selector(".row")
    mean = z.mean(axis=1)
    usual = np.where(mean.std(axis=0) > 1e-6, mean.std(axis=0), 1)
    for name, far in (
        ("disagreement", np.sqrt((((z - mean[:, None]) / usual) ** 2).mean(axis=(1, 2)))),
        ("residual", np.sqrt((((hard - mean) / usual) ** 2).mean(axis=1))),
    ):
        tab.select_option("#rows-0-sort", name)
        assert [each["row"] for each in shown(tab, "#rows-0")] == np.argsort(-far)[:20].tolist()
    assert shown(tab, "#rows-0")[0]["scores"]["error"] == pytest.approx(far.max(), abs=1e-3)


def _compare(tab: Page, root: str, store: Store, temperature: float) -> None:
    rows = shown(tab, root)
    assert len(rows) == 8
    p = store.probabilities([each["row"] for each in rows], temperature=temperature)
    for each, own in zip(rows, p, strict=True):
        if each["position"] < 0:
            continue
        at = own if store.positions is None else own[each["position"]]
        for who, number, value in each["bars"]:
            if who == "ensemble" and number >= 0:
                assert value == pytest.approx(at[number], abs=1e-3)


def test_cells_of_a_table_have_the_names_of_their_columns(tmp_path: Path, rng: np.random.Generator, tabs: Tabs) -> None:
    file = tmp_path / "train.csv"
    file.write_text("age,<b>hours\n" + "".join(f"{row},{row + 0.5}\n" for row in range(20)))
    table = TransferSetConfig(
        name="t",
        source=str(file),
        inputs=("age", "<b>hours"),
        label=None,
        splits={"train": "train"},
        prepare=ObjectSpec("softlabels.transfer.table"),
    )
    store = write_store(
        tmp_path / "train", rng.normal(size=(20, 1, 3)), keys=np.array(load_transfer_set(table, "train").keys)
    )
    path = tmp_path / "page.html"
    path.write_text(page("rows", looked_rows({"train": store}, table), slider=Slider.of([store])), encoding="utf-8")
    tab = tabs.open(path, SMALL)
    tab.wait_for_selector(".bar-fill")
    said = tab.locator("#rows-0 p.text").all_inner_texts()
    assert "age 7" in said
    assert "<b>hours 7.5" in said
