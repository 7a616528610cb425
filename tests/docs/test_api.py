"""The page of names: it lists what `softlabels` holds, and the examples of its docstrings run, one after the other, behind the
block of code at its top.
"""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from pydoc import locate

import pytest

import softlabels
from softlabels.errors import SoftLabelsError
from softlabels_stages.commands import COMMANDS
from softlabels_stages.recipe import SECTIONS
from tests.docs.test_code_blocks import ROOT, blocks

PAGE = (ROOT / "docs" / "api.md").read_text()
NAMES = re.findall(r"^- `(softlabels\.[\w.]+)`$", PAGE, re.M)


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
    return name.count(".") == 1 and callable(thing) and (not is_error or thing is SoftLabelsError)


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    before: dict[str, object] = {}
    for _, code, _ in blocks(PAGE):
        exec(compile(code, "api.md", "exec"), before)
    runner = doctest.DocTestRunner(verbose=False)
    without = []
    for name in NAMES:
        found = doctest.DocTestParser().get_doctest(inspect.getdoc(locate(name)) or "", {**before}, name, None, None)
        if not found.examples and needs_example(name):
            without.append(name)
        runner.run(found)
    assert without == []
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out


def test_the_page_of_recipes_has_every_section_and_command() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    sections, commands = page.split("## Commands")
    assert re.findall(r"^\| `(\w+)` \|", sections, re.M) == [*SECTIONS]
    named = re.findall(r"`([a-z-]+)`", commands[commands.index("| ---") :])
    assert sorted(named) == sorted(COMMANDS)
