"""A web server that is asked for files, by Python's own HTTP client: of an answer nothing is read that was not asked for, no
answer takes longer than it may, and no redirect is followed. It sends no credentials.

Proxies and certificates are those of the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE). Neighbours: `web_folder` says
what is asked; `web` asks servers that compute.
"""

from __future__ import annotations

import base64
import io
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from softlabels.errors import StorageError

CONNECT, READ, WHOLE = 10.0, 30.0, 300.0  # seconds: to connect, in which nothing moves, and of a request in all
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds before a request is made again
_PIECE = 1 << 20
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # what may go well the next time
FAILS = (HTTPException, OSError, EOFError, ValueError)  # of a request that breaks off, or an answer that is none


class Answer:
    """An answer whose body is still to be read."""

    def __init__(self, found: HTTPResponse, until: _Until) -> None:
        self.status, self._found, self._until = found.status, found, until

    def header(self, name: str) -> str:
        """One of its headers; "" where it has none of that name."""
        return self._found.headers.get(name, "").strip()

    @property
    def size(self) -> int | None:
        """The bytes of its body, as far as that is said."""
        said = self.header("Content-Length")
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else None

    def read(self, length: int) -> bytes:
        """Up to `length` bytes more: fewer only at the end. It may take `WHOLE` seconds. Raises `FAILS`."""
        self._until.move()
        data = bytearray()
        while len(data) < length and (piece := self._found.read1(min(_PIECE, length - len(data)))):
            data += piece
        return bytes(data)


class Server:
    """`http` or `https`, and a host, perhaps with a port. Safe to use from several threads."""

    def __init__(self, scheme: str, host: str) -> None:
        self.scheme, self.host = scheme, host
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()
        self._before, self._said = "", dict[str, str]()  # what a proxy wants of a request beside the path

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.scheme, self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"

    def __del__(self) -> None:
        for each in self._idle:
            each.close()

    @contextmanager
    def ask(self, method: str, path: str, headers: dict[str, str]) -> Iterator[Answer]:
        """The answer to a request, once. A connection whose answer was read to its end is used again. Raises `FAILS`,
        `StorageError`.
        """
        until = _Until()
        connection, found = self._answer(method, path, headers, until)
        try:
            yield Answer(found, until)
        finally:
            read = found.length == 0  # nor has that of a HEAD any more
            found.close()
            if read and not found.will_close:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()

    def _answer(
        self, method: str, path: str, headers: dict[str, str], until: _Until
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """From a connection that is there, unless the server has closed it meanwhile; else from a new one."""
        with self._lock:
            old = self._idle.pop() if self._idle else None
        connection = old or self._opened()
        try:
            connection.response_class = partial(_InTime, until)  # type: ignore[assignment]
            connection.request(method, self._before + path, headers={"Host": self.host} | self._said | headers)
            return connection, connection.getresponse()
        except BaseException as error:
            connection.close()
            if old is not None and isinstance(error, (ConnectionError, ssl.SSLEOFError)):
                with self._lock:  # and the others too
                    closed, self._idle = self._idle, []
                for each in closed:
                    each.close()
                return self._answer(method, path, headers, until)
            if refused := re.match(r"Tunnel connection failed: (4\d\d)", str(error)):
                raise StorageError(
                    f"the proxy of the environment answered {refused[1]}", remedy="check its address and its password"
                ) from None
            raise

    def _opened(self) -> HTTPConnection:
        """Raises `OSError`, `StorageError`."""
        proxy = getproxies().get(self.scheme) or getproxies().get("all")
        host = urlsplit(f"//{self.host}")
        if not proxy or proxy_bypass(host.netloc.rpartition("@")[2]):
            return self._connection(self.scheme, self.host)
        try:
            by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            at = f"{by.hostname}:{by.port or 80}" if by.scheme == "http" and by.hostname else ""
        except ValueError:
            at = ""
        if not at:
            raise StorageError("the proxy of the environment is none of http://", remedy="name one, or unset it")
        named = f"{unquote(by.username or '')}:{unquote(by.password or '')}".encode()
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(named).decode()}"} if by.username else {}
        connection = self._connection(self.scheme, at)
        if self.scheme == "https":
            connection.set_tunnel(host.hostname or "", host.port or 443, headers)
        else:
            self._before, self._said = str(self), headers
        return connection

    def _connection(self, scheme: str, host: str) -> HTTPConnection:
        if scheme == "https":
            return HTTPSConnection(host, timeout=CONNECT, context=ssl.create_default_context())
        return HTTPConnection(host, timeout=CONNECT)


class _Until:
    """The moment at which an answer has taken too long."""

    def __init__(self) -> None:
        self.move()

    def move(self) -> None:
        self.at = time.monotonic() + WHOLE

    @property
    def left(self) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, READ)


class _InTime(HTTPResponse):
    """An answer, also its headers, that is read until some moment."""

    def __init__(self, until: _Until, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, until), 1 << 16)


class _Timed(io.RawIOBase):
    def __init__(self, sock: Any, until: _Until) -> None:
        self._sock, self._raw, self._until = sock, sock.makefile("rb", buffering=0), until

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int | None:
        self._sock.settimeout(self._until.left)
        got: int | None = self._raw.readinto(out)
        return got

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
