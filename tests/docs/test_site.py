"""The documentation as a site (docs/conf.py): every page is well formed, and each of its links has an end. The slow test builds
it as `make docs` does, with docstrings and the tutorial's cells run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_code_blocks import PAGES, ROOT

SPHINX = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-c", "docs")


def build(builder: str, out: Path, *more: str) -> None:
    """Build the site below `out`. A warning is an error."""
    command = [*SPHINX, "-b", builder, "-d", str(out / "doctrees"), *more, ".", str(out / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # `make docs`, which continuous integration runs, does it too
def test_pages_are_well_formed(tmp_path: Path) -> None:
    build("dummy", tmp_path, "-t", "pages")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_whole_and_the_tutorial_runs(tmp_path: Path) -> None:
    build("html", tmp_path, "-D", "nb_execution_mode=force")
    site = tmp_path / "site"
    for page in PAGES:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file(), page
    assert (site / "index.html").read_text() == (site / "README.html").read_text()
    tutorial, names = ((site / "docs" / f"{page}.html").read_text() for page in ("tutorial", "api"))
    assert 'id="softlabels.open_store"' in names
    assert len(re.findall(r"errors of 500, by seed", tutorial)) > 4  # the cell and what it printed
    assert re.search(r"<img [^>]*src=\"\.\./_images/[0-9a-f]+\.png\"", tutorial)
