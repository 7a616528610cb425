"""A server that is asked over HTTP: many requests in flight, each with timeouts, a limit of size, and retries that wait as long
as the server asks. Extra `[served]`.

A redirect is not followed, so that a key never reaches another host. Proxies and certificates are those of the environment
(HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE). Requests run on an event loop of a thread of their own, so whoever waits hears signals,
and giving up closes their connections. Neighbours: `foreign.dialects` says what is asked, `patience` waits for threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from softlabels.errors import ConfigError, Interrupted, NoAnswer, one_line
from softlabels.objects import require_extra

T = TypeVar("T")
_GLANCE = 0.1  # seconds between two looks whether to stop
_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})  # what may go well the next time
_ERROR_BYTES = 1 << 16  # of the answer that says what is wrong
_RESUME = "see that the server runs, and run the same command again: finished shards are kept"


@dataclass(frozen=True)
class Limits:
    """How a server is asked.

    Attributes:
        in_flight: requests at a time.
        rate: requests a second at most; None for no limit.
        connect, read, whole: timeouts in seconds: of connecting, of a pause inside an answer, of a request from first to last.
        tries: how often a request is made before it counts as failed.
        backoff, longest: seconds before the second try, doubled each time; the longest wait, also where the server asks for it.
    """

    in_flight: int = 32
    rate: float | None = None
    connect: float = 10.0
    read: float = 120.0
    whole: float = 600.0
    tries: int = 8
    backoff: float = 1.0
    longest: float = 120.0


@dataclass(frozen=True)
class Ask:
    """A request: `path` below the base address, a JSON body (None: GET), the most bytes of its answer, and what makes something
    of that. `read` raises `Unusable` of an answer that another try may give whole.
    """

    path: str
    body: bytes | None
    most: int
    read: Callable[[bytes], Any] = field(repr=False)


class Unusable(Exception):
    """An answer that cannot be read: cut off, or of something that is no such server."""


class _Failed(Exception):
    """A try that failed, and what the server says of the next: seconds to wait."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.what, self.wait = what, wait


class WebServer:
    """The server at a base address, `http://host:port` or `https://...`, perhaps with a path.

    Args:
        url: without a password or a query.
        key_env: the environment variable that holds its key, sent as `Authorization: Bearer`; None for none.
        limits: see `Limits`.

    Raises:
        ConfigError: no such address; the variable is not set. MissingExtra: httpx2 is not installed.
    """

    def __init__(self, url: str, *, key_env: str | None = None, limits: Limits | None = None) -> None:
        self.url, self.limits = _checked(url), limits or Limits()
        self._web: Any = require_extra("httpx2", extra="served")
        try:
            self._web.URL(self.url)
        except self._web.InvalidURL:
            raise _no_address() from None
        self._key = None if key_env is None else _key(key_env)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._next = asyncio.Lock()  # of requests that wait for their turn, whoever began to wait first
        self._free_at = 0.0  # when the next request may begin: the rate, and waits that the server asked for
        self.should_stop: Callable[[], bool] = lambda: False

    def ask(self, asks: Sequence[Ask]) -> list[Any]:
        """What is read of each answer, in order.

        Raises:
            NoAnswer: a request that failed each time. ConfigError: one that the server refuses. Interrupted: `should_stop`.
            What `read` raises. The others are given up then.
        """
        return self._wait_for(self._all(asks))

    def close(self) -> None:
        """Close the connections and end the thread."""
        loop, self._loop, client, self._client = self._loop, None, self._client, None
        if loop is not None:
            if client is not None:
                with suppress(NotYet):
                    asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(timeout=self.limits.connect)
            loop.call_soon_threadsafe(loop.stop)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop, self._next = asyncio.new_event_loop(), asyncio.Lock()
            threading.Thread(target=_run, args=(self._loop,), name="softlabels-web", daemon=True).start()
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(timeout=_GLANCE)
                except NotYet:
                    if future.done():
                        raise
                    if self.should_stop():
                        raise Interrupted(
                            f"stopped while {self.url} was asked", remedy="run the same command again to resume"
                        ) from None
        finally:
            future.cancel()

    async def _all(self, asks: Sequence[Ask]) -> list[Any]:
        room = asyncio.Semaphore(self.limits.in_flight)

        async def one(ask: Ask) -> Any:
            async with room:
                return await self._tried(ask)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(ask)) for ask in asks]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _tried(self, ask: Ask) -> Any:
        limits, failed = self.limits, _Failed("")
        for number in range(limits.tries):
            await self._turn()
            try:
                async with asyncio.timeout(limits.whole):
                    return ask.read(await self._once(ask))
            except TimeoutError:
                failed = _Failed(f"no whole answer within {limits.whole:g} s")
            except Unusable as unusable:
                failed = _Failed(str(unusable))
            except _Failed as found:
                failed = found
            if failed.wait > limits.longest:
                break
            if failed.wait:  # it is said to all
                self._free_at = max(self._free_at, time.monotonic() + failed.wait)
            pause = min(limits.longest, limits.backoff * 2**number) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            await asyncio.sleep(max(failed.wait, pause) if number + 1 < limits.tries else 0)
        asked = f", and asks to wait {failed.wait:g} s" if failed.wait > limits.longest else f" in {limits.tries} tries"
        raise NoAnswer(f"{self.url}{ask.path} gives no answer{asked}: {failed.what}", remedy=_RESUME)

    async def _turn(self) -> None:
        """Wait for this request's turn, which a server's answer to another one may put off."""
        async with self._next:
            while (left := self._free_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if self.limits.rate:
                self._free_at = time.monotonic() + 1 / self.limits.rate

    async def _once(self, ask: Ask) -> bytes:
        if self._client is None:
            self._client = self._opened()
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        method = "GET" if ask.body is None else "POST"
        try:
            async with self._client.stream(method, self.url + ask.path, content=ask.body, headers=headers) as answer:
                if answer.status_code != 200:
                    await self._refused(ask, answer)
                kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "application/json":
                    raise _Failed(f"the answer is {one_line(kind) or 'of no type'}, no application/json")
                return await self._body(answer, ask)
        except self._web.TransportError as error:
            raise self._transport(error) from None

    def _opened(self) -> Any:
        """A client. Raises `ConfigError`, which repeats nothing of a proxy, for its address may hold a password."""
        web, limits = self._web, self.limits
        timeout = web.Timeout(limits.read, connect=limits.connect, pool=limits.whole)
        pool = web.Limits(max_connections=limits.in_flight, max_keepalive_connections=limits.in_flight)
        try:
            return web.AsyncClient(timeout=timeout, limits=pool, follow_redirects=False)
        except (OSError, ImportError, ValueError, web.InvalidURL) as error:
            what = (
                "SSL_CERT_FILE or SSL_CERT_DIR"
                if isinstance(error, OSError)
                else "a proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)"
            )
            raise ConfigError(
                f"{self.url} cannot be asked: {what} of the environment cannot be used ({type(error).__name__})",
                remedy="name a file that is there, a proxy of http:// or https://, or unset it",
            ) from None

    async def _body(self, answer: Any, ask: Ask) -> bytes:
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise ConfigError(
                f"{self.url}{ask.path} sends compressed answers, which were not requested",
                remedy="turn off compression in the server, or in the proxy before it",
            )
        found = bytearray()
        async for part in answer.aiter_raw():
            found += part
            if len(found) > ask.most:
                raise ConfigError(
                    f"{self.url}{ask.path} answers with more than {ask.most:,} bytes, more than an answer can have",
                    remedy="give the address of the server itself (url), and the kind that it is (server)",
                )
        return bytes(found)

    async def _refused(self, ask: Ask, answer: Any) -> None:
        """Raise what a status other than 200 means."""
        status, said = answer.status_code, b""
        where = f"{self.url}{ask.path} answers {status}"
        if 300 <= status < 400:
            target = self._hidden(answer.headers.get("location", ""))
            raise ConfigError(
                f"{where}, a redirect to {target or 'nowhere'}, and redirects are not followed: the key would go with it",
                remedy="give the address that it leads to as url, if you trust it",
            )
        async for part in answer.aiter_raw():
            said = (said + part)[:_ERROR_BYTES]
            if len(said) == _ERROR_BYTES:
                break
        words = self._hidden(said.decode("utf-8", "replace"))
        if status in _AGAIN:
            raise _Failed(f"{status} {words}".rstrip(), _seconds(answer.headers.get("retry-after")))
        if status in (401, 403):
            remedy = "put a valid key into an environment variable and give its name as key_env"
            raise ConfigError(f"{where}: {words or 'not allowed'}", remedy=remedy)
        if status == 404:
            raise ConfigError(
                f"{where}: {words}", remedy="check url (without /v1), model, and the server's kind (server)"
            )
        raise ConfigError(
            f"{where}: {words}", remedy="change what the message names, of the recipe or of the server's start"
        )

    def _hidden(self, text: str) -> str:
        """A server's words on one line, without the key."""
        for key in () if self._key is None else (self._key, json.dumps(self._key)[1:-1]):
            text = text.replace(key, "(key)")
        return one_line(text)

    def _transport(self, error: Exception) -> Exception:
        """A connection's error: what is no use to try again is the user's."""
        words, name = self._hidden(str(error)), re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return ConfigError(
                f"the certificate of {self.url} is not trusted: {words}",
                remedy="name the file of the authority that signed it in the environment: SSL_CERT_FILE=ca.pem",
            )
        refused = isinstance(error, self._web.ProxyError) and not words.startswith("5")
        if refused or isinstance(error, self._web.UnsupportedProtocol | self._web.LocalProtocolError):
            return ConfigError(
                f"{self.url} cannot be asked: {words}", remedy="check url and the proxies in the environment"
            )
        return _Failed(f"{name}{f': {words}' if words else ''}")


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _checked(url: str) -> str:
    """The address without a slash at its end. Raises `ConfigError`, which repeats no password."""
    try:
        parts = urlsplit(url)
        _, host, secret = parts.port, parts.hostname, parts.username or parts.password
    except ValueError:
        host = secret = parts = None
    if secret:
        raise ConfigError("url holds a password", remedy="leave it out; a key is named by key_env")
    if parts is None or parts.scheme not in ("http", "https") or not host or re.search(r"[?#\s]", url):
        raise _no_address()
    return url.rstrip("/").removesuffix("/v1")


def _no_address() -> ConfigError:
    return ConfigError("url is not the address of a server", remedy="give http://host:port or https://host")


def _key(name: str) -> str:
    """The key in a variable. Raises `ConfigError`, which does not repeat it."""
    key = os.environ.get(name, "")
    if not key:  # the name is not repeated: it may be the key itself
        raise ConfigError(
            "the environment variable that key_env names is not set",
            remedy="set it to the server's key, or leave key_env out if the server needs none",
        )
    if not key.isascii() or not key.isprintable() or key != key.strip():
        what = "the variable that key_env names holds no key: blanks at an end, or other characters than ASCII's"
        raise ConfigError(what, remedy="set it anew")
    return key


def _seconds(given: str | None) -> float:
    """Retry-After: seconds, or a date; 0 where it is none."""
    if not given:
        return 0.0
    try:
        return max(0.0, float(given)) if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", given) else _until(given)
    except (ValueError, OverflowError):
        return 0.0


def _until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
