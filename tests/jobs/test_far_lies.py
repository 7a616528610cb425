"""Servers that lie, of files and of listings: the right rows, or an error of ours in time that names object and remedy."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from softlabels.errors import SoftLabelsError, Stalled, StorageError
from softlabels.jobs.share import pull
from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.system import asked, urls
from softlabels.system.urls import depot_of
from tests.jobs import lying
from tests.jobs.lying import LIES, Lying
from tests.jobs.test_far import same

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS", "AWS_SECRET_ACCESS_KEY": "secretOfTheTests"}
KEYS |= {"AWS_SESSION_TOKEN": "sessionTokenOfTheTests", "AWS_REGION": "nowhere"}
LONGEST = 60.0  # seconds: many times the timeouts, for a machine that is busy
MOST = 1 << 24  # bytes of an answer without end
OF_LISTINGS = {name for name in LIES if "keys" in name or "listing" in name}
# What obstore does: it reads some answers to their end, for as long as a request may take, and goes to another port of a host.
NOT_HELD = {"an endless error", "an endless 500", "an endless drip", "drips", "another port"}
SOME = {
    ("http", "another port"), ("http", "an endless error"), ("http", "another range"), ("http", "gzip"),
    ("http", "a login page"), ("http", "a size of a petabyte"), ("http", "echoes"), ("s3", "echoes"), ("s3", "another host"),
    ("s3", "keys above"), ("s3", "other bytes in the range"),
}  # fmt: skip
EVERY = sorted(({*product(("http", "s3"), LIES)} - {*product(("http",), OF_LISTINGS)}) - {*product(("s3",), NOT_HELD)})


@pytest.fixture
def server(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lying]:
    """A server of a folder, for clients that do not wait long."""
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "3")
    for name, seconds in {"CONNECT": 2.0, "READ": 1.0, "WHOLE": 1.0, "PAUSES": (0.01,)}.items():
        monkeypatch.setattr(asked, name, seconds)
    brief = {"connect_timeout": "2s", "read_timeout": "1s", "timeout": "2s"}
    for name in ("_READS", "_PATIENCE"):
        monkeypatch.setattr(urls, name, brief)
    monkeypatch.setattr(urls, "RETRIES", {"max_retries": 1})
    with lying.running(made) as found, lying.running(made) as other:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": found.endpoint}).items():
            monkeypatch.setenv(name, value)
        found.echo, found.elsewhere = KEYS["AWS_SESSION_TOKEN"], other.endpoint
        yield found
        assert other.asked == []


@pytest.mark.parametrize(
    ("scheme", "lie"), [each if each in SOME else pytest.param(*each, marks=pytest.mark.slow) for each in EVERY]
)
def test_right_rows_or_an_error(scheme: str, lie: str, made: Path, tmp_path: Path, server: Lying) -> None:
    address, server.lie = (server.endpoint if scheme == "http" else "s3://tests"), lie
    for server.about in ("", "logits"):
        began = time.monotonic()
        try:
            assert same(open_store(f"{address}/train"), open_store(made / "train"))
            if lie in OF_LISTINGS and not server.about:
                verify(f"{address}/train")
        except SoftLabelsError as error:
            _require_told(error, address)
        copy = tmp_path / f"copy{server.about}"
        try:
            pull(address if scheme == "s3" else f"{address}/train", copy, split="train" if scheme == "s3" else None)
            assert open_store(copy).digest == open_store(made / "train").digest
        except SoftLabelsError as error:
            _require_told(error, address)
        assert time.monotonic() - began < LONGEST
    assert server.sent < MOST
    assert not [path for path in tmp_path.rglob("*") if "secret" in path.name]


def _require_told(error: SoftLabelsError, address: str) -> None:
    assert re.search(rf"{address}\S*|shard \d+", str(error)), error
    assert error.remedy
    assert not any(key in f"{error} {error.remedy}" for name, key in KEYS.items() if name != "AWS_REGION")


def test_a_listing_without_end(server: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "1")
    for server.lie in ("a listing of endless empty pages", "a listing of endless small pages"):
        with pytest.raises(Stalled, match=r"the listing of s3://tests/train has not ended for 1 s"):
            list(depot_of("s3://tests/train").list())


def test_a_drip_is_not_waited_for(server: Lying) -> None:
    """Each second brings a byte, of a header too."""
    server.lie = "drips"
    with pytest.raises(StorageError, match="no answer in time, or a broken one; check the address and the network"):
        depot_of(server.endpoint).read("train/plan.json")


def test_where_it_sends_on_to_is_said(server: Lying) -> None:
    for server.lie in ("another host", "another port", "https"):
        with pytest.raises(
            StorageError, match=r"the server redirects to https?://[\w.:]+, and redirects are not followed; give"
        ):
            open_store(f"{server.endpoint}/train")


def test_a_certificate_that_nobody_signed(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    key, own = tmp_path / "key.pem", tmp_path / "own.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    words += ["-keyout", str(key), "-out", str(own), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own, key)
    with lying.running(made, tls=tls) as server:
        with pytest.raises(StorageError, match=r"its certificate is not trusted \(self.signed certificate\)"):
            open_store(f"{server.endpoint}/train")
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
        assert same(open_store(f"{server.endpoint}/train"), open_store(made / "train"))
        server.lie = "http"  # back to where anybody listens
        with pytest.raises(StorageError, match="redirects to http://127"):
            open_store(f"{server.endpoint}/train")
