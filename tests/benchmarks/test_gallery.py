"""The gallery of uses: its bars are the numbers of the tables in docs, and each use has a picture, a page and a command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.gallery import DOCS, PICTURES, Cell, Picture, bars, cell_of, cells

GALLERY = (DOCS / "gallery.md").read_text()
USES = re.split(r"^## ", GALLERY, flags=re.M)[1:]


@pytest.mark.parametrize(
    ("text", "cell"),
    {
        "84.6 ± 4.6": Cell(84.6, 4.6, (84.6,)),
        "67, 69, 74": Cell(70.0, 0.0, (67.0, 69.0, 74.0)),
        "4,095": Cell(4095.0, 0.0, (4095.0,)),
        "1,152.0 ± 43.4": Cell(1152.0, 43.4, (1152.0,)),
        ".0845 ± .0009": Cell(0.0845, 0.0009, (0.0845,)),
        "-0.0010 ± 0.0022": Cell(-0.001, 0.0022, (-0.001,)),
        "3.1% ± 0.4%": Cell(3.1, 0.4, (3.1,)),
    }.items(),
)
def test_cells_are_read(text: str, cell: Cell) -> None:
    assert cell_of(text) == cell


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_picture_has_its_table(picture: Picture) -> None:
    found = cells(picture)
    assert len(found) == len(picture.rows)
    assert any(called.startswith("*") for called in found)


def test_the_bars_are_those_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "| --- | ---: | ---: |"
    other = ["# A", "", "|  | y | x |", head, "| b | 1 | 1 |", "", "text"]
    table = ["# B", "", "|  | x | y |", head, "| a | 1 | **2 ± 3** |", "| b | 4 | 5, 7 |", ""]
    (tmp_path / "page.md").write_text("\n".join(other + table))
    monkeypatch.setattr("benchmarks.gallery.DOCS", tmp_path)
    picture = Picture("name", "page.md", "B", "y", {"b": "two", "a": "*one"}, "what")
    assert cells(picture) == {"two": Cell(6.0, 0.0, (5.0, 7.0)), "*one": Cell(2.0, 3.0, (2.0,))}
    bars(cells(picture), picture.title, tmp_path / "name.png")
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_are_small_and_none_is_left_over() -> None:
    shown = {*re.findall(r"\(gallery/([\w-]+)\.png\)", GALLERY)}
    files = {path.stem: path.stat().st_size for path in (DOCS / "gallery").iterdir()}
    assert files.keys() == shown
    assert {picture.name for picture in PICTURES} <= shown
    assert max(files.values()) <= 60_000


@pytest.mark.parametrize("use", USES, ids=lambda use: use.partition("\n")[0])
def test_a_use_has_a_picture_a_page_and_a_command(use: str) -> None:
    assert re.search(r"^!\[[^]]+\]\([\w/-]+\.png\)$", use, re.M)
    assert re.search(r"\]\([\w/-]+\.md(?:#[\w-]+)?\)", use)
    assert re.search(r"^Command: `[^`]+`", use, re.M)


def test_the_gallery_has_every_page_of_a_use_and_the_readme_every_use() -> None:
    assert {path.name for path in (DOCS / "uses").iterdir()} <= {*re.findall(r"\]\(uses/([\w-]+\.md)", GALLERY)}
    readme = (DOCS.parent / "README.md").read_text().partition("\n## Uses\n")[2].partition("\n## ")[0]
    linked = {*re.findall(r"\]\(docs/gallery\.md#([\w-]+)\)", readme)}
    parts = {re.sub(r"[^\w -]", "", use.partition("\n")[0].lower()).replace(" ", "-") for use in USES}
    assert parts == linked
