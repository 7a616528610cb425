"""Every code block of README and docs runs. The blocks of a page run in order, in one namespace and one empty folder (with the
project's `data` in it): ```python blocks are executed, ```sh blocks are given to a shell, in which `softlabels` is this
checkout's. A block that cannot run here says why in a comment right above it: `<!-- not run here: the reason -->`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run here: (?P<reason>[^>]+?) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
RUN = ("python", "sh")
PLAIN = ("", "text", "yaml", "json")  # shown, not run


def blocks(text: str) -> list[tuple[str, str, str | None]]:
    return [(match["kind"], match["code"], match["reason"]) for match in BLOCK.finditer(text)]


def test_blocks_are_found_and_reasons_too() -> None:
    text = "a\n```python\nx = 1\n```\n<!-- not run here: no network -->\n```sh\ncurl\n```\n"
    assert blocks(text) == [("python", "x = 1\n", None), ("sh", "curl\n", "no network")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").symlink_to(ROOT / "data")
    namespace: dict[str, object] = {"__name__": "__page__"}
    for kind, code, reason in blocks(page.read_text()):
        assert kind in RUN + PLAIN, f"a block of kind {kind!r} is neither run nor plain"
        if kind not in RUN or reason:
            continue
        if kind == "python":
            exec(compile(code, str(page), "exec"), namespace)
        else:
            done = subprocess.run(["sh", "-euc", code], capture_output=True, text=True)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
