"""The page that train-student writes at its end, and what `softlabels report` says of runs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from softlabels.jobs.run_files import LATENCY
from softlabels.pages import bundle
from softlabels.system.local import LocalFolder
from softlabels_stages import report, train_student
from tests.pages.browser import PHONE, Tabs, too_wide, wait_until
from tests.stages import toy

FEW: dict[str, Any] = {"epochs": 3, "batch_size": 32, "seeds": [0, 1], "device": "cpu", "hard_label_fraction": 0.3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds its inputs, and two runs over it: one sweeps the temperature, the other has pictures."""
    work = tmp_path_factory.mktemp("run-page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("SOFTLABELS_STATE", str(work / "state"))
        toy.write_store(work / "store", embed=True)
        toy.write_recipe(work / "toy.yaml", training=FEW | {"temperature": [1, 4]})
        assert train_student.main(["--config=toy.yaml", "--store=store", "--out=sweep"]) == 0
        patch.delenv("SOFTLABELS_REPORT")
        toy.write_recipe(work / "toy.yaml", training=FEW)
        assert train_student.main(["--config=toy.yaml", "--store=store", "--out=run"]) == 0
    return work


@pytest.fixture
def work(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.setenv("SOFTLABELS_STATE", str(made / "state"))
    monkeypatch.delenv("SOFTLABELS_REPORT")
    shutil.rmtree("run/report.html", ignore_errors=True)
    return made


def train_again(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """What the command that made the run says when it is given again, and its warnings."""
    assert train_student.main(["--config=toy.yaml", "--store=store", "--out=run"]) == 0
    said = capsys.readouterr()
    warnings = [line for line in said.err.splitlines() if "transfer_set is not read" not in line]
    return said.out.splitlines(), warnings


def data_of(page: Path, name: str) -> Any:
    """The numbers of a section."""
    text = page.read_text().split(f'<script type="application/json" id="data-{name}">')[1]
    return json.loads(text.split("</script>")[0])


def test_a_run_ends_with_its_page_and_makes_it_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        lines, warnings = train_again(capsys)
        assert lines[-1] == "report: run/report.html"
        assert not warnings
        page = (work / "run/report.html").read_text()
        assert '<section id="runs"' in page
        assert "hard - distilled" in page
        assert "split test" in page
        assert "split train" not in page
        (work / "run/report.html").write_text("<!doctype html>an older one")
    [run] = data_of_rewritten(work, capsys)["runs"]
    assert [each["name"] for each in run["targets"][0]["calibration"]["models"]] == ["ensemble", "hard", "distilled"]


def data_of_rewritten(work: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    train_again(capsys)
    return data_of(work / "run/report.html", "runs")


def test_pictures_are_made_with_the_run_unless_they_are_left_out(made: Path) -> None:
    assert {path.name for path in made.glob("run/*.png")} == {"curves.png"}
    assert "![curves.png](curves.png)" in (made / "run/README.md").read_text()
    assert not [*made.glob("sweep/*.png")]
    assert ".png" not in (made / "sweep/README.md").read_text()


def test_a_page_that_cannot_be_is_a_warning(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "run/report.html").unlink(missing_ok=True)
    (work / "run/report.html").mkdir()
    lines, [warning] = train_again(capsys)
    assert "try next" in lines[-1]
    assert warning.startswith("warning: no report.html: ")


def test_without_the_extra_a_line_says_so(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr("softlabels.jobs.report.vega_bundle", bundle.vega_bundle.__wrapped__)
    lines, warnings = train_again(capsys)
    assert lines[-1].startswith("no report.html: this needs the package vl_convert")
    assert not warnings


def test_it_can_be_left_out(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_REPORT", "0")
    (work / "run/report.html").unlink(missing_ok=True)
    lines, _ = train_again(capsys)
    assert "try next" in lines[-1]
    assert not (work / "run/report.html").exists()


def test_the_students_of_a_stranger_are_asked_only_with_trust(
    work: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree("run", tmp_path / "theirs")
    recipe = (tmp_path / "theirs/config.yaml").read_text()
    theirs = recipe.replace("softlabels.models.MLP", "tests.pages.strangers.MLP")
    (tmp_path / "theirs/config.yaml").write_text(theirs)
    words = ["store", str(tmp_path / "theirs"), f"--out={tmp_path}/report.html"]
    assert report.main(words) == 0
    assert "tests.pages.strangers" not in sys.modules
    page = (tmp_path / "report.html").read_text()
    assert "UntrustedCode: tests.pages.strangers.MLP does not ship with softlabels" in page
    assert "hard - distilled" in page
    assert data_of(tmp_path / "report.html", "runs")["runs"][0]["targets"][0]["calibration"] is None

    assert report.main([*words, "--trust"]) == 0  # then it is looked for, and is not there
    assert "UntrustedCode" not in (tmp_path / "report.html").read_text()
    assert "strangers" in capsys.readouterr().err


@pytest.mark.parametrize("forged", ["nan", "students", "members", "sparse"])
def test_what_a_stranger_forged_stays_small(
    forged: str, work: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree("run", tmp_path / "theirs")
    place = tmp_path / "theirs/results.json"
    found = json.loads(place.read_text())
    if forged == "nan":
        found["rows"] = float("nan")
    elif forged == "students":
        found["seeds"] = [*range(1_000_000)]
    elif forged == "members":
        found["teacher"]["members"] = dict.fromkeys(map(str, range(5001)), found["teacher"]["ensemble"])
    place.write_text(json.dumps(found))
    if forged == "sparse":
        with place.open("wb") as file:
            file.truncate(300 << 30)
    assert report.main(["store", str(tmp_path / "theirs"), f"--out={tmp_path}/report.html"]) == 2
    assert "DamagedRun" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_runs_in_a_browser(work: Path, tabs: Tabs) -> None:
    times = {"onnx": {"bytes": 1234, "milliseconds": [0.5, 0.125]}}
    LocalFolder("run/distilled-seed0").put(LATENCY, json.dumps({"batches": [1, 32], "models": times}).encode())
    assert report.main(["store", "sweep", "run", "--out=both.html"]) == 0
    page = tabs.open(work / "both.html")
    page.wait_for_selector("#run-choice")
    assert page.locator("#runs [data-plot]").count() == 4 + 4 + 3 + 2 + 2
    assert page.locator("#run-0 [data-plot] svg").count() == page.locator("#run-0 [data-plot]").count()
    assert page.locator("#run-0").is_visible()
    assert not page.locator("#run-1").is_visible()
    page.select_option("#run-choice", "1")
    assert page.locator("#run-1").is_visible()
    assert not page.locator("#run-0").is_visible()
    assert page.get_by_role("cell", name="0.125").is_visible()
    # the plots of a run are drawn once it is shown
    wait_until(page, "document.querySelectorAll('#runs [data-plot] svg').length === 15")
    assert page.locator("#runs .broken").count() == 0

    found = data_of(work / "both.html", "runs")["runs"][1]["targets"][0]["calibration"]
    for T in (1, 3, 20):
        page.fill("#temperature-number", str(T))
        nearest = min(range(len(found["grid"])), key=lambda at: abs(found["grid"][at] / T - 1))
        said = page.locator(f'#run-1 [data-calibration][data-at="{found["grid"][nearest]:g}"]')
        said.wait_for()
        for model in found["models"]:
            shown = said.locator(f'[data-ece][data-model="{model["name"]}"]').get_attribute("data-ece")
            assert float(str(shown)) == pytest.approx(model["at"][nearest]["ece"], abs=1e-4)
    assert too_wide(page) == []
    assert too_wide(tabs.open(work / "both.html", PHONE)) == []
