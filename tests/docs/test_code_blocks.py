"""Every code block of README and docs runs. The blocks of a page run in order, in one namespace and one empty folder (with the
project's `data` in it): ```python blocks are executed; the lines of ```sh blocks are given to a shell, but for those that begin
with `softlabels`, which run in this process, to save the seconds that a new one takes to begin. Behind such a line
`# exit code 4` says with what it ends. A block that cannot run here says why in a comment right above it:
`<!-- not run here: the reason -->`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from softlabels_stages.__main__ import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run here: (?P<reason>[^>]+?) -->\n)?^```(?P<kind>\w*|\{code-cell\})\n(?P<code>.*?)^```$", re.M | re.S
)
QUOTED = r"'[^']*'|\"[^\"]*\""
LINE = re.compile(rf"(?:{QUOTED}|\\\n|[^\n])+")
EXIT = re.compile(r"#.* exit code (\d+)")
RUN = ("python", "sh")
PLAIN = ("", "text", "yaml", "json")  # shown, not run
CELL = "{code-cell}"  # of a page that the site runs as it is built, see test_site.py


def blocks(text: str) -> list[tuple[str, str, str | None]]:
    return [(match["kind"], match["code"], match["reason"]) for match in BLOCK.finditer(text)]


def test_blocks_are_found_and_reasons_too() -> None:
    text = "a\n```python\nx = 1\n```\n<!-- not run here: no network -->\n```sh\ncurl\n```\n"
    assert blocks(text) == [("python", "x = 1\n", None), ("sh", "curl\n", "no network")]


def pieces(code: str) -> list[str]:
    """The commands of ours in a block, each by itself, and what stands between them."""
    found: list[str] = []
    for line in LINE.findall(code):
        if line.startswith("softlabels ") or not found or found[-1].startswith("softlabels "):
            found.append(line)
        else:
            found[-1] += f"\n{line}"
    return found


def test_commands_of_ours_are_found() -> None:
    code = "softlabels a \\\n  b\ncat > c <<END\n'd\nsoftlabels e'\nEND\nsoftlabels f\n"
    assert pieces(code) == ["softlabels a \\\n  b", "cat > c <<END\n'd\nsoftlabels e'\nEND", "softlabels f"]


def run(code: str) -> None:
    for piece in pieces(code):
        if piece.startswith("softlabels "):
            expected = EXIT.search(piece)
            words = shlex.split(piece.replace("\\\n", ""), comments=True)
            assert main(words[1:]) == int(expected[1] if expected else 0), piece
        else:
            done = subprocess.run(["sh", "-euc", piece], capture_output=True, text=True)
            assert done.returncode == 0, f"{piece}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shells_change_no_word_of_a_command(page: Path) -> None:
    """zsh takes [8] without quotes for the name of a file, and runs nothing where there is none."""
    for kind, code, _ in blocks(page.read_text()):
        for piece in pieces(code) if kind == "sh" else ():
            bare = re.sub(rf"{QUOTED}|#.*|<<.*", "", piece, flags=re.S)
            assert not set(bare) & set("[]{}*?~"), piece


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").symlink_to(ROOT / "data")
    namespace: dict[str, object] = {"__name__": "__page__"}
    for kind, code, reason in blocks(page.read_text()):
        assert kind in (*RUN, *PLAIN, CELL), f"a block of kind {kind!r} is neither run nor plain"
        if kind not in RUN or reason:
            continue
        if kind == "python":
            exec(compile(code, str(page), "exec"), namespace)
        else:
            run(code)
