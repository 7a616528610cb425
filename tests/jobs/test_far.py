"""Stores that are read where they lie: on a real S3 server, on a web server and on a Hub, also where these misbehave."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import ConfigError, MissingShard, Replaced, SoftLabelsError, StorageError, StorePathError
from softlabels.jobs.share import push
from softlabels.store import Store, open_store, store_splits
from softlabels.store.verify import verify
from softlabels.stream import EmbeddedRows, Loader
from softlabels.system import urls
from softlabels.system.urls import depot_of
from softlabels_stages.__main__ import main
from tests.jobs import faulty
from tests.jobs import hub as fake
from tests.jobs.faulty import Faulty
from tests.jobs.ranges import RangeHandler
from tests.jobs.seaweed import SECRET, Server
from tests.loopback import serving
from tests.stages import toy

pytestmark = pytest.mark.filterwarnings("ignore:.*content=:DeprecationWarning")  # huggingface_hub's way with httpx
FAULTS = ("refuse", "500", "503", "404", "403", "302", "slow", "truncate", "stall", "less", "flip", "swap")
GOLDEN = Path(__file__).parent.parent / "store" / "golden"


@pytest.fixture
def proxy(s3: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """Between here and S3, for clients that wait for a second at most, and ask twice."""
    with faulty.running(s3_server.endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        monkeypatch.setattr(urls, "_READS", {"connect_timeout": "1s", "read_timeout": "400ms", "timeout": "1s"})
        monkeypatch.setattr(urls, "RETRIES", {"max_retries": 1})
        yield found


@pytest.fixture
def lying(made: Path, s3: str, proxy: Faulty) -> Faulty:
    """That proxy, with the store behind it."""
    push(made, s3)
    proxy.asked.clear()
    return proxy


def contents(store: Store) -> dict[str, np.ndarray]:
    return {name: store.column(name) for name in store.columns}


def same(store: Store, other: Store) -> bool:
    ours, theirs = contents(store), contents(other)
    return ours.keys() == theirs.keys() and all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_on_s3_it_is_the_store_that_it_is_here(made: Path, s3: str, lying: Faulty) -> None:
    found = open_store(f"{s3}/train")
    assert [method for method, _, _ in lying.asked] == ["GET", "GET"]  # plan and manifest
    assert found.digest == open_store(made / "train").digest
    assert str(found.path) == f"{s3}/train"
    assert list(store_splits(s3)) == ["test", "train"]
    lying.asked.clear()
    assert same(found, open_store(made / "train"))
    files = [path for _, path, _ in lying.asked]
    assert len(files) == len(set(files))  # of small files, each once
    assert verify(f"{s3}/train") == []
    twin = pickle.loads(pickle.dumps(found))
    assert same(twin, found)
    assert SECRET.encode() not in pickle.dumps(found)


def test_info_reads_kilobytes(made: Path, s3: str, lying: Faulty, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", f"{s3}/train"]) == 0
    assert f"store         {s3}/train (sealed)" in capsys.readouterr().out
    names = [path.rpartition("/")[2] for _, path, _ in lying.asked]
    assert sorted(names) == ["manifest.json", "plan.json", "signatures.json"]


EVERY = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SOME = ("v2-ragged-arrow", "v3-several-zarr")


@pytest.mark.parametrize(
    "name", [each if each in SOME else pytest.param(each, marks=pytest.mark.slow) for each in EVERY]
)
def test_every_format_is_read_there(name: str, s3: str) -> None:
    push(GOLDEN / name, s3)
    assert same(open_store(s3), open_store(GOLDEN / name))


def test_commands_take_an_address(made: Path, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    push(made, s3)
    assert main(["diff", s3, str(made)]) == 0
    capsys.readouterr()
    said = []
    for store in (str(made), s3):
        assert main(["evaluate", f"--store={store}"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


@pytest.mark.slow
def test_stores_are_made_of_one_far_away(made: Path, s3: str, tmp_path: Path) -> None:
    push(made, s3)
    assert main(["verify", s3, "--quick"]) == 0
    assert main(["convert", f"--from={s3}", f"--store={tmp_path / 'copy'}"]) == 0
    assert main(["select", s3, f"--out={tmp_path / 'few'}", "--rows=0:5", "--splits=train"]) == 0
    assert main(["encode", f"--from={s3}", f"--store={tmp_path / 'topk'}", "--k=2", "--tail=uniform"]) == 0
    assert open_store(tmp_path / "copy" / "train").content_digest == open_store(made / "train").content_digest


def test_a_store_that_is_replaced_in_mid_read(made: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabels.system.far.SMALL", 16)  # so that a file is more than one request
    push(made, s3)
    found = open_store(f"{s3}/train")
    found.read_chunk("logits", 0)
    name = "train/logits/c.0.0.0"
    depot_of(s3).put(name, (made / name).read_bytes()[:-1] + b"x")
    with pytest.raises(Replaced, match=rf"{name} was replaced, or deleted, .*; run the same command again"):
        found.column("logits")
    (shutil.copytree(made, made.parent / "again") / name).unlink()
    assert open_store(f"{s3}/train").digest == found.digest


def test_what_is_gone_is_named(made: Path, s3: str, lying: Faulty) -> None:
    lying.meddle = lambda method, path: "404" if "logits/c.1" in path else None
    with pytest.raises(MissingShard, match=rf"shard 1 is missing: {s3}/train/logits/c.1.0.0 is gone"):
        open_store(f"{s3}/train").column("logits")
    with pytest.raises(StorePathError, match=f"{s3}/nothing holds no store"):
        open_store(f"{s3}/nothing")


def test_a_redirect_is_not_followed(s3: str, lying: Faulty) -> None:
    lying.meddle = lambda method, path: "302" if "manifest" in path else None
    with pytest.raises(
        StorageError, match="the server redirects to another one, or to a file; give the address of the server"
    ):
        open_store(f"{s3}/train")


def trial(made: Path, address: str, proxy: Faulty, numbers: np.random.Generator) -> str:
    """Faults at random: the right rows, or an error of ours that says what it is about; which."""
    often = float(numbers.choice([0.05, 0.2, 0.5]))
    kinds = numbers.permutation(FAULTS)[: int(numbers.integers(1, 5))]

    def meddle(method: str, path: str) -> str | None:
        return str(numbers.choice(kinds)) if numbers.random() < often else None

    proxy.meddle, error = meddle, None
    try:
        values = contents(open_store(f"{address}/train"))
    except SoftLabelsError as found:
        error = found
    if error is not None:
        assert re.search(rf"{address}\S*|shard \d+", str(error)), error
        assert error.remedy
        assert SECRET not in str(error)
        return type(error).__name__
    here = contents(open_store(made / "train"))
    assert all(values[name].tobytes() == here[name].tobytes() for name in here)
    return "right"


def test_faults_give_right_rows_or_errors(made: Path, s3: str, lying: Faulty, rng: np.random.Generator) -> None:
    assert {trial(made, s3, lying, rng) for _ in range(6)}


@pytest.mark.slow
def test_many_faults(made: Path, s3: str, lying: Faulty, rng: np.random.Generator) -> None:
    outcomes = [trial(made, s3, lying, rng) for _ in range(50)]
    assert {"right", "StorageError"} < {*outcomes}


def test_a_web_server_that_serves_parts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(partial(RangeHandler, directory=str(made))) as address:
        assert [*store_splits(address)] == ["test", "train"]  # by the files that name them
        assert same(open_store(address, split="train"), open_store(made / "train"))
        assert verify(f"{address}/train") == []
        monkeypatch.setattr(RangeHandler, "whole", True)
        with pytest.raises(StorageError, match="the server gives no parts of files; pull the whole store"):
            open_store(f"{address}/train")


def test_on_the_hub(made: Path, hub: fake.FakeHub) -> None:
    address = "hf://datasets/team/digits"
    push(made, address)
    found = open_store(address, split="train")
    assert same(found, open_store(made / "train"))
    assert same(pickle.loads(pickle.dumps(found)), found)
    assert verify(f"{address}/train") == []
    hub.asked.clear()
    open_store(f"{address}/test")
    assert len(hub.asked) == 3  # which commit, plan, manifest
    with pytest.raises(StorePathError, match="digits/nothing holds no store"):
        open_store(f"{address}/nothing")


def test_a_snapshot_in_the_hubs_cache_names_pull(made: Path, tmp_path: Path) -> None:
    cache = tmp_path / "datasets--team--digits"
    shutil.copytree(made, cache / "blobs")
    snapshot = cache / "snapshots" / ("a" * 40)
    for path in [path for path in (cache / "blobs").rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(cache / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    with pytest.raises(SoftLabelsError, match="`softlabels pull hf://datasets/team/digits STORE`"):
        open_store(snapshot, split="train")


def test_a_forked_process_is_told(made: Path, s3: str) -> None:
    push(made / "train", s3)
    found = open_store(s3)
    context = multiprocessing.get_context("fork")
    there, here = context.Pipe()

    def read() -> None:
        try:
            found.column("label")
            there.send("read")
        except ConfigError as error:
            there.send(str(error))

    process = context.Process(target=read, daemon=True)
    process.start()
    assert here.poll(20)
    assert "multiprocessing_context='spawn'" in here.recv()
    process.join()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two splits that hold their inputs."""
    return toy.write_store(tmp_path_factory.mktemp("embedded") / "store", embed=True)


def test_a_loader_gives_the_same_batches(embedded: Path, s3: str, lying: Faulty) -> None:
    push(embedded, f"{s3}/embedded")
    passes = []
    for path in (f"{s3}/embedded/train", embedded / "train"):
        store = open_store(path)
        loader = Loader(EmbeddedRows(store), store, batch_size=16, seed=3, block=8)
        passes.append(list(loader.epoch(1)))
    for there, here in zip(*passes, strict=True):
        assert np.array_equal(there.rows, here.rows)
        assert there.inputs.equal(here.inputs)
        assert there.target.soft.log_probs(2.0).equal(here.target.soft.log_probs(2.0))


@pytest.mark.slow
def test_students_of_a_store_far_away_are_the_same(embedded: Path, s3: str, tmp_path: Path) -> None:
    push(embedded, s3)
    flags = ["--epochs=1", "--seeds=0", "--threads=1", "--student.class_path=softlabels.models.MLP"]
    flags += ["--student.init_args={inputs: 6, hidden: [4], classes: 5}"]
    for name, store in (("here", str(embedded)), ("there", s3)):
        assert main(["train-student", store, f"--out={tmp_path / name}", *flags]) == 0
        assert main(["evaluate", str(next((tmp_path / name).glob("distilled*")))]) == 0  # its run knows the address
    here, there = (next((tmp_path / name).glob("distilled*/*.safetensors")).read_bytes() for name in ("here", "there"))
    assert here == there


def test_what_lies_in_a_folder_is_asked_for_folder_by_folder(s3: str, proxy: Faulty) -> None:
    place = depot_of(s3)
    for name in (
        "a",
        "a-b/x",
        "a0/x",
        "b/c/d",
        "b/e",
        "train/p",
        "train-2/p",
        "train0",
        *(f"many/{n}" for n in range(30)),
    ):
        place.put(name, b"x")
    proxy.asked.clear()
    found = place.entries("")  # type: ignore[union-attr]
    folders = {"a-b", "a0", "b", "many", "train", "train-2"}
    assert found == {each: each in folders for each in ("a", "a-b", "a0", "b", "many", "train", "train-2", "train0")}
    assert len(proxy.asked) <= len(folders) + 2
