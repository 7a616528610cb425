"""A plan's page as a file."""

from __future__ import annotations

from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.pages.bundle import vega_bundle
from softlabels.pages.plan import plan_page
from softlabels.report.plan import Plan
from softlabels.system.local import write_atomically


def require_page(out: str | Path) -> None:
    """Raise `MissingExtra` or ConfigError where no page can be made at `out`: better before a pilot than after it."""
    vega_bundle()
    if Path(out).is_dir():
        raise ConfigError(f"page is {out}, which is a folder", remedy="name a file, such as plan.html")


def write_page(plan: Plan, out: str | Path) -> None:
    """Write it; what stood at `out` is replaced. Raises `MissingExtra`; `DiskFull`, `StorageError` of the disk."""
    write_atomically(Path(out), plan_page(plan).encode())
