"""A server that lies, on loopback: a folder as a web server, and as S3 does (path style; signatures are not looked at).

`Lying.lie` names what is wrong (`LIES`), `about` the files of which it is. Without a lie it serves parts of files truly.
"""

from __future__ import annotations

import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.loopback import serving

BUCKET = "tests"
LOGIN = b"<!DOCTYPE html><html><body><form>Please log in</form></body></html>"
_NAME = "<ListBucketResult><Name>tests</Name><Prefix/>"


@dataclass
class Lying:
    """See above. `counter` counts answers, `echo` is what it says in errors, `elsewhere` is where it sends on to."""

    root: Path
    lie: str = ""
    about: str = ""
    echo: str = ""
    elsewhere: str = ""
    endpoint: str = ""
    counter: int = 0
    sent: int = 0  # bytes of bodies without end
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def running(root: Path, *, tls: ssl.SSLContext | None = None) -> Iterator[Lying]:
    found = Lying(root)
    with serving(type("Handler", (_Handler,), {"place": found}), tls=tls) as found.endpoint:
        try:
            yield found
        finally:
            found.ended.set()


@dataclass
class _Answer:
    """What is sent: `body` piece by piece; `length` None: until the connection ends."""

    status: int
    headers: dict[str, str]
    body: bytes
    pause: float = 0.0
    repeats: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    place: Lying

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        self.place.counter += 1
        self.place.asked.append(f"{self.command} {unquote(self.path)} {self.headers.get('Range', '')}")
        with suppress(OSError):
            asked = urlsplit(self.path)
            query = parse_qs(asked.query, keep_blank_values=True)
            name = unquote(asked.path).lstrip("/").removeprefix(f"{BUCKET}/").rstrip("/")
            answer = self.listing(query) if "list-type" in query else self.file(name)
            lie = LIES.get(self.place.lie)
            if lie is not None and ("list-type" in query or re.search(self.place.about, name)):
                answer = lie(self, answer)
            self.send(answer)

    do_HEAD = do_GET  # noqa: N815

    def file(self, name: str) -> _Answer:
        """A file, or the part that is asked for."""
        path = self.place.root / name
        try:
            status = path.stat()
            regular = path.is_file()
        except (OSError, ValueError):
            return _Answer(404, {}, b"")
        if not regular:
            return _Answer(404, {}, b"")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2]) + 1, status.st_size)) if asked else (0, status.st_size)
        if asked and start >= status.st_size:
            return _Answer(416, {"Content-Range": f"bytes */{status.st_size}"}, b"")
        headers = {"ETag": f'"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"'}
        headers["Last-Modified"] = self.date_time_string(int(status.st_mtime))
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
        if self.command == "HEAD":
            return _Answer(200, headers | {"Content-Length": str(status.st_size)}, b"")
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(min(end - start, 1 << 24))
        except OSError:
            return _Answer(403, {}, b"")
        return _Answer(206 if asked else 200, headers, data)

    def listing(self, query: dict[str, list[str]]) -> _Answer:
        """Keys in order, a thousand a page."""
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        after = query.get("continuation-token", [after])[0]
        keys = [(key, size) for key, size in _keys(self.place.root) if key.startswith(prefix) and key > after]
        return _listed(keys[:1000], token=keys[999][0] if len(keys) > 1000 else "")

    def send(self, answer: _Answer) -> None:
        headers = {"Content-Length": str(len(answer.body))} | answer.headers
        endless = headers.get("Transfer-Encoding") == "chunked"
        self.send_response(answer.status)
        for name, value in headers.items():
            if value and not (endless and name == "Content-Length"):
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if endless:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            piece = b"%x\r\n%s\r\n" % (len(answer.body), answer.body)
            while not self.place.ended.wait(answer.pause):
                self.wfile.write(piece)
                self.place.sent += len(piece)
                if answer.pause:
                    self.wfile.flush()
        elif answer.pause:
            for at in range(len(answer.body)):
                self.wfile.write(answer.body[at : at + 1])
                self.wfile.flush()
                if self.place.ended.wait(answer.pause):
                    return
        else:
            self.wfile.write(answer.body)
            if headers["Content-Length"] != str(len(answer.body)):
                self.close_connection = True


def _keys(root: Path) -> list[tuple[str, int]]:
    found = []
    for path in root.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                found.append((str(path.relative_to(root)), path.stat().st_size))
    return sorted(found)


def _listed(keys: list[tuple[str, int]], token: str = "") -> _Answer:
    items = "".join(
        f"<Contents><Key>{escape(key.encode(errors='replace').decode())}</Key><LastModified>2026-01-01T00:00:00.000Z"
        f"</LastModified><ETag>&quot;x&quot;</ETag><Size>{size}</Size></Contents>"
        for key, size in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(token)}</NextContinuationToken>"
    return _xml(f"{_NAME}{more if token else '<IsTruncated>false</IsTruncated>'}{items}</ListBucketResult>")


def _xml(text: str) -> _Answer:
    return _Answer(200, {"Content-Type": "application/xml"}, text.encode())


Lie = Callable[[_Handler, _Answer], _Answer]


def _headers(**changes: str) -> Lie:
    """Headers are others; "" takes one away."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda _, answer: _Answer(answer.status, answer.headers | named, answer.body)


def _body(change: Callable[[bytes], bytes], **headers: str) -> Lie:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, answer: _Answer(answer.status, answer.headers | named, change(answer.body))


def _tag(change: Callable[[_Handler, str], str]) -> Lie:
    return lambda handler, answer: _Answer(
        answer.status, answer.headers | {"ETag": change(handler, answer.headers.get("ETag", ""))}, answer.body
    )


def _range(change: Callable[[int, int, int], tuple[int, int, int]]) -> Lie:
    def lie(handler: _Handler, answer: _Answer) -> _Answer:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
        if found is None:
            return answer
        start, end, size = change(*map(int, found.groups()))
        return _Answer(answer.status, answer.headers | {"Content-Range": f"bytes {start}-{end}/{size}"}, answer.body)

    return lie


def _size(size: int) -> Lie:
    """A file is so large, it says, in each way in which it says that."""

    def lie(handler: _Handler, answer: _Answer) -> _Answer:
        if handler.command == "HEAD":
            return _Answer(answer.status, answer.headers | {"Content-Length": str(size)}, b"")
        return _range(lambda start, end, _: (start, end, size))(handler, answer)

    return lie


def _instead(status: int, body: bytes = b"", **headers: str) -> Lie:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, answer: _Answer(status, named, body)


def _sent_on(change: Callable[[_Handler], str], status: int = 302) -> Lie:
    return lambda handler, answer: _Answer(status, {"Location": change(handler)}, b"")


def _echoes(handler: _Handler, answer: _Answer) -> _Answer:
    """An error that repeats whatever came, as an S3 server's code and message too."""
    said = handler.place.echo
    sent = " ".join(f"{name}: {value}" for name, value in handler.headers.items())
    text = f"<Error><Code>{said}</Code><Message>{escape(sent)} {said}</Message></Error>"
    return _Answer(400, {"X-Amz-Request-Id": said}, text.encode())


def _whole(handler: _Handler, answer: _Answer) -> _Answer:
    del handler.headers["Range"]
    name = unquote(urlsplit(handler.path).path).lstrip("/").removeprefix(f"{BUCKET}/")
    return handler.file(name)


def _chunked(status: int | None = None, piece: bytes = bytes(1 << 16), pause: float = 0.0) -> Lie:
    """A body that never ends."""

    def lie(handler: _Handler, answer: _Answer) -> _Answer:
        headers = answer.headers | {"Transfer-Encoding": "chunked"}
        return _Answer(status or answer.status, headers, piece, pause)

    return lie


def _drips(handler: _Handler, answer: _Answer) -> _Answer:
    return _Answer(answer.status, answer.headers, answer.body, pause=0.1)


def _keys_too(*keys: str) -> Lie:
    def lie(handler: _Handler, answer: _Answer) -> _Answer:
        body = answer.body.decode()
        if "<ListBucketResult>" not in body:
            return answer
        prefix = parse_qs(urlsplit(handler.path).query).get("prefix", [""])[0]
        items = _listed([(key.replace("PREFIX/", prefix), 5) for key in keys]).body.decode()
        found = re.findall("<Contents>.*?</Contents>", items)
        return _xml(body.replace("</ListBucketResult>", "".join(found) + "</ListBucketResult>"))

    return lie


def _pages(items: int) -> Lie:
    """A listing that goes on for ever, so many keys a page."""

    def lie(handler: _Handler, answer: _Answer) -> _Answer:
        if b"<ListBucketResult>" not in answer.body:
            return answer
        prefix = parse_qs(urlsplit(handler.path).query).get("prefix", [""])[0]
        keys = [(f"{prefix}{handler.place.counter:09}-{number:04}", 5) for number in range(items)]
        return _listed(keys, token=f"t{handler.place.counter}")

    return lie


def _slow(handler: _Handler, answer: _Answer) -> _Answer:
    time.sleep(0.05)
    return answer


LIES: dict[str, Lie] = {
    "a length that is too short": _headers(Content_Length="7"),
    "a length that is too long": _headers(Content_Length="1000000"),
    "no length": _headers(Content_Length="", Connection="close"),
    "a length that is no number": _headers(Content_Length="many"),
    "a size of nothing": _size(0),
    "a size of a petabyte": _size(1 << 50),
    "a size that no number holds": _headers(Content_Range="bytes 0-99/99999999999999999999999"),
    "another ETag each time": _tag(lambda handler, _: f'"{handler.place.counter}"'),
    "weak ETags": _tag(lambda _, tag: f"W/{tag}"),
    "no ETags": _tag(lambda *_: ""),
    "an ETag of control characters": _tag(lambda *_: '"\x1b[2J\xff"'),
    "a huge ETag": _tag(lambda *_: f'"{"x" * 60000}"'),
    "no date": _headers(ETag="", Last_Modified=""),
    "a date that is none": _headers(ETag="", Last_Modified="yesterday"),
    "another range": _range(lambda start, end, size: (start + 1, end + 1, size + 1)),
    "a range that is none": _headers(Content_Range="bytes */*"),
    "no range in a 206": _headers(Content_Range=""),
    "a range of unknown size": lambda handler, answer: _headers(
        Content_Range=re.sub(r"/\d+$", "/*", answer.headers.get("Content-Range", ""))
    )(handler, answer),
    "other bytes in the range": _body(lambda data: bytes(len(data))),
    "the whole for a part": _whole,
    "gzip": _body(gzip.compress, Content_Encoding="gzip"),
    "gzip that is none": _headers(Content_Encoding="gzip"),
    "a login page": _instead(200, LOGIN, Content_Type="text/html", ETag='"page"'),
    "a login page as a part": lambda handler, answer: _instead(
        206, LOGIN, Content_Range=f"bytes 0-{len(LOGIN) - 1}/{len(LOGIN)}", ETag='"page"'
    )(handler, answer),
    "no content": _instead(204),
    "not modified": _instead(304),
    "a status that is none": _instead(999),
    "another host": _sent_on(lambda handler: "http://localhost:1/elsewhere"),
    "another port": _sent_on(lambda handler: handler.place.elsewhere + handler.path),
    "https": _sent_on(lambda handler: handler.place.endpoint.replace("http:", "https:") + handler.path),
    "http": _sent_on(lambda handler: handler.place.endpoint.replace("https:", "http:") + handler.path),
    "a file": _sent_on(lambda handler: "file:///etc/passwd"),
    "round and round": _sent_on(lambda handler: handler.path),
    "longer and longer": _sent_on(lambda handler: f"{handler.path}/x"),
    "nowhere": _sent_on(lambda handler: ""),
    "echoes": _echoes,
    "an endless body": _chunked(),
    "an endless error": _chunked(404),
    "an endless 500": _chunked(500),
    "an endless drip": _chunked(piece=b"x", pause=0.1),
    "drips": _drips,
    "slow": _slow,
    "keys above": _keys_too("../secret", "PREFIX/../../secret"),
    "keys of empty steps": _keys_too("PREFIX//x", "//x"),
    "absolute keys": _keys_too("/etc/passwd"),
    "keys of other cases": _keys_too("PREFIX/Plan.json", "PREFIX/MANIFEST.JSON"),
    "keys that were not asked for": _keys_too("zzz/elsewhere"),
    "keys of control characters": _keys_too("PREFIX/\u202eEVIL\u009b2J"),
    "a listing of endless pages": _pages(1000),
    "a listing of endless small pages": _pages(1),
    "a listing of endless empty pages": _pages(0),
    "a listing that is none": lambda handler, answer: _xml("<html>") if b"ListBucket" in answer.body else answer,
}
