"""What it takes to open a store far away, and to say what it is: rounds of requests that wait for each other, and bytes."""

from __future__ import annotations

from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from softlabels.store import open_store, store_splits
from softlabels.store.digest import manifest_seal, store_digest
from softlabels.store.json_files import decode_json, pretty_json
from softlabels.store.records import Manifest
from softlabels.store.spec import Plan
from softlabels.stream import EmbeddedRows
from softlabels.stream.examples import join_examples
from softlabels.system import far, kept
from softlabels.system.far import FarFiles
from softlabels_stages import info
from tests.store.far import Counting, FarPath, away
from tests.stream.samples import CHUNK, rows_of, write_store

GOLDEN = Path(__file__).parent.parent / "store" / "golden"


class Rounds:
    """How often somebody waited for an answer. What was asked until then comes with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._asked: set[Future[Any]] = set()
        self._came: set[Future[Any]] = set()
        monkeypatch.setattr(far, "result_of", self._result_of)
        monkeypatch.setattr(kept, "Future", self._future)
        for name in ("stat", "entries"):
            monkeypatch.setattr(Counting, name, self._counted(getattr(Counting, name)))

    def _future(self) -> Future[Any]:
        self._asked.add(made := Future[Any]())
        return made

    def _result_of(self, future: Future[Any], what: str) -> Any:
        if future not in self._came:
            self.count += 1
            wait(self._asked)
            self._came |= self._asked
        return future.result()

    def _counted(self, act: Any) -> Any:
        def counted(*args: Any) -> Any:
            self.count += 1
            return act(*args)

        return counted


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(monkeypatch)


def many_shards(shards: int, rng: np.random.Generator) -> Counting:
    """Plan and manifest of a store of so many shards of 2**14 rows of a thousand classes; nobody asks for more."""
    there, change = away(GOLDEN / "v2-zarr", "plan.json", "manifest.json").folder, msgspec.structs.replace
    plan = decode_json(there.read("plan.json"), Plan, "plan")
    spec: Any = plan.spec
    spec = change(spec, cut=change(spec.cut, rows_per_shard=1 << 14, rows_per_chunk=512))
    spec = change(spec, transfer_set=change(spec.transfer_set, rows=shards << 14))
    plan = change(plan, spec=spec)
    hashes = tuple(rng.bytes(32).hex() for _ in range(shards))
    made = change(
        decode_json(there.read("manifest.json"), Manifest, "manifest"),
        spec=spec, payloads=hashes, commits=hashes, digest=store_digest(plan, hashes), bytes=shards << 25,
    )  # fmt: skip
    there.put("plan.json", pretty_json(plan))
    there.put("manifest.json", pretty_json(change(made, seal=manifest_seal(made))))
    return Counting(there)


def test_info_of_terabytes_reads_kilobytes(rng: np.random.Generator, rounds: Rounds) -> None:
    place = many_shards(1 << 12, rng)
    files = FarFiles(place)
    assert list(store_splits(files)) == ["train"]
    facts = info.describe(files)
    assert (facts["rows"], facts["shards_done"], facts["bytes"]) == (1 << 26, 1 << 12, 1 << 37)
    assert sorted({name for name, *_ in place.asked}) == ["manifest.json", "plan.json", "signatures.json"]
    read = sum(len(place.folder.read(name)) for name, *_ in place.asked if name in ("plan.json", "manifest.json"))
    assert read < 140 * (1 << 12) + 8192  # of a shard of 32 MiB its two digests
    assert rounds.count <= 2  # plan and manifest, signatures


def test_a_folder_of_splits_is_looked_at_in_a_few_rounds(rounds: Rounds) -> None:
    root = FarPath()
    for split in ("train", "test", "more", "rest"):
        store = GOLDEN / "v2-zarr"
        for name in ("plan.json", "manifest.json"):
            root.put(f"{split}/{name}", (store / name).read_bytes())
    place = Counting(root)
    assert list(store_splits(FarFiles(place))) == ["more", "rest", "test", "train"]
    assert rounds.count <= 3  # no store there; what lies there; what lies in each
    open_store(FarFiles(place), split="rest")


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
def test_rows_and_labels_meet_in_a_few_rounds(
    layout: str, tmp_path: Path, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "SMALL", 1 << 15)  # less than a file in the Arrow layout has
    monkeypatch.setattr(kept, "GAP", 48)
    numbers = np.arange(128 * CHUNK)
    write_store(tmp_path, numbers, layout=layout, chunks_a_shard=32, embed=True)
    place = away(tmp_path)
    join_examples(rows_of(numbers), open_store(FarFiles(place)))
    assert rounds.count <= 3  # plan and manifest, records, labels
    rounds.count = 0
    place.asked.clear()
    rows = EmbeddedRows(open_store(FarFiles(place)))
    join_examples(rows, rows.store)
    assert rounds.count <= 3
    if layout == "arrow":  # keys and labels lie side by side
        assert len([name for name, *_ in place.asked if name.endswith(".arrow")]) == 128
