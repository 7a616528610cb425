"""The page of a plan in a real browser: what it draws and says, with names of strangers, on a desk and on a phone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from softlabels.errors import ConfigError
from softlabels.jobs.plan_page import require_page, write_page
from softlabels.pages.plan import plan_page
from softlabels.report.estimates import Interval
from softlabels.report.plan import Data, Gain, Plan, Size, Teacher
from softlabels.report.verdict import duration_of, verdict
from tests.pages.browser import DESKTOP, PHONE, Tabs, too_wide, wait_until

STRANGER = "<img src=x onerror='window.__pwned = 1'></script>"
SCORES = {"accuracy": 0.97, "nll": 0.16, "ece": 0.08, "brier": 0.07, "labelled": 500, "rows": 500}


def made_up(name: str = STRANGER) -> Plan:
    """A plan of a sparse teacher, by hand."""
    seconds = Interval(3600.0, 5000.0, 7200.0)
    found = Plan(
        name=name,
        data=Data({"train": 1_000_000, "test": 500}, {"train": 12}, ("1 of 500 rows is in train",), {}, 0.3, 0.01, 10),
        pilot={"train": 10_000, "test": 500},
        seed=0,
        seconds=seconds,
        cpu_seconds=seconds,
        second_machine=Interval(1800.0, 2500.0, 3600.0),
        sizes=tuple(
            Size(way, layout, count, {"1": kl}, is_own=(way, layout) == ("dense", "zarr"))
            for way, count, kl in (("dense", 9_000_000_000, 1e-8), ("topk, k=8", 200_000_000, 1e-3))
            for layout in ("zarr", "arrow")
        ),
        encoding="topk, k=8",
        encoding_why="it is the smallest",
        room=10**12,
        place=f"/data/{name}",
        teacher=Teacher(name, "test", SCORES, SCORES | {"accuracy": 1.0}, folds=False),
        flatness={
            "entropy": {"1": 0.2, "4": 1.8, "20": 2.29}, "top": {"1": 0.94, "4": 0.45, "20": 0.14},
            "tail": {"8": {"1": 1e-3, "4": 0.06, "20": 0.17}}, "sure": 0.19, "most": 2.302,
        },
        gain=Gain(
            measure="error rate", groups=8, rows=1250, held_out=500, epochs=40, batch_size=128, steps=400, hard=0.3,
            distilled=0.2,
            interval=Interval(0.06, 0.1, 0.14), alike=False, holds=0.91, chance=0.7, learnt=True, idle=False, advice="",
            temperatures={"4": 0.2, "1": 0.21}, temperature="4",
        ),
        unknown=(f"whether {name} is at home",),
    )  # fmt: skip
    return replace(found, verdict=verdict(found))


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_it_draws_what_was_found_and_runs_nothing(size: tuple[int, int], tabs: Tabs, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    write_page(made_up(), file)
    page = tabs.open(file, size)
    wait_until(page, "document.querySelectorAll('.chart svg').length === 3")
    assert page.inner_text("#verdict").startswith("Verdict: go: 9.0 GB in about 83 min; in the pilot")
    assert STRANGER in page.inner_text("header")
    assert page.locator("[data-plot=gain]").get_attribute("aria-label") == "Gain in error rate: 0.1, from 0.06 to 0.14"
    assert page.locator(".broken").count() == 0
    assert too_wide(page) == []


def test_go_says_so_where_nothing_is_known_of_what_the_labels_are_worth() -> None:
    blind = replace(made_up("mine"), settle=(), gain="the recipe names no student")
    said = "but the pilot does not say whether its labels are any better than hard ones."
    for scores in (None, {"labelled": 0}):
        assert verdict(replace(blind, teacher=replace(blind.teacher, held_out=scores))).endswith(said)
    assert said not in verdict(blind)


def test_what_is_to_be_settled_stands_on_top_one_below_the_other(tabs: Tabs, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    against = ("give more rows (--rows=3200)", f"the teacher is no better than {STRANGER}")
    file.write_text(plan_page(replace(made_up("plain"), settle=against)))
    page = tabs.open(file)
    assert page.inner_text("#verdict strong") == "Verdict: settle first"
    assert page.locator("#verdict li").all_inner_texts() == [
        "Give more rows (--rows=3200).",
        f"The teacher is no better than {STRANGER}.",
    ]
    assert page.locator("#verdict .whole").all_inner_texts() == ["--rows=3200"]  # which no line breaks


def test_durations_are_in_units_that_people_read() -> None:
    said = {4: "4 s", 89: "89 s", 100: "2 min", 5000: "83 min", 9000: "2.5 h", 864_000: "10.0 days"}
    assert {seconds: duration_of(seconds) for seconds in said} == said


def test_without_distributions_and_students_it_says_so(tabs: Tabs, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    file.write_text(plan_page(replace(made_up("plain"), flatness=None, gain="the recipe names no student")))
    page = tabs.open(file)
    wait_until(page, "document.querySelectorAll('.chart svg').length === 1")
    assert "Not known: the recipe names no student." in page.inner_text("main")


def test_where_no_page_can_be_written_is_known_before_the_pilot(tmp_path: Path) -> None:
    require_page(tmp_path / "plan.html")
    with pytest.raises(ConfigError, match="is a folder"):
        require_page(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        require_page(tmp_path / "nowhere" / "plan.html")
