"""Which worker is at which shard of a store, so that workers who fill it together share its shards.

A claim decides nothing, the commit record does: where a claim is wrong about who is alive, a shard is computed twice and the
first record wins. A claim is a file in staging, `claims/<what>-<turn>`, whose name only one worker can give. It says who that
is, and holds a beat, a count that rises while the worker gets on. Who finds another's claim remembers when, on its own
monotonic clock, it last saw it change. Unchanged for `lapse` seconds it has lapsed, and the next turn may be claimed; of
several workers one gets it. So no clock but one's own is read. That of a process that has ended lapses at once for whoever runs
on the same machine. Claims are swept with staging by a writer that is alone.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from softlabels.errors import StorageError, StrangePath, one_line
from softlabels.store.paths import CLAIMS, STAGING, record_name
from softlabels.system.files import Folder, Presence
from softlabels.system.patience import has_ended, process_id, this_machine, this_process

LAPSE = 600.0
PLANNING, SEALING = "plan", "seal"  # what is claimed beside shards
_BEATS, _LOOKS = 10, 20  # a claim changes so often in the time of a lapse, and is looked at at most so often
_MOST = 1024  # bytes of a claim
_NAME = re.compile(rf"(\d{{1,9}}|{PLANNING}|{SEALING})-(\d{{1,9}})", re.ASCII)


class _Seen(NamedTuple):
    """What a claim held, since when, and when that was last looked at."""

    data: bytes
    since: float
    looked: float


class Claims:
    """The claims of one worker on the shards of one store. `lapse`: seconds after which another's that has not changed is that
    of a dead worker.

    ::

        with Claims(folder) as claims:
            for shard in claims.shards(writer.pending):
                ...  # compute it, calling claims.beat(), and commit it
    """

    def __init__(
        self, store: Folder, *, lapse: float = LAPSE, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self._store, self.lapse, self._say = store, lapse, say
        self._who = "\n".join([this_process(), *this_machine(), f"{process_id()} {uuid.uuid4().hex}"])
        self._held: dict[str, list[str]] = {}  # by what is claimed its files: of whom it was taken over, last its own
        self._seen: dict[str, _Seen] = {}  # of others, by file
        self._beats, self._last_beat, self._is_slow = 0, time.monotonic(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A worker that ends in order leaves no claim."""
        for what in tuple(self._held):
            self.release(what)

    def shards(self, wanted: Iterable[int], *, regardless: bool = False) -> Iterator[int]:
        """One after the other of these shards, claimed: the first that has no record and that no live worker is at when it is
        asked for. `regardless` of other workers, where somebody else sees to it that each has its own.
        """
        left = sorted(wanted)
        while (shard := self._next(left, regardless)) is not None:
            yield shard

    def _next(self, left: list[int], regardless: bool) -> int | None:
        self.release_recorded()
        standing = self._standing()
        for shard in tuple(left):
            if not self._is_recorded(shard) and not self._take(str(shard), standing, regardless):
                continue  # another worker's; it may lapse
            left.remove(shard)
            if not self._is_recorded(shard):  # once more: its worker may have ended since
                return shard
            self.release(str(shard))
        return None

    def take(self, what: str) -> bool:
        """Claim one thing; False where a live worker has."""
        return self._take(what, self._standing(), regardless=False)

    def _take(self, what: str, standing: dict[str, list[int]], regardless: bool) -> bool:
        if what in self._held:
            return True
        turns = standing.get(what, [])
        turn = turns[-1] if turns else -1
        lapsed = turn >= 0 and (regardless or self._has_lapsed(_file(what, turn)))
        if turn >= 0 and not lapsed:
            return False
        name = _file(what, turn + 1)
        if not self._store.create(name, self._data(), staged=_staged(), durable=False):
            return False
        if not self._held:
            self._last_beat = time.monotonic()
        self._held[what] = [*(_file(what, earlier) for earlier in turns), name]
        if lapsed and not regardless:
            title = f"shard {what}" if what.isdigit() else what
            holder, ended = self.holder(what, turn), _is_of_the_dead(self._seen[_file(what, turn)].data)
            why = f"{holder} has ended" if ended else f"the claim of {holder} has not changed for {self.lapse:g} s"
            self._say(f"{title}: {why}; taken over")
        return True

    def release(self, what: str) -> None:
        """Claim it no longer, nor let the dead do so from whom it was taken over."""
        for name in self._held.pop(what, []):
            with suppress(StorageError, StrangePath):  # nothing depends on it
                self._store.remove(name)

    def release_recorded(self) -> None:
        """Claim no shard that is done."""
        for what in [what for what in self._held if what.isdigit() and self._is_recorded(int(what))]:
            self.release(what)

    def beat(self) -> None:
        """Say that this worker gets on: to be called often, does something seldom."""
        now = time.monotonic()
        if (since := now - self._last_beat) < self.lapse / _BEATS:
            return
        if since >= self.lapse and not self._is_slow:
            self._is_slow = True
            self._say(
                f"one step took {since:,.3g} s, and after {self.lapse:g} s without one other workers count this one as dead: "
                "if it did not stand still, give all of them a longer lapse"
            )
        self._last_beat, self._beats = now, self._beats + 1
        for *_, name in self._held.values():
            self._store.put(name, self._data(), staged=_staged(), durable=False)

    def others(self) -> dict[str, str]:
        """Who is at what that is not recorded, of the other workers that are not known to be dead."""
        return {
            what: self.holder(what, turn)
            for what, (*_, turn) in self._standing().items()
            if what not in self._held and not (what.isdigit() and self._is_recorded(int(what)))
            if not self._has_lapsed(_file(what, turn))
        }

    @property
    def until_lapse(self) -> str:
        """Words on when others whose claims stand count as dead."""
        return f"a worker whose claim has not changed for {self.lapse:g} s counts as dead"

    def holder(self, what: str, turn: int) -> str:
        """Who claimed it, in words."""
        seen = self._seen.get(_file(what, turn))
        return one_line((seen.data if seen else b"").decode(errors="replace").partition("\n")[0]) or "another worker"

    def _data(self) -> bytes:
        return f"{self._who}\n{self._beats}\n".encode()

    def _is_recorded(self, shard: int) -> bool:
        with suppress(FileNotFoundError):
            return self._store.size(record_name(shard)) >= 0
        return False

    def _standing(self) -> dict[str, list[int]]:
        """The turns of everything that is claimed, in order; the last one counts."""
        found: dict[str, list[int]] = {}
        for name in self._store.names(CLAIMS):
            if given := _NAME.fullmatch(name):
                found.setdefault(given[1], []).append(int(given[2]))
        for turns in found.values():
            turns.sort()
        latest = {_file(what, turns[-1]) for what, turns in found.items()}
        self._seen = {name: seen for name, seen in self._seen.items() if name in latest}
        return found

    def _has_lapsed(self, name: str) -> bool:
        """Whether a claim, which is looked at now and then, has not changed for too long."""
        now, seen = time.monotonic(), self._seen.get(name)
        if seen is None or now - seen.looked >= self.lapse / _LOOKS or now - seen.since >= self.lapse:
            data = b""
            with suppress(FileNotFoundError):  # released at this moment
                data = self._store.read(name, _MOST)
            since = now if seen is None or seen.data != data else seen.since
            seen = self._seen[name] = _Seen(data, since, now)
        return now - seen.since >= self.lapse or _is_of_the_dead(seen.data)


def _is_of_the_dead(data: bytes) -> bool:
    """Whether a claim is that of a process of this machine that has ended."""
    lines = data.decode(errors="replace").split("\n")
    return len(lines) > 3 and (lines[1], lines[2]) == this_machine() and has_ended(lines[3].partition(" ")[0])


def is_alone(store: Folder, presence: Presence) -> bool:
    """`Presence.alone`, and no other machine claims anything: the locks of some network file systems end at each machine."""
    return presence.alone() and not is_claimed_elsewhere(store)


def is_claimed_elsewhere(store: Folder) -> bool:
    """Whether another machine claims anything; its worker may be dead."""
    return any(claimants_elsewhere(store))


def claimants_elsewhere(store: Folder) -> Iterator[str]:
    """Who claims anything, in words, of whom no lock tells: on another machine, by its name and the start of its kernel;
    anywhere, where a place knows of nobody.
    """
    for name in store.names(CLAIMS):
        with suppress(FileNotFoundError, StorageError, StrangePath):
            data = store.read(f"{CLAIMS}/{name}", _MOST)
            lines = data.decode(errors="replace").split("\n")
            elsewhere = len(lines) > 3 and lines[1] != this_machine()[0] and lines[2] != this_machine()[1]
            if elsewhere or not (store.sees_writers or _is_of_the_dead(data)):
                yield one_line(lines[0]) or "another worker"


def _file(what: str, turn: int) -> str:
    return f"{CLAIMS}/{what}-{turn}"


def _staged() -> str:
    return f"{STAGING}/{uuid.uuid4().hex}.file"
