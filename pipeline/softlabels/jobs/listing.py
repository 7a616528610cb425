"""Which stores lie at an address: of each what its plan and manifest say, without its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from softlabels.errors import DamagedManifest, LaterFormat, StorePathError, one_line
from softlabels.jobs.share import Address, splits_there
from softlabels.store.json_files import read_json
from softlabels.store.paths import MANIFEST, PLAN, SET_ASIDE
from softlabels.store.records import Manifest
from softlabels.store.seal import check_manifest
from softlabels.store.signatures import read_signatures
from softlabels.store.spec import Plan, Spec
from softlabels.system.depots import Depot
from softlabels.system.urls import depot_of

LEAST = 8  # digits of a digest


@dataclass(frozen=True)
class Found:
    """A store: where, what it is, and its manifest; None while it is unfinished. `signed_by`: who signed it, or so it says."""

    where: str
    spec: Spec
    manifest: Manifest | None
    signed_by: tuple[str, ...] = ()

    def is_of(self, teacher: str | None, data: str | None) -> bool:
        """Whether a member of its teacher has weights of this digest, and it is of this transfer set; by the first digits."""
        members, rows = self.spec.teacher.members, self.spec.transfer_set
        return (teacher is None or any(member.weights.startswith(teacher) for member in members)) and (
            data is None or data == rows.name or (len(data) >= LEAST and rows.content_keys.startswith(data))
        )


def stores_at(address: Address) -> Iterator[Found | DamagedManifest | LaterFormat]:
    """The stores at an address and in the folders below it, or the error of one that cannot be read. A web server
    lists nothing: there it is the store itself, or the splits that a folder of stores names.

    Raises:
        StorePathError: there is none. StorageError: the place refuses, or its listing does not end.
    """
    there = depot_of(address)
    found = False
    for store in _folders(there):
        found = True
        try:
            yield _look(store)
        except (DamagedManifest, LaterFormat) as error:
            yield error
    if not found:
        raise StorePathError(f"{there} holds no store", remedy="check the address")


def _folders(there: Depot) -> Iterator[Depot]:
    if not there.lists:
        yield from splits_there(there, None).values()
        return
    for name in there.list():
        folder, _, last = name.rpartition("/")
        if last == PLAN and SET_ASIDE not in folder.split("/"):
            yield there.within(folder) if folder else there


def _look(store: Depot) -> Found:
    plan = read_json(store, PLAN, Plan)
    try:
        manifest = read_json(store, MANIFEST, Manifest)
    except FileNotFoundError:
        return Found(one_line(store, None), plan.spec, None)
    check_manifest(manifest, str(store.at(MANIFEST)))
    if manifest.spec != plan.spec:
        raise DamagedManifest(f"{store.at(MANIFEST)} and {PLAN} do not agree", remedy="verify it")
    return Found(one_line(store, None), manifest.spec, manifest, tuple(each.key for each in read_signatures(store)))
