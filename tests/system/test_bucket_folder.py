"""Folders of an object store, where answers are lost, servers lack requests, and other workers come in between."""

from __future__ import annotations

from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from softlabels.errors import StorageError
from softlabels.store.repair import _new_aside
from softlabels.system.bucket_folder import BucketFolder
from tests.store.bucket import objects

LOCK = "staging/lock"


def test_a_copy_whose_answer_is_lost_may_be_of_a_file_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, copy = objects(), obstore.copy
    folder.put("staging/file", b"data")

    def lost(client: Any, *names: str) -> None:
        copy(client, *names)
        folder.remove("staging/file")  # another writer has placed it
        raise GenericError("no answer")

    monkeypatch.setattr(obstore, "copy", lost)
    folder.place({"staging/file": "file"})
    assert folder.read("file") == b"data"


def test_a_copy_that_is_refused_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = objects()
    folder.put("staging/file", b"data")

    def refuse(client: Any, *names: str) -> None:
        raise GenericError("refused")

    monkeypatch.setattr(obstore, "copy", refuse)
    with pytest.raises(StorageError, match="copy"):
        folder.place({"staging/file": "file"})
    monkeypatch.setattr("softlabels.system.bucket_folder.MOST_COPIED", 3)
    folder.place({"staging/file": "file"})
    assert folder.read("file") == b"data"
    assert folder.names() == ["file"]


def test_a_server_that_removes_one_object_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, delete = objects(), obstore.delete
    staged = {f"staging/{number}": f"placed/{number}" for number in range(3)}
    for name in staged:
        folder.put(name, b"data")

    def one(client: Any, names: list[str]) -> None:
        if len(names) > 1:
            raise GenericError("no such request")
        delete(client, names)

    monkeypatch.setattr(obstore, "delete", one)
    folder.place(staged)
    assert folder.names() == ["placed"]
    folder.clear("placed")
    assert folder.names() == []


@pytest.mark.parametrize("after", ["create", "read"])
def test_staging_that_is_removed_while_a_server_is_tried(after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker seals the store."""
    before, times = getattr(BucketFolder, after), iter(range(99))

    def act(self: BucketFolder, *args: Any, **more: Any) -> Any:
        if after == "read" and next(times) == 0:
            self.clear("staging")
        found = before(self, *args, **more)
        if after == "create" and next(times) == 0:
            self.clear("staging")
        return found

    monkeypatch.setattr(BucketFolder, after, act)
    folder = objects()
    folder.enter(LOCK)
    assert folder.names("staging") == []


def test_what_another_repair_set_aside_meanwhile_is_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, names = objects(), BucketFolder.names

    def before(self: BucketFolder, name: str = "") -> list[str]:
        found = names(self, name)
        if name == "set_aside" and not found:
            self.put("set_aside/1/card", b"of the other")
        return found

    monkeypatch.setattr(BucketFolder, "names", before)
    assert _new_aside(folder) == "set_aside/2"
    assert folder.names("staging") == ["set_aside-2"]
    assert _new_aside(folder) == "set_aside/3"
