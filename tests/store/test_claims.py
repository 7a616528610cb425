"""Claims: each shard is one worker's, a claim lapses by the waiter's own clock, and a wrong verdict costs double work alone."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import StrangePath
from softlabels.store import StoreWriter, claims, open_store, shard_writer
from softlabels.store.claims import SEALING, Claims, is_alone
from softlabels.store.paths import CLAIMS, LOCK, record_name
from softlabels.store.records import Manifest
from softlabels.store.verify import verify
from softlabels.system.patience import process_id, this_machine
from softlabels.system.places import folder_of
from softlabels.system.presence import Lock
from tests.store.places import AnyPath
from tests.store.samples import fill, make_spec, sample, write_store

LAPSE = 100.0


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(claims, "time", made)
    return made


def worker(path: AnyPath, lines: list[str] | None = None) -> Claims:
    return Claims(folder_of(path), lapse=LAPSE, say=[].append if lines is None else lines.append)


def record(path: AnyPath, shard: int) -> None:
    folder_of(path).put(record_name(shard), b"{}")


def test_each_shard_is_one_workers(tmp_path: AnyPath) -> None:
    first, second = worker(tmp_path), worker(tmp_path)
    mine, theirs = first.shards(range(5)), second.shards(range(5))
    assert [next(mine), next(theirs), next(mine)] == [0, 1, 2]
    assert {*second.others()} == {"0", "2"}
    for shard in range(3):
        record(tmp_path, shard)
    assert ([*theirs], [*mine]) == ([3, 4], [])
    assert not first.take("3")
    for each in (first, second):
        each.__exit__(None, None, None)
    assert folder_of(tmp_path).names(CLAIMS) == []
    assert [*worker(tmp_path).shards(range(5))] == [3, 4]


@pytest.mark.parametrize("turn", range(5))
def test_of_workers_that_come_at_once_one_gets_it(tmp_path: AnyPath, turn: int) -> None:
    workers = [worker(tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(lambda each: each.take(SEALING), workers)) == 1


def test_a_claim_that_does_not_change_lapses_and_one_worker_takes_it_over(tmp_path: AnyPath, clock: Clock) -> None:
    lines: list[str] = []
    dead, slow, waiter, other = (worker(tmp_path, lines) for _ in range(4))
    assert (next(dead.shards([7])), next(slow.shards([8]))) == (7, 8)
    for _ in range(19):  # the slow one gets on all the time
        assert [*waiter.shards([7, 8])] == [*other.shards([7, 8])] == lines == []
        clock.now += LAPSE / 20
        slow.beat()
    assert {*waiter.others()} == {"7", "8"}
    clock.now += LAPSE / 20
    with ThreadPoolExecutor(2) as pool:
        got = [*pool.map(lambda each: next(each.shards([7, 8]), None), (waiter, other))]
    assert sorted(got, key=str) == [7, None]
    [line] = lines
    assert line.startswith(f"shard 7: the claim of process {os.getpid()} on ")
    assert line.endswith(" has not changed for 100 s; taken over")
    dead.beat()
    dead.release("7")  # it was alive after all: the claim of its successor stands
    assert next(slow.shards([7]), None) is None


@pytest.mark.parametrize("done", [True, False])
def test_a_worker_that_took_over_leaves_no_claim_of_the_dead(tmp_path: AnyPath, clock: Clock, done: bool) -> None:
    """Neither of those before: who comes next waits for none of them again, and finds none of another machine."""
    assert next(worker(tmp_path).shards([0])) == 0
    for each in (worker(tmp_path), worker(tmp_path)):  # the first of them dies, too
        assert [*each.shards([0])] == []
        clock.now += LAPSE
        assert [*each.shards([0])] == [0]
    assert len(folder_of(tmp_path).names(CLAIMS)) == 3
    if done:
        record(tmp_path, 0)
        each.release_recorded()
    else:
        each.__exit__(None, None, None)
    assert folder_of(tmp_path).names(CLAIMS) == []
    assert [*worker(tmp_path).shards([0])] == ([] if done else [0])


def test_a_lapse_that_is_shorter_than_a_batch_is_told_once(tmp_path: AnyPath, clock: Clock) -> None:
    lines: list[str] = []
    slow = worker(tmp_path, lines)
    clock.now += 2 * LAPSE  # it loads a teacher
    assert next(slow.shards([0])) == 0
    for seconds, said in ((0.9, 0), (1.5, 1), (2.0, 1)):
        clock.now += seconds * LAPSE
        slow.beat()
        assert len(lines) == said
    words = "one step took 150 s, and after 100 s without one other workers count this one as dead: if it did not stand still"
    assert lines == [f"{words}, give all of them a longer lapse"]


def test_a_worker_that_was_not_looking_looks_before_it_decides(tmp_path: AnyPath, clock: Clock) -> None:
    busy, away = worker(tmp_path), worker(tmp_path)
    assert next(busy.shards([0])) == 0
    assert [*away.shards([0])] == []
    clock.now += 0.99 * LAPSE
    assert [*away.shards([0])] == []
    busy.beat()
    clock.now += 0.01 * LAPSE
    assert [*away.shards([0])] == []


def test_no_clock_of_another_machine_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year off, by `time` and by the times of the files."""
    first, second = worker(tmp_path), worker(tmp_path)
    assert next(first.shards([0])) == 0
    now = time.time()
    for year in (31_556_952, -31_556_952):
        monkeypatch.setattr(time, "time", lambda year=year: now + year)
        if isinstance(tmp_path, Path):
            for file in tmp_path.rglob("*"):
                os.utime(file, (file.stat().st_atime + year, file.stat().st_mtime + year))
        assert [*second.shards([0])] == []


def test_whoever_is_given_shards_minds_nobody(tmp_path: AnyPath) -> None:
    lines: list[str] = []
    first, second = worker(tmp_path), worker(tmp_path, lines)
    assert next(first.shards([0])) == 0
    assert next(second.shards([0], regardless=True)) == 0
    assert lines == []
    assert next(worker(tmp_path).shards([0]), None) is None


def test_a_shard_that_was_recorded_while_it_was_claimed_is_left(
    tmp_path: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = worker(tmp_path), worker(tmp_path)
    create = Claims._take

    def late(self: Claims, *arguments: object) -> bool:
        record(tmp_path, 0)  # its worker ends at this moment
        return create(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Claims, "_take", late)
    assert [*second.shards([0, 1])] == [1]
    assert next(first.shards([0]), None) is None
    assert second.release("1") is None
    assert folder_of(tmp_path).names(CLAIMS) == []


def test_names_of_strangers_are_no_claims(tmp_path: AnyPath) -> None:
    folder = folder_of(tmp_path)
    unseen = "\x1b[31m-0" if folder.sees_writers else "0-\u202e"  # no key holds a control character
    for name in ("0", "0-x", "-", f"0-{'9' * 40}", "1-²", "²-0", unseen, "٣-0"):
        folder.put(f"{CLAIMS}/{name}", b"\x1b[31m")
    assert worker(tmp_path).others() == {}
    assert next(worker(tmp_path).shards([0, 1])) == 0
    folder.put(f"{CLAIMS}/1-0", b"\x1b[31m\n")
    assert worker(tmp_path).others()["1"] == r"\x1b[31m"


@pytest.mark.on_disk("links")
def test_a_claim_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).mkdir(parents=True)
    (tmp_path / "watched").write_text("mine")
    (tmp_path / CLAIMS / "0-0").symlink_to(tmp_path / "watched")
    with pytest.raises(StrangePath, match="is a link"):
        next(worker(tmp_path).shards([0]))


@pytest.mark.on_disk("flushes")
def test_a_claim_flushes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    folder_of(tmp_path).make(CLAIMS)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    one = worker(tmp_path)
    assert next(one.shards([0])) == 0
    before = (tmp_path / CLAIMS / "0-0").read_bytes()
    clock.now += LAPSE
    one.beat()
    assert (tmp_path / CLAIMS / "0-0").read_bytes() != before
    assert flushed == []


def test_two_may_seal_at_once(tmp_path: AnyPath, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins to seal while the first has all but its manifest written, and ends before it."""
    data = sample(rng, 70, "zarr")
    spec = make_spec(data, "zarr")
    whole = write_store(tmp_path / "whole", data, spec).digest
    with StoreWriter(tmp_path / "store", spec) as first, StoreWriter(tmp_path / "store", spec) as second:
        fill(first, data)
        create, found = type(first.folder).create, []

        def halfway(self: object, name: str, content: bytes, **options: object) -> bool:
            if name == "manifest.json" and not found:
                found.append("")
                found[0] = second.seal().digest
            return create(self, name, content, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(type(first.folder), "create", halfway)
        assert [first.seal().digest, *found] == [whole, whole]
    assert verify(tmp_path / "store") == []
    assert open_store(tmp_path / "store").digest == whole


def test_a_worker_that_comes_too_late_ends_well(
    tmp_path: AnyPath, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard was taken over, written and sealed while it stood still."""
    data = sample(rng, 70, "zarr")
    spec, path, sealed = make_spec(data, "zarr"), tmp_path / "store", list[Manifest]()
    commit = shard_writer.commit  # type: ignore[attr-defined]

    def late(*arguments: object) -> bool:
        monkeypatch.setattr(shard_writer, "commit", commit)
        with StoreWriter(path, spec) as quick:
            fill(quick, data)
            sealed.append(quick.seal())
        return bool(commit(*arguments))

    with StoreWriter(path, spec) as writer:
        monkeypatch.setattr(shard_writer, "commit", late)
        fill(writer, data, [0])
        assert (writer.beaten, [writer.seal()]) == ([0], sealed)
    assert verify(path) == []


@pytest.mark.on_disk("locks")
def test_where_locks_end_at_each_machine_claims_tell_that_others_live(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of another machine, which its own lock says is alone, leaves what is staged, and the plan."""
    data = sample(rng, 70, "zarr")
    spec, path = make_spec(data, "zarr"), tmp_path / "store"
    monkeypatch.setattr(Lock, "alone", lambda self: True)
    with StoreWriter(path, spec) as writer, worker(path) as mine:
        assert next(mine.shards(writer.pending)) == 0
        commit, (name, boot) = shard_writer.commit, this_machine()  # type: ignore[attr-defined]

        def late(*arguments: object) -> bool:
            monkeypatch.setattr(shard_writer, "commit", commit)
            for machine, alone in (((name, "other"), True), (("other", boot), True), (("other", "other"), False)):
                monkeypatch.setattr(claims, "this_machine", lambda machine=machine: machine)
                assert is_alone(writer.folder, writer.folder.enter(LOCK)) is alone
            with StoreWriter(path, spec) as other:
                fill(other, data)
                other.seal()
            return bool(commit(*arguments))

        monkeypatch.setattr(shard_writer, "commit", late)
        fill(writer, data, [0])
        assert writer.beaten == [0]
    assert verify(path) == []


def test_the_claim_of_a_process_that_has_ended_lapses_at_once(
    tmp_path: AnyPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this machine; that of another one, of another container or of a process that is there may live."""
    ended = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(ended, 0)
    own, here, lines = process_id(), this_machine(), list[str]()
    gone = f"{ended}@{own.partition('@')[2]}"
    holders = [(here, gone), (("other", "other"), gone), (here, f"{ended}@pid:[1]"), (here, own), (here, "")]
    for shard, (machine, process) in enumerate(holders):
        with monkeypatch.context() as patch:
            patch.setattr(claims, "this_machine", lambda machine=machine: machine)
            patch.setattr(claims, "process_id", lambda process=process: process)
            assert worker(tmp_path).take(str(shard))
    waiting = worker(tmp_path, lines)
    assert [waiting.take(str(shard)) for shard in range(len(holders))] == [True, False, False, False, False]
    assert lines == [f"shard 0: process {os.getpid()} on {here[0]} has ended; taken over"]
