"""The S3 server that the tests of one process share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softlabels.system.urls import depot_of
from tests.jobs.seaweed import Server, running


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
