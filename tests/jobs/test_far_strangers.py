"""What lies at the address of an object store before a store is written there, and what a place refuses to who writes."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError, StorageError, StorePathError
from softlabels.store.root import require_root, write_root
from softlabels.store.verify import verify
from softlabels.store.writer import StoreWriter
from softlabels.system import bucket
from softlabels.system.urls import written_at
from tests.store.bucket import BucketPath, as_path
from tests.store.bucket import objects as place_in_memory
from tests.store.samples import Sample, make_spec, sample, write_store


def objects() -> BucketPath:
    return as_path(place_in_memory())


@pytest.fixture
def data(rng: np.random.Generator) -> Sample:
    return sample(rng, 20)


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_empty_objects_of_folders_are_passed_over(page: int, data: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """As consoles make them: `store/`, which obstore calls `store`, and of servers with folders `store` itself."""
    monkeypatch.setattr(bucket, "_PAGE", page)
    place = objects()
    for name in ("digits", "digits/train", "digits/train/commits"):
        place.put(name, b"")
    root = place.within("digits")
    require_root(root, ("train",))
    write_store(root.within("train"), data, make_spec(data))
    write_root(root)
    assert verify(root.within("train")) == []
    assert root.names() == ["README.md", "train", "zarr.json"]


def test_a_listing_that_names_the_folder_itself(data: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 does where a console made it: of `store/` obstore says that it is `store`."""
    place = objects().within("digits")
    place.put("plan", b"more")
    listed = iter([[{"path": "digits", "size": 0}, {"path": "digits/plan", "size": 4}]])
    monkeypatch.setattr("obstore.list", lambda *args, **more: listed)
    assert place.names() == ["plan"]
    listed = iter([[{"path": "digits", "size": 1}]])
    with pytest.raises(StorageError, match="lists keys outside of the request"):
        place.names()


def test_nothing_is_written_below_an_object(data: Sample) -> None:
    place = objects()
    place.put("digits", b"somebody's")
    with pytest.raises(StorePathError, match="objects:/digits is a file; a store is a folder"):
        StoreWriter(place.within("digits/train"), make_spec(data))
    assert [*place.list()] == ["digits"]


def test_what_is_described_is_left_alone(data: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who may read alone can run a command again."""
    root = objects().within("digits")
    write_store(root.within("train"), data, make_spec(data))
    write_root(root)
    for act in ("put", "delete", "copy", "open_writer"):
        monkeypatch.setattr(f"obstore.{act}", _refused)
    write_root(root)


def test_a_refused_removal_asks_for_the_right_to_do_it(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written_at(s3).put("name", b"it")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    with pytest.raises(
        StorageError, match=r"cannot remove .*/name: these credentials do not allow it \(AccessDenied\); ask its owner"
    ):
        written_at(s3).remove("name")


def test_a_backslash_is_no_part_of_an_address() -> None:
    with pytest.raises(ConfigError, match=r"a backslash in it"):
        written_at("s3://bucket/may\\june")


def _refused(*args: object, **more: object) -> None:
    raise AssertionError("something is written")
