"""Whole stores to a place far away and back, against a real S3 server and a web server."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import obstore
import pytest

from softlabels.errors import (
    ConfigError,
    DamagedManifest,
    DamagedShard,
    Interrupted,
    MissingExtra,
    SoftLabelsError,
    SpecMismatch,
    StorageError,
    StorePathError,
    UnsealedStore,
)
from softlabels.jobs.share import pull, push
from softlabels.jobs.watch import Watch
from softlabels.jobs.write_store import write_store
from softlabels.store import open_store
from softlabels.store.carry import Carrying
from softlabels.store.records import Manifest
from softlabels.store.verify import verify
from softlabels.system import bucket, urls
from softlabels.system.bucket import Bucket
from softlabels.system.depots import PART, Depot, LocalDepot
from softlabels.system.urls import depot_of
from softlabels_stages.__main__ import main
from tests.faults.writers import Child
from tests.jobs.seaweed import SECRET, free_ports
from tests.loopback import serving
from tests.system.liar import Liar
from tests.system.memory import MemoryDepot

STAMP = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag>"
GOLDEN = Path(__file__).parent.parent / "store" / "golden"


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "store")


def files(folder: Path, *, without: str = " ") -> dict[str, str]:
    """What lies in a folder, by name, with a hash of each."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and without not in str(path.relative_to(folder))
    }


def said(act: Callable[..., object], *args: object, **more: object) -> str:
    lines: list[str] = []
    act(*args, watch=Watch(lines.append, lines.append), **more)
    return "\n".join(lines)


def there(address: str) -> Bucket:
    found = depot_of(address)
    assert isinstance(found, Bucket)
    return found


def test_to_s3_and_back(store: Path, s3: str, tmp_path: Path) -> None:
    (store / "train" / "staging").mkdir()
    (store / "train" / "staging" / "left").write_bytes(b"never sent")
    (store / "train" / "set_aside" / "1").mkdir(parents=True)
    (store / "train" / "set_aside" / "1" / "left").write_bytes(b"never sent")
    assert "carried, digest" in said(push, store, s3)
    listed = set(there(s3).list())
    assert listed == {name for name in files(store) if "staging" not in name and "set_aside" not in name}
    there(s3).put("README.md", b"edited by people")
    assert "0 bytes carried" in said(push, store, s3)
    assert there(s3).read("README.md") == b"edited by people"
    found = pull(s3, tmp_path / "copy")
    assert {split: open_store(store / split).digest for split in ("train", "test")} == {
        split: manifest.digest for split, manifest in found.items()
    }
    for split in found:
        assert files(tmp_path / "copy" / split) == files(store / split, without="left")
        assert verify(tmp_path / "copy" / split) == []
    assert "0 bytes carried" in said(pull, s3, tmp_path / "copy")
    pull(s3, tmp_path / "one", split="test")
    assert [path.name for path in (tmp_path / "one").iterdir() if path.is_dir()] == ["test"]


SOME = ("v1-arrow", "v2-ragged-arrow", "v2-topk-zarr", "v3-several-zarr", "v3-frames-arrow")
EVERY = sorted(path.name for path in GOLDEN.iterdir() if (path / "manifest.json").exists())


@pytest.mark.parametrize(
    "golden", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
)
def test_every_format_travels_as_it_is(golden: str, tmp_path: Path) -> None:
    source, place = GOLDEN / golden, MemoryDepot()
    push(source, place)
    assert sorted(place.list()) == sorted(files(source))
    pull(place, tmp_path / "copy", digest=open_store(source).digest)
    assert files(tmp_path / "copy") == files(source)


class Killed(BaseException):
    """As a kill: nothing catches it."""


class Mortal:
    """A place that dies at its n-th write, before it or after it."""

    def __init__(self, place: Depot, left: int, *, after: bool) -> None:
        self._place, self._left, self._after = place, left, after

    def __str__(self) -> str:
        return str(self._place)

    def __getattr__(self, name: str) -> object:
        found = getattr(self._place, name)
        return partial(self._written, found) if name in ("create", "put", "fill") else found

    def _written(self, act: Callable[..., object], *args: object, **more: object) -> object:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise Killed
        found = act(*args, **more)
        if self._left == 0:
            raise Killed
        return found


def test_killed_at_each_write_it_goes_on(made: Path, tmp_path: Path) -> None:
    source, place = LocalDepot(made / "train"), MemoryDepot("there")
    for turn in range(100):
        broken = Mortal(place, turn // 2 + 1, after=turn % 2 == 1)
        try:
            Carrying(source, broken, read_back=True).run()  # type: ignore[arg-type]
            break
        except Killed:
            assert not place.exists("manifest.json") or turn % 2 == 1
    assert turn > 5
    pull(place, tmp_path / "copy")
    assert files(tmp_path / "copy") == files(made / "train")


def test_killed_in_the_middle_on_s3_and_on_a_disk(made: Path, s3: str, tmp_path: Path) -> None:
    source, digest = LocalDepot(made / "test"), open_store(made / "test").digest
    with pytest.raises(Killed):
        Carrying(source, Mortal(there(s3), 9, after=False), read_back=True).run()  # type: ignore[arg-type]
    with pytest.raises(UnsealedStore, match="is unfinished: it has a plan and no manifest; run the `softlabels push`"):
        pull(s3, tmp_path / "early")
    assert not (tmp_path / "early").exists()
    assert re.search("[1-9].* carried, .* were there", said(push, made / "test", s3))
    with pytest.raises(Killed):
        Carrying(there(s3), Mortal(LocalDepot(tmp_path / "copy"), 9, after=True)).run()  # type: ignore[arg-type]
    with pytest.raises(UnsealedStore):
        open_store(tmp_path / "copy")
    found: dict[str, Manifest] = {}
    assert re.search(
        "[1-9].* carried, .* were there", said(lambda **more: found.update(pull(s3, tmp_path / "copy", **more)))
    )
    assert found["test"].digest == digest
    assert files(tmp_path / "copy") == files(made / "test")


def test_a_push_that_begins_while_another_does(made: Path) -> None:
    class Raced(MemoryDepot):
        def sizes(self) -> Iterator[tuple[str, int]]:
            if not self.exists("plan.json"):
                self.put("plan.json", (made / "train" / "plan.json").read_bytes())  # of the other one
            return super().sizes()

    place = Raced("there")
    push(made / "train", place)
    assert sorted(place.list()) == sorted(files(made / "train"))


def test_asked_to_stop_it_goes_on_later(made: Path, tmp_path: Path) -> None:
    asked = iter(range(1000))
    watch = Watch(lambda line: None, lambda line: None, lambda: next(asked) > 5)
    with pytest.raises(Interrupted, match="run the same command again to resume"):
        pull(made / "train", tmp_path / "copy", watch=watch)
    assert not (tmp_path / "copy" / "manifest.json").exists()
    assert "were there" in said(pull, made / "train", tmp_path / "copy")


def test_a_place_that_holds_something_else(made: Path, s3: str, tmp_path: Path) -> None:
    there(s3).put("a/notes.txt", b"mine")
    with pytest.raises(StorePathError, match=r"holds other files \(a/notes.txt\); give an empty place"):
        push(made, s3)
    with pytest.raises(StorePathError, match="holds other files"):
        push(made / "train", s3)
    assert [*there(s3).list()] == ["a/notes.txt"]
    push(made / "train", f"{s3}/train")
    with pytest.raises(SpecMismatch, match=r"holds another store: .*transfer_set.content_keys: .* there, .* here"):
        push(made / "test", f"{s3}/train")
    copy = shutil.copytree(made / "train", tmp_path / "other")
    commit = copy / "commits" / "00000.json"
    commit.write_bytes(commit.read_bytes().replace(b'"write_id": "', b'"write_id": "0')[:-1])
    (copy / "manifest.json").unlink()
    with pytest.raises(SpecMismatch, match="records other labels than"):
        pull(f"{s3}/train", copy)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(StorePathError, match="holds other files"):
        pull(f"{s3}/train", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_the_wrong_digest_fetches_nothing(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match=f"has the digest {open_store(made / 'train').digest}, not {'a' * 64}"):
        pull(made / "train", tmp_path / "copy", digest="a" * 64)
    with pytest.raises(ConfigError, match="name the split of that digest: --split"):
        pull(made, tmp_path / "copy", digest="a" * 64)
    with pytest.raises(ConfigError, match="digest=abc is no digest"):
        pull(made, tmp_path / "copy", digest="abc")
    assert not (tmp_path / "copy").exists()


def test_credentials_that_expire_in_mid_push_lose_nothing(
    made: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = there(s3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", expired := "an-expired-secret-of-the-tests")
    refused, left = there(s3).client, iter(range(100))

    class Expiring(Bucket):
        def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
            if next(left) > 4:
                Bucket(refused, self.root, self.inside).fill(name, pieces, size)
            super().fill(name, pieces, size)

    with pytest.raises(StorageError) as caught:
        push(made / "train", Expiring(place.client, place.root, place.inside))
    assert re.search(
        r"cannot write s3://tests/\S+: it refuses the credentials \(403 .*\); .* renew them", str(caught.value)
    )
    assert re.search("run the same command again; what was carried is kept", str(caught.value))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert "were there" in said(push, made / "train", s3)
    pull(s3, tmp_path / "copy")
    every = str(caught.value) + repr(caught.value) + "".join(capfd.readouterr())
    every += "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "copy").rglob("*") if path.is_file())
    every += "".join(
        bytes(obstore.get(place.client, f"{place.inside}/{name}").bytes()).decode("latin-1") for name in place.list()
    )
    assert SECRET not in every
    assert expired not in every


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIA:topsecret@bucket/x",
        "https://host/x?X-Amz-Signature=topsecret",
        "az://box/x?sig=topsecret",
        "s3://b/x#topsecret",
        "s3://AKIA:topsecret/bucket",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str, made: Path) -> None:
    swapped = (partial(push, address, made), partial(pull, made, address), partial(open_store, address))
    for act in (partial(push, made, address), partial(pull, address, "copy"), *swapped):
        with pytest.raises(ConfigError) as caught:
            act()
        assert "topsecret" not in str(caught.value)
        assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("ftp://host/x", "ftp:// is not a known kind of place"),
        ("hf://team/name", "the address hf:// names no dataset repository; write hf://datasets/TEAM/NAME"),
        ("s3://bucket/../x", "or a backslash in it"),
        ("http://host/%2e%2e/x", "or a backslash in it"),
        ("s3:///x", "names no bucket or server"),
        ("http://[::1/x", "this is no address"),
        ("s3://\udcff/x", "names no bucket or server"),
        ("s3://bucket:9000/x", "names no bucket or server"),
        ("https://a b/x", "names no bucket or server"),
        ("https://host:port/x", "names no bucket or server"),
        ("az://b/\udcff", "or a backslash in it"),
        ("file://machine/x", "names a machine"),
        ("s3:/bucket/x", r"s3:/ begins no address: a slash is missing; write s3://, or \./s3:/ for a folder"),
    ],
)
def test_addresses_that_are_none(address: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        depot_of(address)


@pytest.mark.parametrize(
    ("name", "value", "scheme"),
    [
        ("AWS_ENDPOINT_URL", "topsecret:8333", "s3"),
        ("AWS_ENDPOINT_URL", "", "s3"),
        ("AWS_ENDPOINT_URL", "http://", "s3"),
        ("AWS_ENDPOINT_URL", "http://topsecret:port", "s3"),
        ("AWS_ENDPOINT_URL", "http://topsecret:1 ", "s3"),
        ("AWS_ENDPOINT_URL_S3", "HTTP://topsecret", "s3"),
        ("GOOGLE_BASE_URL", "topsecret:1", "gs"),
        ("AZURE_STORAGE_ENDPOINT", "topsecret:1", "az"),
        ("AWS_ACCESS_KEY_ID", "topsecret\n", "s3"),
        ("AWS_SECRET_ACCESS_KEY", " topsecret", "s3"),
        ("AWS_SESSION_TOKEN", "top\nsecret", "s3"),
        ("AWS_REGION", "t\xf6psecret", "s3"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "topsecret\r", "az"),
    ],
)
def test_variables_with_which_no_request_can_be_made(
    name: str, value: str, scheme: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigError, match=f"{name} (is not the address of a server; write http://|has spaces)"
    ) as caught:
        open_store(f"{scheme}://bucket/x")
    assert "secret" not in str(caught.value)
    assert "panicked" not in capfd.readouterr().err


def test_clouds_without_their_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"secret": "topsecret"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for address in ("az://box/x", "gs://bucket/x"):
        with pytest.raises(ConfigError, match="needs environment variables") as caught:
            depot_of(address)
        assert "topsecret" not in str(caught.value)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "team")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "dG9wc2VjcmV0")
    assert repr(depot_of("az://box/x")) == "Bucket(root='az://box', inside='x', prepares=False)"


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> object:
        raise ModuleNotFoundError(f"No module named {package}", name="obstore")

    monkeypatch.setattr("softlabels.objects.importlib.import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'softlabels\[remote\]'"):
        urls.depot_of("s3://bucket/x")


def test_a_server_that_is_not_there(s3: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="cannot list s3://nowhere/x: there is no such bucket; check the address"):
        push(made, "s3://nowhere/x")
    monkeypatch.setattr(urls, "RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StorageError, match="no answer in time, or a broken one; check the address and the network"):
        push(made, s3)


@pytest.mark.parametrize("name", ["..", ".", "../../out", "/etc", "a\\b", ".git", "x\x1b[2J", "", "n" * 300, "c:"])
def test_names_of_splits_that_lead_elsewhere(name: str, made: Path, tmp_path: Path) -> None:
    source = shutil.copytree(made, tmp_path / "source")
    root = json.loads((source / "zarr.json").read_bytes()) if (source / "zarr.json").exists() else {"attributes": {}}
    root["attributes"]["softlabels"] = {"splits": ["train", name]}
    (source / "zarr.json").write_text(json.dumps(root))
    before = files(tmp_path)
    with pytest.raises(StorePathError, match="which cannot be the name of a folder") as caught:
        pull(source, tmp_path / "copy")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(StorePathError, match="which cannot be the name of a folder"):
        pull(source, tmp_path / "copy", split=name)
    assert files(tmp_path) == before


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "short": data[:-3], "long": data + b"x"}[how])
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "short", "long"])
@pytest.mark.parametrize("name", ["logits/c.1.0.0", "commits/00001.json", "manifest.json", "plan.json"])
def test_what_is_not_what_was_sealed_is_neither_sent_nor_kept(how: str, name: str, store: Path, tmp_path: Path) -> None:
    source = store / "train"
    damage(source / name, how)
    place = MemoryDepot("there")
    error = DamagedShard if name.startswith("logits") else DamagedManifest
    with pytest.raises(error):
        push(source, place)
    assert not {name, "manifest.json"} & {*place.list()}
    with pytest.raises(error):
        pull(source, tmp_path / "copy")
    assert not (tmp_path / "copy" / name).exists()
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_a_large_file_that_is_another_one_is_not_there_afterwards(s3: str, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(PART)
        yield bytes(PART)
        raise DamagedShard("another one", remedy="none")

    for place in (there(s3), LocalDepot(tmp_path)):
        with pytest.raises(DamagedShard):
            place.fill("large", pieces(), 2 * PART, staged="staging/x")
        assert not place.exists("large")
        place.fill("large", iter([bytes(PART), b"abc"]), PART + 3, staged="staging/x")
        assert place.read("large") == bytes(PART) + b"abc"
        size, found = place.opened("large")
        assert (size, b"".join(found)) == (PART + 3, bytes(PART) + b"abc")
        out = bytearray(10)
        assert place.file("large").read_into(PART - 1, memoryview(out)) == 4
        assert out[:4] == b"\0abc"
        assert place.file("large").read_into(PART + 3, memoryview(out)) == 0


def test_a_pull_makes_a_damaged_store_whole(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "train", tmp_path / "copy")
    damage(copy / "logits" / "c.1.0.0", "flip")
    (copy / "shift" / "c.0.0").unlink()
    (copy / "commits" / "00002.json").unlink()
    assert len(verify(copy)) == 3
    pull(made / "train", copy)
    assert files(copy) == files(made / "train")


def test_a_server_that_overwrites_names_that_are_taken(made: Path, s3: str) -> None:
    class Careless(Bucket):
        def create(self, name: str, data: bytes, *, staged: str = "") -> bool:
            self.put(name, data)
            return True

    place = there(s3)
    with pytest.raises(StorageError, match=r"overwrites existing names, .*; use a server that supports If-None-Match"):
        push(made / "train", Careless(place.client, place.root, place.inside))
    assert [*place.list()] == ["plan.json"]


def test_a_server_that_loses_what_it_was_given(made: Path, s3: str) -> None:
    class Lossy(Bucket):
        def fill(self, name: str, pieces: Iterable[bytes], size: int, *, staged: str = "") -> None:
            lost = name == lossy
            super().fill(name, [bytes(len(piece)) if lost else piece for piece in pieces], size)

    place = there(s3)
    for lossy in ("logits/c.1.0.0", "zarr.json"):
        with pytest.raises(
            StorageError, match=f"{lossy} does not hold what was written to it; run the same command again"
        ):
            push(made / "train", Lossy(place.client, place.root, place.inside))
        assert not place.exists("manifest.json")
    push(made / "train", s3)


class Web(SimpleHTTPRequestHandler):
    """A plain web server: it lists nothing that we read, and gives no parts of files."""

    lie: Callable[[Web], bool] = lambda self: False

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if not type(self).lie(self):
            super().do_GET()

    def do_HEAD(self) -> None:
        if not type(self).lie(self):
            super().do_HEAD()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serves a folder; what a handler `lie` answers itself, it does not."""
    servers = ExitStack()

    def serve(folder: Path, lie: Callable[[Web], bool] = lambda self: False) -> str:
        handler = type("Handler", (Web,), {"lie": staticmethod(lie)})
        return servers.enter_context(serving(partial(handler, directory=str(folder))))

    with servers:
        yield serve


def test_from_a_web_server(made: Path, web: Callable[..., str], tmp_path: Path) -> None:
    address = web(made.parent)
    pull(f"{address}/store", tmp_path / "copy")
    for split in ("train", "test"):
        assert files(tmp_path / "copy" / split) == files(made / split)
    with pytest.raises(ConfigError, match="is a web server, to which nothing is pushed"):
        push(made, address)
    with pytest.raises(StorageError, match=r"lists nothing: a web server does not; name the split"):
        pull(address, tmp_path / "other")
    with pytest.raises(UnsealedStore, match="holds no store"):
        pull(f"{address}/store", tmp_path / "other", split="validation")


def answer(request: Web, data: bytes, length: int) -> bool:
    request.send_response(200)
    request.send_header("Content-Length", str(length))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(data)
    return True


@pytest.mark.parametrize(
    ("name", "data", "length", "error", "what"),
    [
        ("manifest.json", b"{}", 1 << 40, DamagedManifest, "is larger than"),
        ("manifest.json", b"<html>welcome</html>", 20, DamagedManifest, "does not fit the format"),
        ("commits/00001.json", b"{}", 1 << 40, DamagedManifest, "is larger than"),
        ("commits/00001.json", b"{}", 2, DamagedManifest, "is not the one sealed"),
        ("logits/c.0.0.0", b"", 1 << 50, DamagedShard, "bytes, not the recorded"),
        ("README.md", b"", 1 << 30, DamagedManifest, "is larger than"),
    ],
)
def test_sizes_that_lie(
    name: str, data: bytes, length: int, error: type[SoftLabelsError], what: str, made: Path, tmp_path: Path,
    web: Callable[..., str],
) -> None:  # fmt: skip
    address = web(made / "train", lambda request: request.path == f"/{name}" and answer(request, data, length))
    with pytest.raises(error, match=what):
        pull(address, tmp_path / "copy")
    assert not (tmp_path / "copy" / "manifest.json").exists()


@pytest.fixture
def lying_s3(web: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts what answers like this in the place of the S3 server."""

    def serve(lie: Callable[[Web], bool]) -> None:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", web(tmp_path, lie))

    return serve


def listing(*keys: str, size: int = 1, more: str = "") -> Callable[[Web], bool]:
    def lie(request: Web) -> bool:
        if "list-type" not in request.path:
            return False
        listed = "".join(f"<Contents><Key>{key}</Key><Size>{size}</Size>{STAMP}</Contents>" for key in keys)
        text = f"<ListBucketResult>{listed}{more}</ListBucketResult>".encode()
        return answer(request, text, len(text))

    return lie


@pytest.mark.parametrize("turns", [16, pytest.param(300, marks=pytest.mark.slow)])
def test_a_place_that_lies(turns: int, tmp_path: Path, rng: np.random.Generator) -> None:
    """What arrives is right, or no store is there, and an honest place then gives what is missing."""
    source, ended = tmp_path / "source" / "train", set[str]()
    write_store(source, rng.normal(size=(20, 1, 3)), inputs=np.arange(20)[:, None], rows_per_shard=16)
    for turn in range(turns):
        rows, copy = ("3:18" if turn % 4 == 3 else None), tmp_path / str(turn)
        try:
            pull(Liar.of(source, rng, 0.05), copy, rows=rows)
            ended.add("right")
        except SoftLabelsError as error:
            assert not (copy / "manifest.json").exists()
            ended.add(type(error).__name__)
        found = pull(source, copy, rows=rows)["train"]
        assert rows is not None or found.digest == open_store(source).digest
    assert len(ended) > 1
    assert len([*tmp_path.iterdir()]) == turns + 1


def test_a_plan_that_changes_while_it_is_read(made: Path, tmp_path: Path) -> None:
    asked = iter(range(100))

    class Changing(LocalDepot):
        def read(self, name: str, limit: int | None = None) -> bytes:
            data = super().read(name, limit)
            late = name == "plan.json" and next(asked) > 1
            return data.replace(b'"source": "', b'"source": "other') if late else data

    copy = tmp_path / "copy"
    with suppress(SoftLabelsError):
        pull(Changing(made / "train"), copy)
    pull(made / "train", copy)
    assert files(copy) == files(made / "train")


def test_a_listing_without_end(
    lying_s3: Callable[..., None], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    lying_s3(listing(*(f"x/{n}/plan.jso" for n in range(1000)), more=more))
    monkeypatch.setattr(bucket, "MOST_LISTED", 5000)
    with pytest.raises(StorageError, match="has not ended after 5,000 objects"):
        pull("s3://bucket/x", tmp_path / "copy")
    with pytest.raises(StorePathError, match="holds other files"):
        push(made / "train", "s3://bucket/x")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("y/secret", "lists keys outside of the request"),
        ("x/../y", "cannot list s3://bucket/x: a key there is no path"),
        ("x//y", "a key there is no path"),
        ("x/\x7f", "a key there is no path"),
    ],
)
def test_keys_that_no_store_has(key: str, what: str, lying_s3: Callable[..., None], tmp_path: Path) -> None:
    lying_s3(listing(key))
    with pytest.raises(StorageError, match=what):
        pull("s3://bucket/x", tmp_path / "copy")


def test_what_a_console_makes_of_a_folder_is_no_file(lying_s3: Callable[..., None]) -> None:
    lying_s3(listing("x/", "x/train/", size=0))
    assert [*there("s3://bucket/x").sizes()] == []


def test_more_bytes_than_were_asked_for(web: Callable[..., str], tmp_path: Path) -> None:
    def generous(request: Web) -> bool:
        if request.command == "HEAD":
            return answer(request, b"", 100)
        request.send_response(206)
        for name, said in {"Content-Range": "bytes 0-9/100", "Content-Length": "20", "ETag": "e"}.items():
            request.send_header(name, said)
        request.end_headers()
        request.wfile.write(bytes(20))
        return True

    with pytest.raises(StorageError, match=r"cannot read http://\S+/x: 20 bytes came instead of 10"):
        depot_of(web(tmp_path, generous)).file("x").read_into(0, memoryview(bytearray(10)))


def test_a_signal_is_heard_while_a_server_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, seen = threading.Event(), list[bool]()
    monkeypatch.setattr(urls, "RETRIES", {"max_retries": 0})

    def answer_late(server: socket.socket) -> None:
        with server.accept()[0]:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            seen.append(heard.wait(5))

    def stop(number: int, frame: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            place = depot_of(f"http://127.0.0.1:{server.getsockname()[1]}")
            thread = threading.Thread(target=answer_late, args=(server,))
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                place.size("x")
            thread.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [True]


def test_the_commands(made: Path, s3: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(made), s3]) == 0
    assert f"pushed: {s3}" in capfd.readouterr().out
    assert main(["list", s3]) == 0
    assert f"{s3}/test: imaginary (2 members), points, test, 80 rows, dense, zarr" in capfd.readouterr().out
    assert main(["pull", s3, str(tmp_path / "copy"), "--split=test"]) == 0
    assert "every byte is as it was sealed" in capfd.readouterr().out
    assert main(["pull", s3, str(tmp_path / "copy"), "--split=valid"]) == 2
    assert "UnsealedStore: s3://tests/test_the_commands/valid holds no store" in capfd.readouterr().err
    for words in (["push", str(made)], ["pull", s3], ["push", str(tmp_path / "none"), s3]):
        assert main(words) == 2
    assert main(["push", str(made), f"{s3}?token=topsecret"]) == 2
    assert "topsecret" not in capfd.readouterr().err


def begun(place: Depot) -> bool:
    """Whether a store is half there."""
    return place.exists("plan.json") and not place.exists("manifest.json")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["push", "pull"])
def test_killed_twenty_times(command: str, s3: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """SIGKILL at random moments, of which twenty find the store half there. Where a command is quicker, it begins anew."""
    logits = rng.normal(size=(20_000, 1, 100)).astype(np.float32)
    inputs = np.arange(len(logits), dtype=np.int32)[:, None]
    write_store(tmp_path / "store", logits, inputs=inputs, split="train", rows_per_shard=512)
    turn, killed, done = 0, 0, False
    if command == "pull":
        push(tmp_path / "store", s3)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["softlabels_stages.push", "softlabels_stages.pull", "obstore"])
    while killed < 20 or not done:
        address, copy = (f"{s3}/{turn}" if command == "push" else s3), tmp_path / f"copy{turn}"
        words = [str(tmp_path / "store"), address] if command == "push" else [address, str(copy)]
        child = processes.Process(target=main, args=([command, *words],))
        child.start()
        child.join(rng.uniform(0.02, 1) if killed < 20 else 200)
        done = child.exitcode is not None
        if not done:
            child.kill()
            child.join()
            killed += begun(there(address) if command == "push" else LocalDepot(copy))
            continue
        assert child.exitcode == 0
        if command == "push":
            pull(address, copy)
        assert files(copy) == files(tmp_path / "store")
        turn += 1


@pytest.mark.slow
def test_killed_three_times(tmp_path: Path, rng: np.random.Generator) -> None:
    """The same from folder to folder, in forks of this process."""
    source, copy, killed = tmp_path / "store" / "train", tmp_path / "copy", 0
    write_store(source, rng.normal(size=(200, 1, 9)), inputs=np.arange(200)[:, None], rows_per_shard=16)
    while killed < 3:
        child = Child(lambda acknowledge: acknowledge(len(pull(source, copy))) and None).go()
        if child.lasts(float(rng.uniform(0, 0.2))):
            child.kill()
            killed += begun(LocalDepot(copy))
        else:
            assert child.end().code == 0
            shutil.rmtree(copy)
    pull(source, copy)
    assert files(copy) == files(source)


def test_some_rows(made: Path, s3: str, tmp_path: Path, web: Callable[..., str]) -> None:
    push(made / "train", s3)
    whole = open_store(made / "train")
    asked: list[str] = []

    class Counting(Bucket):
        def part(self, name: str, start: int, length: int) -> bytes:
            asked.append(name)
            return super().part(name, start, length)

    place = there(s3)
    counting = Counting(place.client, place.root, place.inside)
    found = pull(counting, tmp_path / "few", rows="100:120,3", digest=whole.digest)["train"]
    few = open_store(tmp_path / "few")
    assert few.digest == found.digest
    assert found.spec.parents[0].digest == whole.digest  # type: ignore[index,union-attr]
    rows = [*range(100, 120), 3]
    for name in whole.columns:
        assert few.column(name).tobytes() == whole.column(name)[rows].tobytes()
    assert not [name for name in asked if name.startswith("logits/c.2.")]
    with pytest.raises(SpecMismatch):
        pull(s3, tmp_path / "few", rows="100:121,3")
    with pytest.raises(SpecMismatch, match="nothing of it was used"):
        pull(s3, tmp_path / "other", rows="0:1", digest="a" * 64)
    with pytest.raises(ConfigError, match="name one: --split=train"):
        pull(made, tmp_path / "other", rows="0:1")
    with pytest.raises(StorageError, match="the server gives no parts of files; pull the whole store"):
        pull(web(made / "train"), tmp_path / "other", rows="0:1")
