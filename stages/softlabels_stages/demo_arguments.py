"""What `softlabels demo` takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demo:
    """Arguments of demo."""

    out: str = "softlabels-demo"  # the folder for recipe, data, runs and stores
