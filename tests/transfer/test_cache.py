"""The cache of prepared rows and another process that deletes what it holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels.system.folder import Folder
from softlabels.transfer import cache
from softlabels.transfer.cache import FileRecord, NpyFile, cached

INPUTS = np.arange(12).reshape(4, 3)


def fill(folder: Path) -> tuple[list[FileRecord], dict[str, Any]]:
    with NpyFile(folder / "inputs.npy", rows=4) as file:
        file.append(INPUTS)
        return [file.finish()], {"missing": 0}


def test_rows_that_are_deleted_as_soon_as_their_lock_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = cache.lock

    @contextmanager
    def lock(root: Folder, name: str, life: Callable[[], object]) -> Iterator[None]:
        with own(root, name, life):
            yield
        shutil.rmtree(root.at(name.removesuffix(".lock")))

    monkeypatch.setattr(cache, "lock", lock)
    entry = cached(tmp_path, {"seed": 1}, fill, about={}, is_current=lambda arrays: True)
    assert np.array_equal(entry.arrays["inputs"], INPUTS)
    assert entry.facts == {"missing": 0}
