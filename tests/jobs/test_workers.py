"""Several workers on one store, as a Python user calls them: shards shared, taken over, given out; one plan; who seals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from unittest import mock

import pytest
import torch

from softlabels import (
    Ensemble,
    LabelsConfig,
    Shards,
    UnsealedStore,
    encode,
    errors,
    label,
    label_shards,
    load_transfer_set,
    open_store,
    seal,
)
from softlabels.jobs import on_ray
from softlabels.jobs.filling import Filling
from softlabels.jobs.stores import Stores
from softlabels.jobs.watch import Watch
from softlabels.store.commit import recorded_shards
from softlabels.store.paths import CLAIMS, LOCK
from softlabels.store.shard_writer import ShardWriter
from softlabels.store.verify import verify
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Folder, Presence
from softlabels.system.local import local_folder
from softlabels.system.places import Place
from softlabels.teacher.config import MemberConfig, TeacherConfig
from softlabels.transfer import TransferRows
from tests.jobs.test_jobs import ROWS, models, work
from tests.system.memory import MemoryFolder

__all__ = ["work"]  # the working folder, of every test
DENSE = LabelsConfig(rows_per_shard=32, rows_per_chunk=16)
TOPK = replace(DENSE, encoding="topk", k=2, rank=2)
SHARDS = {"train": 5, "test": 3}
BOTH = pytest.mark.parametrize("labels", [DENSE, TOPK], ids=["dense", "topk"])
Rows = list[TransferRows]
ELSEWHERE = b"process 1 on another\nanother\nanother start\nid\n0\n"


@pytest.fixture
def rows(work: Path) -> Rows:
    return [load_transfer_set(ROWS, split) for split in SHARDS]


@pytest.fixture
def store() -> MemoryFolder:
    """Where no flush takes time."""
    return MemoryFolder()


@cache
def whole(labels: LabelsConfig) -> dict[str, str]:
    """The digests of what one worker makes alone."""
    store = MemoryFolder()
    label([load_transfer_set(ROWS, split) for split in SHARDS], ensemble(), labels, store)
    return digests(store)


def ensemble(count: int = 2) -> Ensemble:
    return Ensemble.of(models()[:count], name="two", device="cpu", batch_size=16)


def digests(store: Place) -> dict[str, str]:
    return {split: open_store(store, split=split).digest for split in SHARDS}


@contextmanager
def written() -> Iterator[list[tuple[str, int]]]:
    """The shards that are computed to their end, by split."""
    found, commit = list[tuple[str, int]](), ShardWriter.commit

    def telling(self: ShardWriter, *arguments: object) -> bool:
        found.append((self._folder.name, self._shard))
        return commit(self, *arguments)  # type: ignore[arg-type]

    with mock.patch.object(ShardWriter, "commit", telling):
        yield found


def at_batch(number: int, call: Callable[[], object]) -> Callable[[], bool]:
    """A `should_stop` that does something before a batch."""
    asked = iter(range(1000))

    def should_stop() -> bool:
        if next(asked) == number:
            call()
        return False

    return should_stop


def everything() -> list[tuple[str, int]]:
    return sorted((split, shard) for split, many in SHARDS.items() for shard in range(many))


def test_a_worker_alone_does_all_and_leaves_nothing(rows: Rows) -> None:
    with written() as found:
        label(rows, ensemble(), DENSE, "store")
    assert found == [(split, shard) for split, many in SHARDS.items() for shard in range(many)]
    assert [path for split in SHARDS for path in Path("store", split).glob("staging/**")] == []


def test_a_shard_whose_worker_stands_still_is_taken_over_and_stored_once(rows: Rows) -> None:
    slow, quick = list[str](), list[str]()
    other = partial(label, rows, ensemble(), DENSE, "store", shards=Shards(lapse=0.3), watch=Watch(say=quick.append))
    with written() as found:
        label(rows, ensemble(), DENSE, "store", watch=Watch(say=slow.append, should_stop=at_batch(0, other)))
    assert digests("store") == whole(DENSE)
    assert sorted(found) == sorted([*everything(), ("train", 0)])
    [takes] = [line for line in quick if "taken" in line]
    assert takes.startswith("train: shard 0: the claim of process ")
    assert "train: another worker had recorded 1 shard (0) first: computed twice, stored once" in slow
    assert all(verify(f"store/{split}") == [] for split in SHARDS)
    assert [path for split in SHARDS for path in Path("store", split).glob("staging/**")] == []


def test_a_worker_that_seals_claims_no_shard_and_beats(rows: Rows, store: MemoryFolder) -> None:
    """Who sees the sealed store then, on another machine, is alone, and removes what is staged."""
    found, beats, seal_of = list[list[str]](), list[str](), StoreWriter.seal

    def sealing(self: StoreWriter, *, beat: Callable[[], object]) -> object:
        found.append(self.folder.names(CLAIMS))
        return seal_of(self, beat=lambda: (beat(), beats.append(self.folder.name)))

    with mock.patch.object(StoreWriter, "seal", sealing):
        label(rows, ensemble(), DENSE, store)
    assert found == [["seal-0"]] * 2
    assert min(map(beats.count, SHARDS)) > 2 * min(SHARDS.values())  # a record each, chunks, and the placing


def test_a_worker_that_waits_can_be_stopped(rows: Rows, store: MemoryFolder) -> None:
    lines: list[str] = []
    watch = Watch(say=lines.append, should_stop=lambda: any("waiting" in line for line in lines))

    def other() -> None:
        with pytest.raises(errors.Interrupted, match="stopped with 1 of 5 shards left in memory:/train; run the same"):
            label(rows, ensemble(), DENSE, store, watch=watch)
        assert store.names(f"train/{CLAIMS}") == ["0-0"]
        [said] = [line for line in lines if line.startswith("waiting for shards of other workers: train 0 (process ")]
        assert said.endswith("; a worker whose claim has not changed for 600 s counts as dead")

    with written() as found:
        label(rows, ensemble(), DENSE, store, watch=Watch(should_stop=at_batch(0, other)))
    assert sorted(found) == everything()


@BOTH
def test_each_part_is_done_by_one_and_the_last_seals(rows: Rows, labels: LabelsConfig, store: MemoryFolder) -> None:
    lines: list[str] = []
    with written() as found:
        for number in (2, 1, 2, 3):
            part = Shards.of(f"{number}/3")
            made = label(rows, ensemble(), labels, store, shards=part, watch=Watch(say=lines.append))
            assert sorted(made) == (["test", "train"] if number == 3 else [])
    assert sorted(found) == everything()
    assert [line.partition("; the")[0] for line in lines if "missing" in line][:3] == [
        "train: this part is done; of 5 shards 3 are missing (0, 2, 3, of parts 1/3, 3/3)",
        "test: this part is done; of 3 shards 2 are missing (0, 1, of parts 1/3, 3/3)",
        "train: this part is done; of 5 shards 1 is missing (2, of parts 3/3)",
    ]
    assert digests(store) == whole(labels)


def test_more_parts_than_shards(rows: Rows, store: MemoryFolder) -> None:
    lines: list[str] = []
    for number in (9, 1, *range(2, 9)):
        part = Shards.of(f"{number}/9")
        label(rows, ensemble(), DENSE, store, shards=part, watch=Watch(say=lines.append))
    said = [line.partition("; ")[0] for line in lines if " missing (" in line]
    assert said[:4] == [
        "train: this part has no shards",
        "test: this part has no shards",
        "train: this part is done",
        "test: this part has no shards",
    ]
    assert digests(store) == whole(DENSE)


def test_a_part_minds_no_claim_of_its_predecessor(rows: Rows, store: MemoryFolder) -> None:
    """As of a job's task that is given again while others live."""
    with alive(store.within("train")):
        store.put(f"train/{CLAIMS}/0-0", b"a dead one")
        for number in (1, 2):
            label(rows, ensemble(), DENSE, store, shards=Shards.of(f"{number}/2"))
    assert digests(store) == whole(DENSE)


def test_an_engine_gives_out_shards(rows: Rows, store: MemoryFolder) -> None:
    given = partial(label_shards, rows, ensemble(), DENSE, store)
    with written() as found:
        for shards in ({"train": [3, 1]}, {"train": range(4), "test": [2]}, {}):
            assert given(shards) == {}
        assert sorted(found) == [("test", 2), *(("train", shard) for shard in range(4))]
        with pytest.raises(UnsealedStore, match="train still lacks shards 4; write them, then seal"):
            seal(store, ("train", "test"))
        given({split: range(many) for split, many in SHARDS.items()})
    assert sorted(found) == everything()
    assert digests(store) == whole(DENSE) == {split: each.digest for split, each in seal(store).items()}
    with pytest.raises(errors.UserError, match="train has no shard 5; count shards from 0; train has 5, test has 3"):
        given({"train": [5]})
    with pytest.raises(errors.UserError, match="dev has no shard 0"):
        given({"dev": [0]})


def test_what_is_whole_is_sealed_without_a_teacher(rows: Rows, store: MemoryFolder) -> None:
    full = errors.DiskFull("full", remedy="make room")
    with mock.patch.object(StoreWriter, "seal", side_effect=full), pytest.raises(errors.DiskFull):
        label(rows, ensemble(), DENSE, store)  # at the end of the first split
    with pytest.raises(UnsealedStore, match="test still lacks shards 0, 1, 2"):
        seal(store, ("train", "test"))
    assert open_store(store, split="train").digest == whole(DENSE)["train"]
    for where, splits in ((store, ("dev",)), (MemoryFolder(), ())):
        with pytest.raises(errors.UserError, match=r"there is no store at .*; run teacher-logits first"):
            seal(where, splits)


@pytest.mark.parametrize("text", ["5/4", "0/4", "4", "1/0", "a/b", "1/4/2", "-1/4", "", "1/ 4"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"--shards=.*; give i/n with i from 1 to n, such as --shards=1/8"):
        Shards.of(text)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_lapse_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(errors.ConfigError, match=r"lapse is .*; give a number of seconds above 0"):
        Shards(lapse=seconds)


@BOTH
def test_workers_with_other_weights_or_another_recipe_are_refused(
    rows: Rows, labels: LabelsConfig, store: MemoryFolder
) -> None:
    """At the first batch of a worker, which goes on."""
    turned = models()
    with torch.no_grad():
        next(turned[0].parameters()).add_(1)

    def others() -> None:
        with pytest.raises(errors.OtherWeights, match=r"teacher\.members\[0\]\.weights"):
            label(rows, Ensemble.of(turned, name="two", device="cpu", batch_size=16), labels, store)
        with pytest.raises(errors.SpecMismatch, match=r"cut\.rows_per_shard: 32 here, 64 in this run"):
            label(rows, ensemble(), replace(labels, rows_per_shard=64), store)

    label(rows, ensemble(), labels, store, watch=Watch(should_stop=at_batch(0, others)))
    assert digests(store) == whole(labels)


def test_one_worker_makes_the_plan_and_the_other_waits_for_it(rows: Rows, store: MemoryFolder) -> None:
    lines, planned, waits = list[str](), list[str](), threading.Event()
    find = Stores._found_basis

    def say(line: str) -> None:
        lines.append(line)
        waits.set()

    second = threading.Thread(target=lambda: label(rows, ensemble(), TOPK, store, watch=Watch(say=say)))

    def slow(self: Stores[TransferRows], *arguments: Callable[[], object]) -> object:
        planned.append("")
        second.start()
        assert waits.wait(60)
        return find(self, *arguments)

    with mock.patch.object(Stores, "_found_basis", slow), written() as found:
        label(rows, ensemble(), TOPK, store)
        second.join()
    assert lines[0].startswith(
        "waiting for the plan of memory:/train, which another worker is making; a worker whose claim"
    )
    assert (len(planned), sorted(found)) == (1, everything())
    assert digests(store) == whole(TOPK)


def test_what_a_dead_planner_left_is_nobodys(rows: Rows, store: MemoryFolder) -> None:
    """Its claim, its plan and its basis, of another recipe: nobody waits for it, and nothing of it is used."""
    full = errors.DiskFull("full", remedy="make room")
    with mock.patch.object(Filling, "run", side_effect=full), pytest.raises(errors.DiskFull):
        label(rows, ensemble(1), TOPK, store)
    store.put(f"train/{CLAIMS}/plan-0", b"a dead one")
    assert store.exists("train/plan.json")
    label(rows, ensemble(), TOPK, store)
    assert digests(store) == whole(TOPK)


def test_a_worker_that_waits_for_the_plan_can_be_stopped(rows: Rows, store: MemoryFolder) -> None:
    with alive(store.within("train")):
        store.put(f"train/{CLAIMS}/plan-0", b"one that lives")
        with pytest.raises(errors.Interrupted, match="stopped before memory:/train was planned; run the same command"):
            label(rows, ensemble(), TOPK, store, watch=Watch(should_stop=lambda: True))


@contextmanager
def alive(store: Folder) -> Iterator[None]:
    """Another live writer in a store."""
    mark = store.enter(LOCK)
    mark.share()
    yield
    mark.close()


class Blind(MemoryFolder):
    """A place that cannot tell who is at work in it, as an object store."""

    def busy(self, lock: str) -> bool:
        return True

    def enter(self, lock: str) -> Presence:  # type: ignore[override]
        return mock.Mock(alone=lambda: False)


@BOTH
def test_a_place_that_cannot_tell_who_is_alone(rows: Rows, labels: LabelsConfig) -> None:
    """Claims of the dead lapse there, and are taken over."""
    store, lines = Blind(), list[str]()
    for name in ("plan-0", "2-0"):
        store.put(f"train/{CLAIMS}/{name}", b"a dead one")
    with written() as found:
        label(rows, ensemble(), labels, store, shards=Shards(lapse=0.2), watch=Watch(say=lines.append))
    assert digests(store) == whole(labels)
    assert sorted(found) == everything()
    taken = [line.partition(":")[2] for line in lines if line.endswith("taken over")]
    words = "the claim of a dead one has not changed for 0.2 s; taken over"
    assert taken == [f" plan: {words}"] * (labels is TOPK) + [f" shard 2: {words}"]


@BOTH
def test_what_a_worker_of_another_machine_left_before_its_first_shard_was_done(
    rows: Rows, labels: LabelsConfig, store: MemoryFolder
) -> None:
    """It was killed, and starts again elsewhere: its plan is used, and its claim lapses."""
    full = errors.DiskFull("full", remedy="make room")
    with mock.patch.object(Filling, "run", side_effect=full), pytest.raises(errors.DiskFull):
        label(rows, ensemble(), labels, store)
    store.put(f"train/{CLAIMS}/0-0", ELSEWHERE)
    assert store.exists("train/plan.json")
    lines: list[str] = []
    watch = Watch(say=lines.append, should_stop=lambda: "waiting for the plan" in lines[-1])
    label(rows, ensemble(), labels, store, shards=Shards(lapse=0.2), watch=watch)
    assert digests(store) == whole(labels)


def test_encode_shares_its_shards_too(rows: Rows, store: MemoryFolder) -> None:
    label(rows, ensemble(), DENSE, store.within("dense"))
    lines: list[str] = []
    watch = Watch(say=lines.append, should_stop=lambda: any("waiting" in line for line in lines))

    def other() -> None:
        with pytest.raises(errors.Interrupted):
            encode(store.within("dense"), store.within("topk"), TOPK, watch=watch)
        assert any("workers: test 0 (process " in line for line in lines)

    with written() as found:
        encode(store.within("dense"), store.within("topk"), TOPK, watch=Watch(should_stop=at_batch(0, other)))
    assert sorted(found) == [("test", 0), ("train", 0)]


def test_an_actor_of_an_engine_is_a_live_writer_until_it_ends(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who comes next is alone, and sweeps what this one stages."""
    monkeypatch.setattr(on_ray, "load_ensemble", lambda config: ensemble())
    teacher = TeacherConfig(members=(MemberConfig("softlabels.models.MLP"),))
    actor = on_ray._Labeller(on_ray.Pass(ROWS, teacher, DENSE, "store", str(work)))
    assert local_folder(work / "store/train").busy(LOCK)
    actor({"split": ["train"], "shard": [3]})
    assert recorded_shards(local_folder(work / "store/train")) == {3}
