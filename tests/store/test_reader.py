"""What an opened store answers, and how it refuses."""

from __future__ import annotations

import pickle
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from softlabels.errors import ConfigError, MeanUnavailable, StorePathError, UnsealedStore, UserError
from softlabels.store import StoreWriter, open_store, store_splits
from softlabels.store.chunks import ChunkReader
from softlabels.store.json_files import decode_json, encode_json, read_json
from softlabels.store.records import Commit
from softlabels.system.places import folder_of
from tests.faults.writers import Child
from tests.labels.dense_reference import dense_columns
from tests.store.far import FarPath
from tests.store.places import in_memory
from tests.store.samples import KINDS, Sample, fill, make_spec, sample, write_store

kinds = pytest.mark.parametrize("kind", KINDS)


def softmax(z: np.ndarray) -> np.ndarray:
    parts = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(parts / parts.sum(axis=-1, keepdims=True))


@kinds
def test_rows_in_any_order(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = sample(rng, 100)
    store = write_store(tmp_path / "store", data, make_spec(data, kind))
    expected = data.stored()
    for rows in (rng.integers(0, 100, 300), np.array([99]), np.array([], np.int64), rng.permutation(100)):
        for name in store.columns:
            found = store.gather(name, rows)
            assert found.dtype == expected[name].dtype
            assert found.tobytes() == expected[name][rows].tobytes()
    for wrong in ([100], [-1], [3, 1000]):
        with pytest.raises(UserError, match="of a store of 100 rows; ask for rows 0 to 99"):
            store.gather("label", wrong)


@kinds
def test_keys_lead_to_their_first_row(
    tmp_path: Path, rng: np.random.Generator, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabels.store.key_index.AT_ONCE", 50)
    data = sample(rng, 120)
    data.keys[60:] = data.keys[rng.integers(0, 60, 60)]
    data.keys[10] = data.keys[110]
    data.keys[20, 8:] = data.keys[30, 8:]  # keys that share one half are other keys
    data.keys[21, :8] = data.keys[31, :8]
    data.keys[22, :8] = data.keys[31, :8]
    store = write_store(tmp_path / "store", data, make_spec(data, kind, embed=False), checked=True)
    first: dict[bytes, int] = {}
    for row, key in enumerate(data.keys):
        first.setdefault(key.tobytes(), row)
    strangers = rng.integers(0, 256, (20, 16), np.uint8)
    strangers[:5, :8] = data.keys[31, :8]
    asked = np.concatenate([data.keys, strangers])[rng.permutation(140)]
    found = store.find(asked)
    assert found.dtype == np.int64
    assert found.tolist() == [first.get(key.tobytes(), -1) for key in asked]
    assert store.find(np.zeros((0, 16), np.uint8)).tolist() == []
    edges = np.array([[0] * 16, [255] * 16], np.uint8)
    assert store.find(edges).tolist() == [first.get(key.tobytes(), -1) for key in edges]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 20.0])
@kinds
def test_distributions_of_rows(tmp_path: Path, rng: np.random.Generator, kind: str, temperature: float) -> None:
    data = sample(rng, 60, members=3)
    data.logits[~np.isfinite(data.logits)] = -30
    store = write_store(tmp_path / "store", data, make_spec(data, kind, weights=[1, 0, 3]))
    assert store.member_weights.tolist() == [0.25, 0, 0.75]
    rows = rng.integers(0, 60, 25)
    z = dense_columns(data.logits).logits[rows].astype(np.float64)
    arithmetic = 0.25 * softmax(z[:, 0] / temperature) + 0.75 * softmax(z[:, 2] / temperature)
    geometric = softmax((0.25 * z[:, 0] + 0.75 * z[:, 2]) / temperature)
    tempered = softmax(np.log(0.25 * softmax(z[:, 0]) + 0.75 * softmax(z[:, 2])) / temperature)
    for mean, expected in [("arithmetic", arithmetic), ("geometric", geometric), ("tempered", tempered)]:
        log_p = store.log_probs(rows, temperature=temperature, mean=mean)
        assert log_p.shape == (25, 7)
        assert np.allclose(np.exp(log_p), expected, rtol=1e-12)
    other = store.log_probs(rows, temperature=temperature, weights=[0, 2, 0])
    assert np.allclose(np.exp(other), softmax(z[:, 1] / temperature), rtol=1e-12)
    with pytest.raises(ConfigError, match="3 members need 3 finite weights"):
        store.log_probs(rows, temperature=temperature, weights=[1, 1])


def test_reduced_stores_refuse_what_they_cannot_give(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 20)
    store = write_store(tmp_path / "store", data, make_spec(data, reduce="geometric"))
    assert store.log_probs([0], temperature=2.0, mean="geometric").shape == (1, 7)
    for mean in ("arithmetic", "tempered"):
        with pytest.raises(MeanUnavailable, match=f"cannot give the {mean} mean"):
            store.log_probs([0], temperature=2.0, mean=mean)


@kinds
def test_threads_share_a_store(
    tmp_path: Path, rng: np.random.Generator, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More shards than files may be open, read by several threads at once."""
    monkeypatch.setattr(type(folder_of(tmp_path)), "most_files", lambda self: 2)
    data = sample(rng, 160)
    store = write_store(tmp_path / "store", data, make_spec(data, kind, rows_per_shard=16))
    expected, wrong = data.stored()["logits"], []

    def read(seed: int) -> None:
        own = np.random.default_rng(seed)
        for _ in range(15):
            rows = own.integers(0, 160, 20)
            try:
                if store.gather("logits", rows).tobytes() != expected[rows].tobytes():
                    wrong.append(seed)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.on_disk("another process sees no memory of this one")
def test_threads_that_read_a_first_record_together() -> None:
    """Seen to end in a segmentation fault of msgspec where each decodes by itself."""

    def read_together(kind: type, data: bytes) -> None:
        together = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            for found in [pool.submit(lambda: (together.wait(), decode_json(data, kind, "here"))) for _ in range(4)]:
                found.result()

    def work(acknowledge: object) -> None:
        sys.setswitchinterval(1e-6)
        for _ in range(100):
            inner = msgspec.defstruct("Inner", [(f"field{n}", int) for n in range(20)])
            kind = msgspec.defstruct("Outer", [("inner", inner), ("count", "int")])
            read_together(kind, encode_json(kind(inner(*range(20)), 3)))

    assert Child(work).go().end().code == 0


@pytest.mark.on_disk("another process sees no memory of this one")
def test_a_reader_can_be_sent_to_another_process(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 40)
    store = write_store(tmp_path / "store", data, make_spec(data))
    store.column("label")
    again = pickle.loads(pickle.dumps(store))  # by multiprocessing; stores themselves hold no pickle
    assert again.column("logits").tobytes() == data.stored()["logits"].tobytes()


@pytest.mark.parametrize(("check", "hashes"), [("first", 1), ("always", 3), ("never", 0)])
def test_how_often_a_chunk_is_checked(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, check: str, hashes: int
) -> None:
    data = sample(rng, 40)
    path = write_store(tmp_path / "store", data, make_spec(data)).path
    store = open_store(path, check=check)  # type: ignore[arg-type]
    store.read_chunk("label", 1)  # the shard's record is read
    checks: list[bool] = []
    read = ChunkReader.read

    def counting(self: ChunkReader, *args: object, check: bool = True, **options: bool) -> object:
        checks.append(check)
        return read(self, *args, check=check, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ChunkReader, "read", counting)
    for _ in range(3):
        store.read_chunk("logits", 2)
    assert sum(checks) == hashes
    with pytest.raises(UserError, match="choose first, always or never"):
        open_store(path, check="sometimes")  # type: ignore[arg-type]


def unfinished(path: Path, data: Sample) -> None:
    with StoreWriter(path, make_spec(data)) as writer:
        fill(writer, data, [0])


def test_paths_that_hold_no_sealed_store(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    far = isinstance(tmp_path, FarPath)  # where a folder is what names begin with
    with pytest.raises(StorePathError, match="file holds no store" if far else "file is a file; a store is a folder"):
        open_store(tmp_path / "file")
    words = "folder does not exist" if in_memory(tmp_path) and not far else "folder holds no store"
    with pytest.raises(StorePathError, match=words):
        open_store(tmp_path / "folder")
    (tmp_path / "folder" / "notes").write_text("x")
    with pytest.raises(StorePathError, match="folder holds no store"):
        open_store(tmp_path / "folder")
    with pytest.raises(StorePathError, match="nowhere holds no store" if far else "nowhere does not exist"):
        open_store(tmp_path / "nowhere")
    unfinished(tmp_path / "begun", sample(rng, 100))
    with pytest.raises(
        UnsealedStore, match=r"1 of 3 shards are committed and it has no manifest.json; run the command"
    ):
        open_store(tmp_path / "begun")


def test_a_root_of_splits_asks_which(tmp_path: Path, rng: np.random.Generator) -> None:
    for split in ("train", "test"):
        data = sample(rng, 20)
        write_store(tmp_path / split, data, make_spec(data, split=split))
    with pytest.raises(StorePathError, match="holds the splits test, train; choose one"):
        open_store(tmp_path)
    with pytest.raises(StorePathError, match="has no split 'val'; choose one of test, train"):
        open_store(tmp_path, split="val")
    assert open_store(tmp_path, split="test").spec.transfer_set.split == "test"
    assert list(store_splits(tmp_path / "test")) == ["test"]


@pytest.mark.on_disk("the system's handles")
def test_few_files_stay_open_where_few_may_be(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: 128 files of a store stayed open, whatever `ulimit -n` says."""
    data = sample(rng, 400)
    written = write_store(tmp_path / "store", data, make_spec(data, rows_per_shard=16))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    store, before = open_store(written.path), len(list(Path("/proc/self/fd").iterdir()))
    for name in store.columns:
        assert store.column(name).tobytes() == data.stored()[name].tobytes()
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 64 // 8


def test_records_are_kept_without_the_hashes_of_blocks_and_given_with_them(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = sample(rng, 120)
    store = write_store(tmp_path / "store", data, make_spec(data, "zarr"))
    for shard in range(store.spec.shards):
        name = f"commits/{shard:05}.json"
        for _ in range(2):
            assert store.payloads([shard])[shard].blocks == ()
            assert store.record(shard) == read_json(store.folder, name, Commit)
            assert store.payload(shard).blocks == store.record(shard).payload.blocks != ()
