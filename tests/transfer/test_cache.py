"""The cache of prepared rows: another process deletes what it holds, or its meta.json is damaged."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from softlabels.system.local import LocalFolder
from softlabels.transfer import cache
from softlabels.transfer.cache import META, Entry, FileRecord, NpyFile, cached
from softlabels.transfer.cache_entries import cache_entries, recorded_entries

INPUTS = np.arange(12).reshape(4, 3)


def fill(folder: Path) -> tuple[list[FileRecord], dict[str, Any]]:
    with NpyFile(folder / "inputs.npy", rows=4) as file:
        file.append(INPUTS)
        return [file.finish()], {"missing": 0}


def test_rows_that_are_deleted_as_soon_as_their_lock_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = cache.lock

    @contextmanager
    def lock(root: LocalFolder, name: str, progress: Callable[[], object]) -> Iterator[None]:
        with own(root, name, progress):
            yield
        shutil.rmtree(root.at(name.removesuffix(".lock")))

    monkeypatch.setattr(cache, "lock", lock)
    entry = cached(tmp_path, {"seed": 1}, fill, about={}, is_current=lambda arrays: True)
    assert np.array_equal(entry.arrays["inputs"], INPUTS)
    assert entry.facts == {"missing": 0}


@pytest.mark.parametrize(
    "meta",
    ["[" * 100_000, "[]", '{"identity": {"seed": 1}, "about": [], "facts": []}', '{"identity": {"rows": "many"}}'],
    ids=["nested", "list", "parts", "rows"],
)
def test_a_damaged_entry_is_listed_and_made_again(tmp_path: Path, meta: str) -> None:
    def get() -> Entry:
        return cached(tmp_path, {"seed": 1}, fill, about={"split": "train"}, is_current=lambda arrays: True)

    get()
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    (folder / META).write_text(meta)
    [listed] = cache_entries(tmp_path)
    assert (listed.rows, listed.split, list(recorded_entries(tmp_path))) == (None, "", [])
    assert np.array_equal(get().arrays["inputs"], INPUTS)
    assert [entry["about"] for entry in recorded_entries(tmp_path)] == [{"split": "train"}]


def npy(array: np.ndarray) -> bytes:
    np.save(file := io.BytesIO(), array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "forged", [b"", b"hello", npy(np.array([{}])), npy(INPUTS)[:-8]], ids=["empty", "text", "object", "cut"]
)
def test_an_entry_that_somebody_else_wrote_is_made_again(tmp_path: Path, forged: bytes) -> None:
    """Its meta.json vouches for bytes that are no array."""

    def get() -> Entry:
        return cached(tmp_path, {"seed": 1}, fill, about={}, is_current=lambda arrays: True)

    get()
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    (folder / "inputs.npy").write_bytes(forged)
    meta = json.loads((folder / META).read_text())
    meta["files"] = [{"name": "inputs.npy", "bytes": len(forged), "blake3": blake3(forged).hexdigest()}]
    (folder / META).write_text(json.dumps(meta))
    assert np.array_equal(get().arrays["inputs"], INPUTS)
