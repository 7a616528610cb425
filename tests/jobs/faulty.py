"""A proxy between a client and an HTTP server on loopback, in a thread, that does with an answer what a test tells it to."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback import serving

STALL = 3.0  # seconds, longer than the client in a test waits


@dataclass
class Faulty:
    """What it was asked; `meddle` says which fault an answer to (method, path) has, None for none."""

    server: tuple[str, int]
    meddle: Callable[[str, str], str | None] = lambda method, path: None
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    endpoint: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def running(endpoint: str) -> Iterator[Faulty]:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    proxy = Faulty((host, int(port)))
    with serving(type("Handler", (_Handler,), {"proxy": proxy})) as proxy.endpoint:
        try:
            yield proxy
        finally:
            proxy.ended.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20
    proxy: Faulty

    def log_message(self, *args: object) -> None:
        pass

    def handle_one(self) -> None:
        asked = self.command, self.path.partition("?")[0], self.headers.get("Range") or ""
        self.proxy.asked.append(asked)
        with suppress(BrokenPipeError, ConnectionResetError):
            self.answer(self.proxy.meddle(*asked[:2]))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

    def answer(self, fault: str | None) -> None:
        if fault == "refuse":
            self.close_connection = True
            return
        if fault == "stall":
            self.proxy.ended.wait(STALL)
            self.close_connection = True
            return
        if fault in ("500", "503", "404", "403", "302"):
            self.send_response(int(fault))
            if fault == "302":
                self.send_header("Location", "http://localhost:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "slow":
            time.sleep(0.05)
        status, headers, body = self.asked_there()
        if fault == "lost":  # it is done, and nobody hears of it
            self.close_connection = True
            return
        if fault == "lie" and status == 412:
            status, body = 200, b""
            headers |= {"Content-Length": "0", "ETag": '"it"'}
        if fault == "flip" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "less" and len(body) > 1:  # and says so, as if that were what was asked for
            body = body[: len(body) // 2]
            headers["Content-Length"] = str(len(body))
        if fault == "swap":  # what another version of the object would be
            headers["ETag"] = '"another"'
            body = bytes(len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "truncate":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def asked_there(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.proxy.server, timeout=30)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection.request(self.command, self.path, data, dict(self.headers))  # with its Host, which is signed
        found = connection.getresponse()
        body = found.read()
        kept = ("content-range", "etag", "last-modified", "content-type", "content-length", "accept-ranges")
        headers = {name: value for name, value in found.getheaders() if name.lower() in kept}
        if "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        connection.close()
        return found.status, headers, body
