"""The page of names: it lists what `softlabels` holds, and the examples of its docstrings run, one after the other, behind the
block of code at its top.
"""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from pydoc import locate

import pytest

import softlabels
from softlabels.errors import SoftLabelsError
from softlabels_stages.commands import COMMANDS
from softlabels_stages.recipe import SECTIONS
from tests.docs.test_code_blocks import PAGES, ROOT, blocks

PAGE = (ROOT / "docs" / "api.md").read_text()
NAMES = re.findall(r"^- `(softlabels\.[\w.]+)`$", PAGE, re.M)
# Their examples take seconds; tests/pages and a block of docs/uses/prune.md call both.
SLOW = {"softlabels.jobs.report.report", "softlabels.jobs.prune.prune"}
# Pages that are not about calling anything from Python, and rooms whose names are for a recipe or for messages.
OTHER_PAGES = {"architecture.md", "changelog.md", "contributing.md", "api.md"}
OTHER_ROOMS = ("softlabels.recipes.", "softlabels.errors.")


def test_the_page_has_every_name_once() -> None:
    assert sorted(name for name in NAMES if name.count(".") == 1) == [
        f"softlabels.{name}" for name in softlabels.__all__
    ]
    assert len({*NAMES}) == len(NAMES)
    assert [name for name in NAMES if locate(name) is None] == []


def needs_example(name: str) -> bool:
    """Functions and classes; of the errors their base has one for all."""
    thing = locate(name)
    is_error = inspect.isclass(thing) and issubclass(thing, SoftLabelsError)
    return callable(thing) and (not is_error or thing is SoftLabelsError)


def test_the_page_has_what_other_pages_call() -> None:
    """What they import, and what they name by its path, as a recipe does."""
    named = set[str]()
    for page in PAGES:
        if page.name not in OTHER_PAGES and page.parent.name != "decisions":
            text = page.read_text()
            named |= {*re.findall(r"\bsoftlabels(?:\.\w+){2,}", text)}
            for module, found in re.findall(r"^from (softlabels\.[\w.]+) import ([\w, ]+)", text, re.M):
                named |= {f"{module}.{name}" for name in found.split(", ")}
    called = {name: locate(name) for name in named if not name.startswith(OTHER_ROOMS)}
    listed = [locate(name) for name in NAMES]
    assert sorted(name for name, thing in called.items() if callable(thing) and thing not in listed) == []


@pytest.mark.parametrize("names", [NAMES, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["most", "slow"])
def test_examples_run(
    names: Collection[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOFTLABELS_REPORT", "0")  # of runs: tests/pages makes them
    before: dict[str, object] = {}
    for _, code, _ in blocks(PAGE):
        exec(compile(code, "api.md", "exec"), before)
    runner = doctest.DocTestRunner(verbose=False)
    without = []
    for name in names:
        found = doctest.DocTestParser().get_doctest(inspect.getdoc(locate(name)) or "", {**before}, name, None, None)
        if not found.examples and needs_example(name):
            without.append(name)
        if names is SLOW or name not in SLOW:
            runner.run(found)
    assert without == []
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out


def test_the_page_of_recipes_has_every_section_and_command() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    sections, commands = page.split("## Commands")
    assert re.findall(r"^\| `(\w+)` \|", sections, re.M) == [*SECTIONS]
    named = re.findall(r"`([a-z-]+)`", commands[commands.index("| ---") :])
    assert sorted(named) == sorted(COMMANDS)
