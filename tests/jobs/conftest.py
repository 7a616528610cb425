"""What tests push, and the servers that they push to: S3, one a process, and the stand-in for the Hub, one a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softlabels.store.root import write_root
from softlabels.system.local import LocalFolder
from softlabels.system.urls import depot_of
from tests.jobs import hub as fake
from tests.jobs.seaweed import Server, running
from tests.stages import toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two splits."""
    root = toy.write_store(tmp_path_factory.mktemp("made") / "store")
    write_root(LocalFolder(root))
    return root


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3(s3_server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of the test's own, with credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    depot_of("s3://tests").put("here", b"so that the bucket is there")
    return f"s3://tests/{request.node.name}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.FakeHub]:
    """A Hub of the test's own, with a token in the environment."""
    with fake.running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_TOKEN", fake.TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield found
