"""Google's and Azure's object stores, as far as there are any on loopback.

Azure: Azurite, from npm (`npm install azurite`), where `azurite-blob` is on the path. Google: no emulator that was found speaks
the XML interface that obstore writes by, so SeaweedFS answers, behind a proxy that translates the headers of its conditions and
copies: what the client asks for is Google's, what answers is not.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.jobs.seaweed import answers, die_with_parent, free_ports
from tests.loopback import serving

ACCOUNT = "devstoreaccount1"  # Azurite's own, and its key, which its pages print
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-08-06"
_NAMES = {"x-goog-copy-source": "x-amz-copy-source", "x-goog-metadata-directive": "x-amz-metadata-directive"}


@contextmanager
def azure(folder: Path, container: str) -> Iterator[dict[str, str]]:
    """The environment in which clients reach it, with a container. Skips where it is not installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("there is no azurite-blob (npm install azurite): no Azure to test against")
    [port] = free_ports(1)
    words = [f"--blobPort={port}", f"--location={folder}", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    try:
        assert answers(f"http://127.0.0.1:{port}", process)
        _make_container(endpoint, container)
        names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT")
        yield dict(zip(names, (ACCOUNT, KEY, endpoint), strict=True))
    finally:
        process.kill()
        process.wait()


def _make_container(endpoint: str, name: str) -> None:
    date = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = f"x-ms-date:{date}\nx-ms-version:{VERSION}\n"
    signed = "PUT" + "\n" * 12 + f"{headers}/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    asked = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT")
    for header, value in {"x-ms-date": date, "x-ms-version": VERSION, "Content-Length": "0"}.items():
        asked.add_header(header, value)
    asked.add_header("Authorization", f"SharedKey {ACCOUNT}:{signature}")
    urllib.request.urlopen(asked).close()


@contextmanager
def google(folder: Path, endpoint: str) -> Iterator[dict[str, str]]:
    """The environment in which clients of Google reach a bucket of S3 at `endpoint` that wants no signature."""
    server = endpoint.removeprefix("http://")
    with serving(type("Handler", (_Translates,), {"server": server})) as here:
        account = folder / "account.json"
        nobody = {
            "gcs_base_url": here,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        account.write_text(json.dumps(nobody))
        yield {"GOOGLE_SERVICE_ACCOUNT": str(account), "GOOGLE_BASE_URL": here}


class _Translates(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: str  # type: ignore[assignment]

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        names = {name.lower(): value for name, value in self.headers.items() if name.lower() != "authorization"}
        if names.pop("x-goog-if-generation-match", "") == "0":
            names["if-none-match"] = "*"
        names = {_NAMES.get(name, name): value for name, value in names.items()}
        data = self.rfile.read(int(names.get("content-length", 0)))
        connection = http.client.HTTPConnection(type(self).server, timeout=30)
        connection.request(self.command, self.path, data, names)
        found = connection.getresponse()
        body = found.read()
        connection.close()
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = found.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815
