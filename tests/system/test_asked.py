"""How a web server is asked: connections that are used again, proxies, and answers that are no files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from softlabels.errors import StorageError
from softlabels.system.asked import Server
from softlabels.system.web_folder import WebFolder

DATA = bytes(range(256)) * 8


class Web(ThreadingHTTPServer):
    """Serves `DATA` at every path but /none; `answer` may answer otherwise."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, str, dict[str, str]]] = []  # connection, method, path, headers
        self.answer: Callable[[Handler], bool] = lambda handler: False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def folder(self) -> WebFolder:
        return WebFolder(Server("http", self.host), f"http://{self.host}", "labels")

    @property
    def connections(self) -> int:
        return len({port for port, *_ in self.asked})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append((self.client_address[1], self.command, self.path, dict(self.headers)))
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if self.server.answer(self):
            return
        if self.path.endswith("none"):
            self.say(404, b"nothing")
        elif last:
            part = DATA[int(first) : int(last) + 1]
            self.say(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(DATA)}"})
        else:
            self.say(200, DATA)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.do_GET()

    def say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "ETag": '"one"', **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with Web() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_connection_is_used_again(web: Web) -> None:
    folder = web.folder
    for _ in range(3):
        assert folder.size("file") == len(DATA)
        assert not folder.exists("none")
        assert folder.part("file", 5, 10) == DATA[5:15]
    assert folder.read("file") == DATA
    assert web.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again_at_once(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabels.system.asked.PAUSES", ())

    def close(handler: Handler) -> bool:
        handler.close_connection = True  # it does not say so
        handler.say(404 if handler.path.endswith("none") else 200, DATA)
        return True

    web.answer = close
    folder = web.folder
    for _ in range(3):
        assert folder.size("file") == len(DATA)
        assert folder.read("file") == DATA
    assert web.connections == len(web.asked)


def test_a_part_that_is_shorter_than_the_file_has_it_is_refused(web: Web) -> None:
    def short(handler: Handler) -> bool:
        if handler.command == "GET":
            handler.say(206, DATA[:100], {"Content-Range": f"bytes 0-99/{len(DATA)}"})
        return handler.command == "GET"

    web.answer = short
    with pytest.raises(StorageError, match="bytes 0 to 99 of 2,048 came instead of"):
        web.folder.read("file")


@pytest.mark.parametrize("status", [206, 412, 416])
def test_what_is_said_of_parts_is_no_file(status: int, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabels.system.asked.PAUSES", ())

    def refuse(handler: Handler) -> bool:
        whole = "Range" not in handler.headers
        handler.say(status if whole else 200, b"an error")
        return True

    web.answer = refuse
    with pytest.raises(StorageError, match=f"the server answered {status}"):
        web.folder.size("file")
    with pytest.raises(StorageError, match=f"the server answered {status}"):
        b"".join(web.folder._whole("file", 8))


def test_a_proxy_is_asked_for_the_whole_address_with_its_password(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:se%40cret@{web.host}")
    folder = WebFolder(Server("http", "elsewhere.invalid:81"), "http://elsewhere.invalid:81", "labels")
    assert folder.part("a file", 1, 4) == DATA[1:5]
    assert folder.size("a file") == len(DATA)
    for _, _, path, headers in web.asked:
        assert path == "http://elsewhere.invalid:81/labels/a%20file"
        assert headers["Host"] == "elsewhere.invalid:81"
        assert headers["Proxy-Authorization"] == "Basic bWU6c2VAY3JldA=="
    assert web.connections == 1


def test_a_tunnel_is_asked_for_with_the_password_which_no_message_repeats(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabels.system.asked.PAUSES", ())
    monkeypatch.setenv("https_proxy", f"http://me:se%40cret@{web.host}")
    web.answer = lambda handler: handler.say(407, b"no") is None
    folder = WebFolder(Server("https", "elsewhere.invalid"), "https://elsewhere.invalid", "labels")
    with pytest.raises(StorageError, match="the proxy of the environment answered 407") as error:
        folder.size("file")
    [(_, method, path, headers)] = web.asked
    assert (method, path, headers["Proxy-Authorization"]) == (
        "CONNECT",
        "elsewhere.invalid:443",
        "Basic bWU6c2VAY3JldA==",
    )
    assert "cret" not in str(error.value)


@pytest.mark.parametrize("excepted", ["127.0.0.1", "HOST", "*"])
def test_servers_that_are_asked_without_the_proxy(excepted: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", excepted.replace("HOST", web.host))
    assert web.folder.size("file") == len(DATA)
    assert web.asked[0][2] == "/labels/file"


@pytest.mark.parametrize("proxy", ["socks5://me:secret@127.0.0.1:9", "http://me:secret@127.0.0.1:none", "http://:9"])
def test_a_proxy_that_is_none(proxy: str, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(StorageError, match="the proxy of the environment is none of http://") as error:
        web.folder.size("file")
    assert "secret" not in str(error.value)
