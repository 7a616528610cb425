"""Links between the pages: each names a file that is there, and every page is found by following them from the README."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.test_code_blocks import PAGES, ROOT

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)[^)]*\)")
PART = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


def links(page: Path) -> list[Path]:
    """The files that a page's relative links name."""
    return [Path(os.path.normpath(page.parent / name)) for name in LINK.findall(CODE.sub("", page.read_text()))]


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](one.md) ![b](two.png)\n[c](https://x.org/three) [d](four.md#part)\n```\n[e](five)\n```\n")
    assert [path.name for path in links(page)] == ["one.md", "two.png", "four.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_name_files_that_are_there(page: Path) -> None:
    assert [str(path.relative_to(ROOT)) for path in links(page) if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_parts_that_links_name_are_there(page: Path) -> None:
    for name, part in PART.findall(CODE.sub("", page.read_text())):
        target = page.parent / name if name else page
        assert target.suffix != ".md" or part in headings(target), f"{name}#{part}"


def headings(page: Path) -> set[str]:
    """What links call them: lower case, without marks, with hyphens for blanks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^#+ (.+)$", text, re.M)}


def test_every_page_is_found_from_the_readme() -> None:
    found, new = set[Path](), {ROOT / "README.md"}
    while new:
        found |= new
        new = {path for page in new for path in links(page) if path.suffix == ".md" and path.is_file()} - found
    assert sorted(str(page.relative_to(ROOT)) for page in set(PAGES) - found) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert not name or f"def {name}(" in (ROOT / file).read_text(), name
        assert (ROOT / file).is_file()
