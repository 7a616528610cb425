"""Promise 9: the same plan gives the same store, byte for byte, whatever the order in which its shards are written, how often
the writing is broken off, by how many processes and on which machine it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from softlabels.store import StoreWriter, writer
from softlabels.store.digest import blake3_hex, manifest_seal
from softlabels.store.json_files import read_json
from softlabels.store.records import Commit, Manifest
from softlabels.store.spec import Plan
from softlabels.system.local import LocalFolder
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Outcome, Trial, repeated
from tests.faults.writers import Acknowledge, Case, Child
from tests.store.samples import fill


def broken_off(count: int, seed: int) -> Outcome:
    return repeated(count, seed, partial(_again, lambda: None))


def broken_off_and_remembered(seed: int) -> Outcome:
    return repeated(5, seed, partial(_again, with_the_run_in_the_digest))


def _again(prepare: Callable[[], None], rng: np.random.Generator) -> None:
    """A store written a few shards at a time, by one to three processes at once that stop by themselves or are killed."""
    with scratch() as folder:
        case, path, whole = Case.make(rng, Path(folder)), Path(folder) / "store", Path(folder) / "unbroken"
        for _ in range(int(rng.integers(1, 4))):
            machines = range(int(rng.integers(1, 4)))
            children = [Child(_some_shards(case, path, rng, machine)).go() for machine in machines]
            for child in children:
                ended = child.kill() if child.lasts(float(rng.uniform(0, case.seconds * 2))) else child.end()
                assert ended.code in (0, -9), ended.error
        for place in (path, whole):
            ended = Child(partial(_finish, prepare, case, place, rng.permutation(case.spec.shards).tolist())).go().end()
            assert ended.code == 0, ended.error
        found, expected = (read_json(LocalFolder(place), "manifest.json", Manifest) for place in (path, whole))
        assert found.digest == expected.digest, "another digest"
        assert found.content_digest == expected.content_digest, "another content digest"
        assert _bytes(path) == _bytes(whole), "other bytes"


def _some_shards(case: Case, path: Path, rng: np.random.Generator, machine: int) -> partial[None]:
    order = rng.permutation(case.spec.shards)[: int(rng.integers(1, case.spec.shards))].tolist()
    return partial(_write, case, path, order, {"machine": str(machine)})


def _write(case: Case, path: Path, order: list[int], environment: dict[str, str], acknowledge: Acknowledge) -> None:
    with StoreWriter(path, case.spec, basis=case.data.basis, environment=environment) as some:
        for shard in order:
            if shard in some.pending:
                fill(some, case.data, [shard])
                acknowledge(shard)


def _finish(prepare: Callable[[], None], case: Case, path: Path, order: list[int], acknowledge: Acknowledge) -> None:
    prepare()
    case.write(path, acknowledge, order)


def _bytes(path: Path) -> dict[str, bytes]:
    """Every file but those that name write ids and machines."""
    return {
        name: file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not (name := str(file.relative_to(path))).startswith(("commits/", "staging/", "manifest"))
    }


def with_the_run_in_the_digest() -> None:
    """Take the defence away, in this process: the digest covers the whole commit records."""
    make = writer.make_manifest  # type: ignore[attr-defined]

    def remembering(plan: Plan, records: list[Commit], commits: tuple[str, ...]) -> Manifest:
        found: Manifest = make(plan, records, commits)
        found = msgspec.structs.replace(found, digest=blake3_hex("".join(commits).encode()), seal="")
        return msgspec.structs.replace(found, seal=manifest_seal(found))

    writer.make_manifest = remembering  # type: ignore[attr-defined]


TRIALS = (
    Trial(
        promise=9,
        what="a store written in parts, by several processes, in other orders, with kills",
        count=100,
        quick=2,
        run=partial(apart, broken_off),
        control=partial(apart, broken_off_and_remembered),
        control_what="the digest covers write ids and machines",
        slow=True,
    ),
)
