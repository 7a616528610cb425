"""A stand-in for the Hugging Face Hub on loopback, in a thread: what huggingface_hub and `datasets` ask of it to push, to pull
and to load. No Xet, no multipart uploads, no redirects, no rate limits of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback import serving

TOKEN = "hf_a_secret_of_the_tests"


@dataclass
class Repo:
    """Its commits: of each the files, by path; the last one is its head."""

    private: bool = False
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.arrow filter=lfs\n"}])

    def id(self, number: int = -1) -> str:
        number %= len(self.commits)
        return hashlib.sha1(f"{number} {sorted(self.commits[number])}".encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        ids = {self.id(number): files for number, files in enumerate(self.commits)}
        return self.commits[-1] if revision == "main" else ids.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]


@dataclass
class FakeHub:
    """What it holds and was asked. `meddle` is called before each answer; the status that it gives, if any, is the answer."""

    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    meddle: Callable[[str, str], int | None] = lambda method, path: None
    endpoint: str = ""

    def uploads(self) -> list[str]:
        """The blobs that were sent, each as often as it was."""
        return [path for method, path in self.asked if method == "PUT"]


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    with serving(type("Handler", (_Handler,), {"hub": hub})) as hub.endpoint:
        yield hub


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str, data: bytes) -> bool:
    """Whether it is kept apart."""
    return path.endswith((".arrow", ".parquet")) or b"\0" in data[:512] or not data[:512].isascii()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # an answer in one piece
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, code: int, data: object = b"", **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def handle_one(self) -> None:
        try:
            self.respond(self.body(), unquote(urlsplit(self.path).path))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked was killed

    do_GET = do_POST = do_PUT = do_HEAD = handle_one  # noqa: N815

    def respond(self, body: bytes, path: str) -> None:
        hub = self.hub
        hub.asked.append((self.command, path))
        if (status := hub.meddle(self.command, path)) is not None:
            return self.answer(status, {"error": f"no, and {TOKEN} is not repeated"})
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path.startswith("/blob/"):
            if hashlib.sha256(body).hexdigest() != path[6:]:
                return self.answer(400)
            hub.blobs[path[6:]] = body
            return self.answer(200)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            if not known:
                return self.answer(401, X_Error_Message="Invalid username or password.")
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            hub.repos.setdefault(name, Repo(private=asked.get("visibility") == "private"))
            return self.answer(200, {"url": f"{hub.endpoint}/datasets/{name}", "id": name, "name": name})
        found = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/.]+)(?:\.git)?(?:/(.*))?", path)
        repo = hub.repos.get(found[1]) if found else None
        if found is None or repo is None or (repo.private and not known):
            return self.answer(404 if known else 401, X_Error_Code="RepoNotFound")
        if self.command in ("POST", "PUT") and not known and "paths-info" not in path:
            return self.answer(403, X_Error_Message="no")
        return self.of_repo(repo, found[1], found[2] or "revision/main", body)

    def of_repo(self, repo: Repo, name: str, rest: str, body: bytes) -> None:
        what, _, more = rest.partition("/")
        revision, _, inside = more.partition("/")
        if what == "info":  # lfs/objects/batch
            return self.answer(200, {"transfer": "basic", "objects": [*map(self.batch, json.loads(body)["objects"])]})
        if what == "preupload":
            files = [self.mode(repo, each) for each in json.loads(body)["files"]]
            return self.answer(200, {"files": files, "commitOid": repo.id()})
        if what == "commit":
            return self.commit(repo, name, body)
        files = repo.at(revision)
        if files is None:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if what == "revision":
            about = (
                {"id": name, "sha": repo.id([*map(repo.id, range(len(repo.commits)))].index(revision))}
                if (revision != "main")
                else {"id": name, "sha": repo.id()}
            )
            siblings = [{"rfilename": path} for path in files]
            return self.answer(200, about | {"siblings": siblings, "private": repo.private, "tags": [], "downloads": 0})
        if what == "paths-info":
            asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            return self.answer(200, [entry(path, files[path]) for path in asked if path in files])
        if what == "tree":
            return self.tree(files, inside)
        return self.resolve(repo, files, inside) if what == "resolve" else self.answer(404)

    def batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        about = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
        if asked["oid"] in self.hub.blobs:
            return about
        return about | {"actions": {"upload": {"href": f"{self.hub.endpoint}/blob/{asked['oid']}?signature={TOKEN}"}}}

    def mode(self, repo: Repo, asked: dict[str, Any]) -> dict[str, Any]:
        path, standing = asked["path"], repo.files.get(asked["path"])
        large = is_large(path, base64.b64decode(asked["sample"]))
        oid = None if standing is None else hashlib.sha256(standing).hexdigest() if large else git_id(standing)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def commit(self, repo: Repo, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        if lines[0]["value"].get("parentCommit", repo.id()) != repo.id():
            return self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repo.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile" and value["oid"] not in self.hub.blobs:
                return self.answer(400, {"error": "no such blob"})
            large = line["key"] == "lfsFile"
            files[value["path"]] = self.hub.blobs[value["oid"]] if large else base64.b64decode(value["content"])
        repo.commits.append(files)
        url = f"{self.hub.endpoint}/datasets/{name}/commit/{repo.id()}"
        return self.answer(200, {"success": True, "commitOid": repo.id(), "commitUrl": url})

    def tree(self, files: dict[str, bytes], inside: str) -> None:
        lead = f"{inside}/".lstrip("/")
        below = {path: data for path, data in files.items() if path.startswith(lead)}
        if not below:
            return self.answer(404, X_Error_Code="EntryNotFound")
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        found = [entry(path, data) for path, data in below.items() if deep or "/" not in path[len(lead) :]]
        folders = {lead + path[len(lead) :].partition("/")[0] for path in below if "/" in path[len(lead) :]}
        return self.answer(
            200, found + [{"type": "directory", "path": each, "oid": "3" * 40} for each in sorted(folders)]
        )

    def resolve(self, repo: Repo, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        data = files[path]
        head = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": repo.id(), "Accept_Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            return self.answer(200, data, **head)
        part = data[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
        last = int(asked[1]) + len(part) - 1
        return self.answer(206, part, Content_Range=f"bytes {asked[1]}-{last}/{len(data)}", **head)


def entry(path: str, data: bytes) -> dict[str, Any]:
    found = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
    large = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found | ({"lfs": large} if is_large(path, data) else {})
