"""softlabels report from the outside: what it writes, says and refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from softlabels.errors import DamagedShard
from softlabels.jobs.report_runs import GivenRun, distinct_names
from softlabels_stages import report


def test_it_writes_one_file_and_says_where(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(store), "--out=page.html"]) == 0
    assert capsys.readouterr().out == "report: page.html\n"
    source = Path("page.html").read_text(encoding="utf-8")
    assert "The store, split train" in source
    assert "://" not in source.partition("<script>")[0]
    before = Path("page.html").read_bytes()
    assert report.main([str(store), "--out=page.html"]) == 0
    assert Path("page.html").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "ConfigError: no store is named; write softlabels report STORE"),
        (["nowhere"], 2, "StorePathError: nowhere does not exist"),
    ],
)
def test_what_is_no_store(
    words: list[str], code: int, said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(words) == code
    assert said in capsys.readouterr().err
    assert not Path("report.html").exists()


def test_unfinished_and_damaged_stores(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunk = store / "train" / "logits" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[0] ^= 1
    chunk.write_bytes(bytes(data))
    assert report.main([str(store)]) == DamagedShard.exit_code == 3
    assert "DamagedShard" in capsys.readouterr().err
    (store / "train" / "manifest.json").unlink()
    assert report.main([str(store)]) == 2
    assert "UnsealedStore" in capsys.readouterr().err
    assert not Path("report.html").exists()


def test_the_list_of_label_errors(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(store), "--label_errors=wrong.csv"]) == 0
    said, last = capsys.readouterr().out.splitlines()
    head, *lines = Path("wrong.csv").read_text().splitlines()
    assert said == f"likely label errors: {len(lines)}, in wrong.csv"
    assert last == "report: report.html"
    assert head.startswith("split,target,row,position,content_key,given,")


def test_a_list_that_is_refused_leaves_no_page(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("blocked").write_text("a file")
    assert report.main([str(store), "--label_errors=blocked/wrong.csv"]) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("report.html").exists()


@pytest.mark.parametrize("option", ["out", "label_errors"])
@pytest.mark.parametrize(
    "place", ["folder", "pipe", "mine.yaml", "{store}/train/manifest.json", "{store}/train/new/page.html"]
)
def test_only_plain_files_outside_of_stores_are_written(
    option: str, place: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    Path("mine.yaml").write_text("name: mine\n")
    before = (store / "train" / "manifest.json").read_bytes()
    assert report.main([str(store), f"--{option}={place.format(store=store)}"]) == 2
    assert "ConfigError" in capsys.readouterr().err
    assert (store / "train" / "manifest.json").read_bytes() == before
    assert not Path("report.html").exists()
    assert Path("pipe").is_fifo()
    assert Path("mine.yaml").read_text() == "name: mine\n"


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    named = {"a/run": "a/run", "b/run": "b/run", "c": f"{tmp_path.name}/c"}
    assert distinct_names([GivenRun(tmp_path / place) for place in named]) == [*named.values()]
    assert distinct_names([GivenRun(Path("x/a")), GivenRun(Path("x/b"))]) == ["a", "b"]


def test_page_and_list_are_two_files(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(store), "--out=one.html", "--label_errors=./one.html"]) == 2
    assert "page and list would be one file" in capsys.readouterr().err
