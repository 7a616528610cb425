"""A plan's page as a file."""

from __future__ import annotations

from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.jobs.page_files import require_place
from softlabels.pages.bundle import vega_bundle
from softlabels.pages.plan import plan_page
from softlabels.report.plan import Plan
from softlabels.system.local import write_atomically


def require_page(out: str | Path) -> None:
    """What is better known before a pilot than after it. Raises `MissingExtra` where no page can be made, `ConfigError` where
    `out` cannot be a file, or is one of another kind.
    """
    vega_bundle()
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        what = f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigError(
            f"the page cannot be written: {what}", remedy="give the path of a file in a folder that exists"
        )
    require_place(path)


def write_page(plan: Plan, out: str | Path) -> None:
    """Write it; one that stood at `out` is replaced. Raises `MissingExtra`; `DiskFull`, `StorageError` of the disk."""
    write_atomically(Path(out), plan_page(plan).encode())
