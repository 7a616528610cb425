"""The documentation as a site (docs/conf.py): every page and docstring is well formed, and every link has an end. `make docs` builds
it in full; here its pages are read, and written and run in the slow test alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_code_blocks import PAGES, ROOT

SPHINX = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-c", "docs")


def built(builder: str, out: Path, *more: str) -> str:
    """What a build of the site says: nothing, where all is well."""
    command = [*SPHINX, "-b", builder, "-d", str(out / "doctrees"), *more, ".", str(out / "site")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr


def test_pages_and_docstrings_are_well_formed(tmp_path: Path) -> None:
    assert built("dummy", tmp_path) == ""


@pytest.mark.slow
def test_the_site_is_whole_and_the_tutorial_runs(tmp_path: Path) -> None:
    assert built("html", tmp_path, "-D", "nb_execution_mode=force") == ""
    site = tmp_path / "site"
    for page in PAGES:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file(), page
    assert (site / "index.html").read_text() == (site / "README.html").read_text()
    tutorial, names = ((site / "docs" / f"{page}.html").read_text() for page in ("tutorial", "api"))
    assert 'id="softlabels.open_store"' in names
    assert len(re.findall(r"errors of 500, by seed", tutorial)) > 4  # the cell and what it printed
    assert re.search(r"<img [^>]*src=\"\.\./_images/[0-9a-f]+\.png\"", tutorial)
