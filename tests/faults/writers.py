"""Writers of small stores in processes of their own, to be killed, starved and raced, and what must stand on the disk after
it. They are forks of one warm interpreter, so that a death costs milliseconds. Imports no torch.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Self

import numpy as np

from softlabels.errors import SoftLabelsError
from softlabels.store import StoreWriter
from softlabels.store.basis import read_basis
from softlabels.store.digest import blake3_hex
from softlabels.store.json_files import read_json
from softlabels.store.paths import BASIS_FILE, record_name
from softlabels.store.records import Commit
from softlabels.store.spec import Plan, Spec
from softlabels.store.verify import verify
from softlabels.system.local import LocalFolder
from tests.store.samples import KINDS, SPARSE, TARGETS, Sample, assert_holds, fill, make_spec, sample, write_store

ROWS, SHARD = 16 * 7 + 3, 32
SEALED = -1
Acknowledge = Callable[[int], object]


@dataclass(frozen=True)
class Case:
    """Rows, and the digest and files of the store that a writer makes of them when nothing goes wrong."""

    kind: str
    data: Sample
    digest: str
    largest: int  # of its files
    size: int  # of all of them, in whole blocks
    seconds: float  # that writing it took

    @classmethod
    def make(cls, rng: np.random.Generator, folder: Path, *, kind: str = "", rows: int = ROWS) -> Self:
        """A case of some kind; its unbroken store is left in `folder`/whole."""
        kind = kind or str(rng.choice(KINDS + SPARSE + TARGETS))
        data = sample(rng, rows, kind)
        began = time.monotonic()
        store = write_store(folder / "whole", data, make_spec(data, kind, rows_per_shard=SHARD))
        seconds = time.monotonic() - began
        sizes = [file.stat().st_size for file in (folder / "whole").rglob("*") if file.is_file()]
        return cls(kind, data, store.digest, max(sizes), sum(-(-size // 4096) * 4096 for size in sizes), seconds)

    def with_data(self, data: Sample) -> Self:
        """The same for other distributions of the rows; digest and sizes stay those of the first."""
        return replace(self, data=data)

    @property
    def spec(self) -> Spec:
        return make_spec(self.data, self.kind, rows_per_shard=SHARD)

    def write(self, path: Path, acknowledge: Acknowledge, order: Sequence[int] | None = None) -> None:
        """Write what is pending, saying so after each shard and after sealing."""
        with StoreWriter(path, self.spec, basis=self.data.basis) as writer:
            for shard in writer.pending if order is None else order:
                if shard in writer.pending:
                    fill(writer, self.data, [shard])
                    acknowledge(shard)
            writer.seal()
            acknowledge(SEALED)

    def require_kept(
        self, path: Path, acknowledged: set[int], before: dict[str, tuple[int, int]] | None = None
    ) -> None:
        """After a death: acknowledged shards are there and right, nothing bad stands under a final name, and what was
        committed `before` was not written again.
        """
        problems = faults(path, self.spec.shards, acknowledged - {SEALED}, before or {})
        if SEALED in acknowledged:
            problems += [str(problem) for problem in verify(path)]
        assert not problems, "; ".join(problems[:4])

    def finish(self, path: Path) -> None:
        """The same command again, with nothing in its way: the store is the one that an unbroken run makes."""
        store = write_store(path, self.data, self.spec)
        problems = verify(path)
        assert not problems, "; ".join(map(str, problems[:4]))
        assert store.digest == self.digest, "another digest"
        assert_holds(store, self.data)


def visible(path: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file of committed shards."""
    return {
        name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in path.rglob("*")
        if file.is_file() and not (name := str(file.relative_to(path))).startswith(("staging/", "README.md"))
        if name.startswith("commits/") or file.suffix != ".json"
    }


def faults(path: Path, shards: int, acknowledged: set[int], before: dict[str, tuple[int, int]]) -> list[str]:
    """What is wrong with a store that somebody stopped writing."""
    found: list[str] = []
    expected: dict[str, str] = {}
    for shard in range(shards):
        if (path / record_name(shard)).exists():
            payload = read_json(LocalFolder(path), record_name(shard), Commit).payload
            expected |= {name: file.blake3 for name, file in payload.files.items()}
            if shard in acknowledged:
                found += [f"shard {shard}: {name} is gone" for name in payload.files if not (path / name).exists()]
        elif shard in acknowledged:
            found.append(f"acknowledged shard {shard} is gone")
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if file.is_file() and not name.startswith(("staging/", "README.md")):
            found += _file_faults(path, name, expected)
    now = visible(path)
    return found + [f"{name} was written again" for name in before if name in now and now[name] != before[name]]


def _file_faults(path: Path, name: str, expected: dict[str, str]) -> list[str]:
    data = (path / name).read_bytes()
    if name.endswith(".json"):
        try:
            json.loads(data)
        except ValueError:
            return [f"{name} is visible and no JSON ({len(data)} bytes)"]
    elif name == BASIS_FILE:  # there before the plan is, and whole
        if (path / "plan.json").exists():
            read_basis(LocalFolder(path), read_json(LocalFolder(path), "plan.json", Plan).spec)
    elif name not in expected:
        return [f"{name} is visible but not recorded"]
    elif blake3_hex(data) != expected[name]:
        return [f"{name} is visible and wrong ({len(data)} bytes)"]
    return []


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (negative: the signal that killed it), what it acknowledged, and its last words."""

    code: int
    acknowledged: set[int]
    error: str


class Child:
    """A forked process that does `work(acknowledge)` once it is told to go, and ends with the exit code that `work` returns,
    if any. An error of ours is its exit code and last words; any other error is exit code 1.
    """

    def __init__(self, work: Callable[[Acknowledge], int | None]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.acknowledged: set[int] = set()
        self.error = ""
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            _work(work, theirs)
        theirs.close()

    def go(self) -> Self:
        self._ours.send(b"go")
        return self

    def lasts(self, seconds: float) -> bool:
        """Listen for so long; whether it is still alive then."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._ours.settimeout(left)
            try:
                said = self._ours.recv(4096)
            except TimeoutError:
                return True
            except ConnectionResetError:  # it died before it heard us
                return False
            if not said:
                return False
            word = json.loads(said)
            if isinstance(word, int):
                self.acknowledged.add(word)
            else:
                self.error = word
        return True

    def says(self, words: int) -> bool:
        """Listen until it has acknowledged so many; whether it is still alive then."""
        while len(self.acknowledged) < words:
            if not self.lasts(0.001):
                return False
        return True

    def end(self, seconds: float = 120.0) -> Ended:
        """How it ends by itself; a child that lasts longer is killed."""
        if self.lasts(seconds):
            return self.kill()
        return self._ended()

    def kill(self) -> Ended:
        """Kill it with SIGKILL; what it said before that counts."""
        os.kill(self.pid, signal.SIGKILL)
        self.lasts(60.0)
        return self._ended()

    def _ended(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        self._ours.close()
        return Ended(os.waitstatus_to_exitcode(status), self.acknowledged, self.error)


def _work(work: Callable[[Acknowledge], int | None], channel: socket.socket) -> NoReturn:
    code = 1
    try:
        if channel.recv(8):
            code = work(lambda shard: channel.send(json.dumps(shard).encode())) or 0
    except SoftLabelsError as error:
        channel.send(json.dumps(str(error)[:2000]).encode())
        code = error.exit_code
    except BaseException:
        channel.send(json.dumps(traceback.format_exc()[-2000:]).encode())
    finally:  # whatever happens, it must not go on as its parent
        os._exit(code)
