"""`az://` by Azurite and `gs://` by a translated S3 server: what `emulators` says of them is all that is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from softlabels.errors import StorageError, StorePathError
from softlabels.jobs.share import pull, push
from softlabels.store import open_store
from softlabels.store.repair import repair
from softlabels.store.verify import verify
from softlabels.system.urls import depot_of, written_at
from softlabels_stages.__main__ import main
from tests.jobs import emulators
from tests.jobs.seaweed import OPEN, Server
from tests.jobs.test_far import same
from tests.jobs.test_jobs import label, work

__all__ = ["work"]
pytestmark = pytest.mark.slow


@pytest.fixture(params=["az", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address of an empty folder."""
    if request.param == "az":
        found = emulators.azure(tmp_path, OPEN)
    else:
        server: Server = request.getfixturevalue("s3_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        depot_of(f"s3://{OPEN}").put("here", b"so that the bucket is there")  # type: ignore[attr-defined]
        found = emulators.google(tmp_path, server.endpoint)
    with found as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"{request.param}://{OPEN}/{request.node.name.replace('[', '-').replace(']', '')}"


def test_pushed_read_and_pulled(made: Path, place: str, tmp_path: Path) -> None:
    push(made, place)
    assert same(open_store(f"{place}/train"), open_store(made / "train"))
    assert verify(f"{place}/train") == []
    assert main(["info", place]) == main(["list", place]) == 0
    pull(place, tmp_path / "copy")
    assert open_store(tmp_path / "copy" / "test").digest == open_store(made / "test").digest
    with pytest.raises(StorePathError, match="nothing holds no store"):
        open_store(f"{place}/nothing")


def test_written_there(place: str, work: Path) -> None:
    made = label(place)
    assert made == label("store")
    assert all(verify(f"{place}/{split}") == [] for split in made)
    assert [name for name in depot_of(place).list() if "staging" in name] == []
    name = next(name for name in depot_of(f"{place}/train").list() if name.startswith("logits/"))
    written_at(f"{place}/train").put(name, b"damaged")
    assert repair(f"{place}/train").pending
    assert label(place) == made


def test_names_are_created_once_and_parts_joined(place: str) -> None:
    there = written_at(place)
    assert there.create("name", b"first", staged="")
    assert not there.create("name", b"second", staged="")
    with there.filled("staging/0") as out:
        for _ in range(6):
            out.write(bytes(3 << 20))
    there.place({"staging/0": "large"})
    assert there.size("large") == 18 << 20
    assert there.names() == ["large", "name"]


def test_credentials_that_are_none(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.startswith("gs"):
        pytest.skip("nobody asks for any there")
    key = "bm90LXRoZS1rZXk="
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
    with pytest.raises(StorageError, match="it refuses the credentials") as caught:
        open_store(place)
    assert key not in str(caught.value)
    assert os.environ["AZURE_STORAGE_ENDPOINT"] not in str(caught.value)
