from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from softlabels.store import Store
from tests.stream.samples import write_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """`write_store` into a folder of its own."""
    number = itertools.count()
    return lambda numbers, **options: write_store(tmp_path / str(next(number)), numbers, **options)
