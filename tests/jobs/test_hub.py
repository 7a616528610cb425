"""Whole stores to the Hub and back, against a stand-in: tests/jobs/hub.py says what it is not."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from huggingface_hub.hf_api import RepoFolder

from softlabels.errors import ConfigError, SoftLabelsError, SpecMismatch, StorageError, StorePathError, UnsealedStore
from softlabels.jobs.listing import Found, stores_at
from softlabels.jobs.share import pull, push
from softlabels.jobs.write_store import write_store
from softlabels.store import open_store
from softlabels.store.verify import verify
from softlabels.system import repository
from softlabels.system.depots import PART
from softlabels.system.urls import depot_of
from softlabels_stages.__main__ import main
from tests.jobs.hub import TOKEN, FakeHub, Repo, _Handler
from tests.jobs.test_share import files, said

# huggingface_hub sends files in a way that its own client calls old.
pytestmark = pytest.mark.filterwarnings("ignore:.*content=:DeprecationWarning")
AT = "hf://datasets/team/name"
NAMES = ["cat", "no: dog", "owl \N{OWL}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two splits, `arrow` and `zarr`, with the same labels."""
    root, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for split, rows in (("train", 40), ("test", 20)):
        logits, inputs = rng.normal(size=(rows, 2, 3)).astype(np.float32), rng.normal(size=(rows, 4)).astype(np.float32)
        for layout in ("arrow", "zarr"):
            write_store(
                root / layout / split, logits, inputs=inputs, labels=np.arange(rows) % 3, classes=NAMES,
                rows_per_shard=32, layout=layout,
            )  # fmt: skip
    return root


@pytest.mark.parametrize("layout", [pytest.param("arrow", marks=pytest.mark.slow), "zarr"])
def test_to_the_hub_and_back(made: Path, layout: str, hub: FakeHub, tmp_path: Path) -> None:
    store = shutil.copytree(made / layout, tmp_path / "store")
    (store / "train" / "staging").mkdir(exist_ok=True)
    (store / "train" / "staging" / "left").write_bytes(b"never sent")
    assert "a new private repository" in said(push, store, AT)
    repo = hub.repos["team/name"]
    assert repo.private
    assert len(repo.commits) == 2
    own = {".gitattributes", "README.md", "preview/train.parquet", "preview/test.parquet"}
    assert {*repo.files} - own == set(files(store, without="left")) - {"README.md"}
    found = pull(AT, tmp_path / "copy")
    assert {split: manifest.digest for split, manifest in found.items()} == {
        split: open_store(store / split).digest for split in ("train", "test")
    }
    assert files(tmp_path / "copy") == files(store, without="left")
    sent = len(hub.uploads())
    assert "0 bytes carried" in said(push, store, AT)
    assert (len(hub.uploads()), len(repo.commits)) == (sent, 2)
    digest = found["test"].digest
    pull(f"{AT}@{repo.id()}", tmp_path / "one", split="test", digest=digest)
    assert [path.name for path in (tmp_path / "one").iterdir() if path.is_dir()] == ["test"]
    few = pull(AT, tmp_path / "few", split="train", rows="3,20:35")["train"]
    assert few.spec.parents[0].digest == found["train"].digest  # type: ignore[index,union-attr]
    listed = [each for each in stores_at(AT) if isinstance(each, Found)]
    assert [(each.where, each.manifest.digest) for each in listed if each.manifest] == [
        (f"{AT}/{split}", found[split].digest) for split in ("test", "train")
    ]


def test_a_single_store_in_a_folder_of_a_repository_that_people_use(made: Path, hub: FakeHub, tmp_path: Path) -> None:
    head = "license: mit\ntags: [{a: [b]}]\nconfigs:\n- config_name: other\n  data_files: x.csv\ndate: 2026-01-01"
    head += "\nlanguage: [en, no]\nat: 12:30"  # of which YAML 1.1 makes False and 750
    page = f"\ufeff\n---\n{head}\n---\n# Ours\n\nWords.\n"
    hub.repos["team/name"] = repo = Repo(
        commits=[{"README.md": page.encode(), "x.csv": b"a\n1\n", "deep/notes.txt": b"mine"}]
    )
    push(made / "zarr" / "train", f"{AT}/points")
    push(made / "arrow", f"{AT}/deep/er")
    found = pull(f"{AT}/points", tmp_path / "copy")
    assert verify(tmp_path / "copy") == []
    assert files(tmp_path / "copy") == files(made / "zarr" / "train")
    assert found["train"].digest == open_store(made / "zarr" / "train").digest
    text = repo.files["README.md"].decode()
    head, body = text.split("---\n")[1:3]
    fields = yaml.safe_load(head)
    names = ["other", "points", "deep--er"]
    assert [each["config_name"] for each in fields["configs"]] == names
    assert (fields["license"], str(fields["date"])) == ("mit", "2026-01-01")
    assert (fields["language"], fields["at"]) == (["en", "no"], "12:30")
    assert body.startswith("\n# Ours\n\nWords.\n")
    assert body.count("softlabels pull hf://datasets/team/name/points STORE") == 1
    repo.commits.append(repo.files | {"README.md": (text + "\nMore words.\n").encode()})
    push(made / "zarr" / "train", f"{AT}/points")
    assert repo.files["README.md"].decode() == text + "\nMore words.\n"
    assert repo.files["x.csv"] == b"a\n1\n"
    assert repo.files["deep/notes.txt"] == b"mine"


@pytest.mark.parametrize("layout", ["arrow", "zarr"])
def test_load_dataset_knows_the_classes(made: Path, layout: str, hub: FakeHub, tmp_path: Path) -> None:
    push(made / layout, AT)
    for name in hub.repos["team/name"].files:  # a copy of the repository, as the viewer sees it
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(hub.repos["team/name"].files[name])
    cache = str(tmp_path / "cache")
    whole = datasets.load_dataset(str(tmp_path / "copy"), cache_dir=cache)
    for split in ("train", "test"):
        store = open_store(made / layout / split)
        assert whole[split].features["label"].names == NAMES
        assert whole[split]["label"][:] == store.column("label").tolist()
    shown = {"train": str(tmp_path / "copy" / "preview" / "train.parquet")}
    short = whole if layout == "zarr" else datasets.load_dataset("parquet", data_files=shown, cache_dir=cache)
    assert short["train"].features["label"].names == NAMES
    assert short["train"]["key"][0] == bytes(open_store(made / layout / "train").column("content_key")[0]).hex()
    p = open_store(made / layout / "train").probabilities(range(40), temperature=1.0)
    assert np.array_equal(np.float32(-np.sort(-p)), np.float32(short["train"]["p"][:]))
    assert short["train"]["top"][:] == [[NAMES[each] for each in row] for row in (-p).argsort()]
    if layout == "arrow":  # the card of a store on a disk does the same
        local = datasets.load_dataset(str(made / layout), cache_dir=cache)
        assert local["test"].features["label"].names == NAMES
        logits = local["test"].with_format("arrow")[:]["logits"].combine_chunks().flatten().flatten().to_numpy()
        assert np.array_equal(logits.reshape(20, 2, 3), open_store(made / layout / "test").column("logits"))


def test_a_repository_that_holds_something_else(made: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["team/name"] = repo = Repo()
    repo.commits.append(repo.files | {"notes.txt": b"mine"})
    for store in (made / "zarr", made / "zarr" / "train"):
        with pytest.raises(StorePathError, match=r"team/name holds other files \(notes.txt\)"):
            push(store, AT)
    with pytest.raises(UnsealedStore, match="holds no store"):
        pull(f"{AT}/nothing", tmp_path / "copy", split="train")
    push(made / "zarr" / "train", f"{AT}/points")
    with pytest.raises(SpecMismatch, match="holds another store"):
        push(made / "zarr" / "test", f"{AT}/points")
    assert len(repo.commits) == 3
    shutil.copytree(made / "zarr" / "train", tmp_path / "store" / "preview")
    with pytest.raises(ConfigError, match="a split called preview cannot lie at the root"):
        push(tmp_path / "store", AT)
    for folder in ("default", "a--b", "a-/b"):  # as the page calls the root, and a/b
        with pytest.raises(ConfigError, match="would have the name of another store on the page"):
            push(made / "zarr" / "train", f"{AT}/{folder}")


def test_somebody_else_commits_meanwhile(made: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["team/name"] = repo = Repo()

    def meddle(method: str, path: str) -> None:
        if method == "PUT" and len(repo.commits) == 1:
            repo.commits.append(repo.files | {"plan.json": b"theirs"})

    hub.meddle = meddle
    with pytest.raises(SpecMismatch, match=r"somebody else committed to it since this command began \(412\)"):
        push(made / "zarr", AT)
    assert {*repo.files} == {".gitattributes", "plan.json"}
    repo.commits.append({".gitattributes": b""})
    sent = len(hub.uploads())
    push(made / "zarr", AT)
    assert len(hub.uploads()) == sent
    hub.meddle = lambda method, path: None
    repo.commits.append(repo.files | {"train/label/c.0": b"x" * len(repo.files["train/label/c.0"])})
    with pytest.raises(SoftLabelsError, match="is not the file that was sealed"):
        pull(AT, tmp_path / "copy", split="train")
    push(made / "zarr", AT)  # which mends it
    pull(AT, tmp_path / "copy", split="train")


def test_a_hub_that_keeps_something_else(made: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["team/name"] = repo = Repo()
    push(made / "zarr" / "test", AT)
    lost = next(name for name in repo.files if name.startswith("logits/c."))
    fill, repo.commits = Repo.at, repo.commits[:1]

    def at(self: Repo, revision: str) -> dict[str, bytes] | None:
        return {name: data[::-1] if name == lost else data for name, data in (fill(self, revision) or {}).items()}

    monkeypatch.setattr(Repo, "at", at)
    with pytest.raises(StorageError, match="does not list what was"):
        push(made / "zarr" / "test", AT)


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (401, r"no such repository, or this token has no access \(401\); check the address; if it is private, log in"),
        (403, r"the token has no permission \(403\); use one that may write"),
        (429, r"too many requests \(429\); wait some minutes"),
        (500, r"the Hub answered 500; check the address, and run the same command again; what was sent is kept"),
    ],
)
def test_what_the_hub_refuses(status: int, what: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its tries
    hub.repos["team/name"] = Repo()
    place = depot_of(AT)
    assert not place.exists("x")
    for kind in ("/blob/", "/commit/"):
        hub.meddle = lambda method, path, kind=kind: status if kind in path else None  # type: ignore[misc]
        with place.repository.sending():  # type: ignore[union-attr]
            place.fill("x", [b"\0"], 1, staged="")
            with pytest.raises(StorageError, match=what):
                place.repository.publish("x")  # type: ignore[union-attr]


def test_a_token_that_expires_in_mid_push_loses_nothing(
    made: Path, hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left = iter(range(1000))
    hub.meddle = lambda method, path: 403 if method == "PUT" and next(left) > 3 else None
    with pytest.raises(
        StorageError, match=r"cannot send to hf://datasets/team/name: the token has no permission"
    ) as caught:
        push(made / "zarr", AT)
    there, before = {*hub.blobs}, len(hub.uploads())
    hub.meddle = lambda method, path: None
    push(made / "zarr", AT)
    assert there
    assert not {path[6:] for path in hub.uploads()[before:]} & there
    pull(AT, tmp_path / "copy")
    every = str(caught.value) + repr(caught.value) + repr(depot_of(AT)) + "".join(capfd.readouterr())
    every += "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "copy").rglob("*") if path.is_file())
    every += "".join(data.decode("latin-1") for data in hub.repos["team/name"].files.values())
    assert TOKEN not in every


def test_a_hub_that_does_not_end(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of folders; an answer to a request for a part. One that breaks off is asked for again."""
    hub.repos["team/name"] = Repo(commits=[{"x": bytes(PART)}])
    sent, whole = [0], _Handler.resolve

    def resolve(self: _Handler, *given: object) -> None:
        if sent[0]:
            whole(self, *given)  # type: ignore[arg-type]
            return
        self.send_response(206)
        self.send_header("Content-Length", str(8 * PART))
        self.end_headers()
        with suppress(OSError):
            while sent[0] < length:
                sent[0] += self.wfile.write(bytes(1 << 16))
        self.close_connection = True

    monkeypatch.setattr(_Handler, "resolve", resolve)
    length = 8 * PART
    with pytest.raises(StorageError, match="the server gives no parts of files"):
        depot_of(AT).read("x")
    assert sent[0] < length
    sent, length = [0], PART // 2
    assert depot_of(AT).read("x") == bytes(PART)
    place = depot_of(AT)
    monkeypatch.setattr(repository, "MOST_LISTED", 100)
    folders = (RepoFolder(path=f"f{number}", oid="1" * 40) for number in range(1000))
    monkeypatch.setattr(place.repository.api, "list_repo_tree", lambda *given, **options: folders)  # type: ignore[union-attr]
    with pytest.raises(StorageError, match="has not ended after 100 files and folders"):
        place.exists("x")


@pytest.mark.parametrize("kind", ["tree", "revision"])
@pytest.mark.parametrize(
    "answer",
    [
        b"{", 1, [1], {"error": "x"}, [{"type": "file"}], [{"type": "file", "path": "x", "oid": "1", "size": "y"}],
        [{"type": "file", "path": 1, "oid": "1", "size": -1}],
    ],
)  # fmt: skip
def test_answers_that_are_none(kind: str, answer: object, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["team/name"], of_repo = Repo(), _Handler.of_repo

    def respond(self: _Handler, repo: Repo, name: str, rest: str, body: bytes) -> None:
        self.answer(200, answer) if rest.startswith(kind) else of_repo(self, repo, name, rest, body)

    monkeypatch.setattr(_Handler, "of_repo", respond)
    with pytest.raises(StorageError, match=r"^cannot (list|read) hf://datasets/team/name: no answer, or a broken one"):
        depot_of(AT).exists("x")


def test_a_repository_that_is_not_for_everybody(
    made: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(made / "zarr", AT)
    with pytest.raises(StorageError, match="there is no such revision; name an existing branch, tag or commit"):
        pull(f"{AT}@nothing", tmp_path / "copy")
    with pytest.raises(StorageError, match="this is not a valid name of a repository; check the address"):
        pull("hf://datasets/team/a--b", tmp_path / "copy")
    with pytest.raises(StorageError, match="is a commit, and nothing can be added to a commit; name a branch"):
        push(made / "zarr", f"{AT}@{'1' * 40}")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    for act in (lambda: pull(AT, tmp_path / "copy"), lambda: push(made / "zarr", AT), lambda: [*stores_at(AT)]):
        with pytest.raises(StorageError, match=r"no such repository, or this token has no access \(401\)"):
            act()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="cannot read hf://datasets/team/name: HF_HUB_OFFLINE is set; unset it"):
        pull(AT, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    "address",
    [
        "hf://team/name", "hf://models/team/name", "hf://datasets/team", "hf://datasets/te am/name", f"{AT}/../x",
        f"{AT}/a<b", f"{AT}@", f"{AT}@a b", f"{AT}/preview/x", f"{AT}/README.md", "hf://datasets/../name",
    ],
)  # fmt: skip
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError):
        depot_of(address)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "x\x1b[2J", "a\\b", "..", "n" * 300])
def test_names_in_a_repository_that_lead_elsewhere(name: str, made: Path, hub: FakeHub, tmp_path: Path) -> None:
    files_of = {
        f"{name}/{each}": (made / "zarr" / "test" / each).read_bytes() for each in ("plan.json", "manifest.json")
    }
    hub.repos["team/name"] = Repo(commits=[files_of])
    for split in (None, name):
        with pytest.raises(StorePathError, match=r"cannot be the name of a folder|holds no store") as caught:
            pull(AT, tmp_path / "copy", split=split)
        assert "\x1b" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_a_page_that_cannot_be_read(made: Path, hub: FakeHub) -> None:
    for bomb in ("a: &a [1]\nb: *a", 'a: !!int ""', "[", "- a", "a: " + "[\n" * 5000):
        hub.repos["team/name"] = Repo(commits=[{"README.md": f"---\n{bomb}\n---\n".encode()}])
        with pytest.raises(StorageError, match="the front matter of the page of team/name cannot be read; correct or"):
            push(made / "zarr" / "test", AT)
        assert len(hub.repos["team/name"].commits) == 1
        assert not hub.uploads()


def test_large_files_go_by_a_copy_that_is_gone_afterwards(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr(repository, "_BATCH_BYTES", 1)
    place = depot_of(AT)
    with place.repository.sending():  # type: ignore[union-attr]
        place.fill("large", iter([bytes(PART), b"abc"]), PART + 3, staged="")
        assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
        place.repository.publish("large")  # type: ignore[union-attr]
    assert not [*(tmp_path / "spool").iterdir()]
    found = depot_of(AT)
    assert found.read("large") == bytes(PART) + b"abc"
    out = bytearray(10)
    assert found.file("large").read_into(PART - 1, memoryview(out)) == 4
    monkeypatch.setattr(repository, "MOST_SENT", 0)
    with place.repository.sending(), pytest.raises(StorageError, match="takes 0 files in a commit"):  # type: ignore[union-attr]
        place.fill("other", iter([b"abc"]), 3, staged="")


class Killing:
    """Kills the process `pid` when it asks the n-th thing of this kind: an upload, or a file."""

    def __init__(self, turn: int, method: str) -> None:
        self.pid, self._left, self._method = 0, turn, method

    def __call__(self, method: str, path: str) -> None:
        self._left -= method == self._method and path.startswith(("/blob/", "/datasets/"))
        if self._left == 0 and self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.pid = 0


@pytest.mark.parametrize(
    ("command", "turns"),
    [
        ("push", [4]),
        pytest.param("push", [*range(1, 17), 3, 7, 11, 15], marks=pytest.mark.slow),
        pytest.param("pull", range(4, 24), marks=pytest.mark.slow),
    ],
)
def test_killed_in_the_middle(command: str, turns: list[int], made: Path, hub: FakeHub, tmp_path: Path) -> None:
    """SIGKILL of a process at its n-th upload (push), or request for a file (pull); the second run comes to its end."""
    digests = {split: open_store(made / "zarr" / split).digest for split in ("train", "test")}
    processes = multiprocessing.get_context("fork")
    for number, turn in enumerate(turns):
        name, copy = f"team/name{number}", tmp_path / f"copy{number}"
        hub.blobs.clear()
        address = f"hf://datasets/{name}"
        if command == "pull":
            push(made / "zarr", address)
        words = [str(made / "zarr"), address] if command == "push" else [address, str(copy)]
        child = processes.Process(target=main, args=([command, *words],))
        hub.meddle = killing = Killing(turn, "PUT" if command == "push" else "GET")
        child.start()
        killing.pid = child.pid or 0
        child.join(100)
        assert child.exitcode == -signal.SIGKILL
        hub.meddle = lambda method, path: None
        if command == "push":
            assert len(hub.repos[name].commits) == 1  # nothing is visible
            there, before = {*hub.blobs}, len(hub.uploads())
            push(made / "zarr", address)
            assert not {path[6:] for path in hub.uploads()[before:]} & there
        elif copy.exists():
            assert not (copy / "train" / "manifest.json").exists() or not (copy / "test" / "manifest.json").exists()
        found = pull(address, copy)
        assert {split: manifest.digest for split, manifest in found.items()} == digests
        assert files(copy) == files(made / "zarr")


def test_the_commands(made: Path, hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(made / "arrow"), AT]) == 0
    assert re.search(rf"commit [0-9a-f]{{40}}\n.*pushed: {AT}", capfd.readouterr().out)
    assert main(["list", AT]) == 0
    assert f"{AT}/train: " in capfd.readouterr().out
    assert main(["pull", AT, str(tmp_path / "copy"), "--split=test"]) == 0
    assert main(["push", str(made / "arrow"), f"hf://{TOKEN}@datasets/team/name"]) == 2
    captured = capfd.readouterr()
    assert TOKEN not in captured.out + captured.err
