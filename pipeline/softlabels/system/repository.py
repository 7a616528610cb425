"""A dataset repository of the Hugging Face Hub, by huggingface_hub.

It is read at one commit, so that one who pulls sees one state of it. What is written is gathered: contents are uploaded, which
shows nothing, and `publish` makes all of it one commit on the state that was read, which the Hub refuses where another commit
came between.

The token is taken from the environment or the login by huggingface_hub, and stays there: of an error only the kind and the
status are shown, since the texts repeat addresses, which may be signed.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softlabels.errors import DiskFull, SoftLabelsError, SpecMismatch, StorageError, one_line, some
from softlabels.system.depots import PART

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

PAGE = "README.md"
MOST_LISTED = 1 << 20  # files
MOST_SENT = 25_000  # files of a commit
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 27  # that are asked for, and uploaded, at once
_TRIES = 3  # for an answer that breaks off
_TIMEOUT = 120.0  # seconds that a part of a file may take
_SEND, _COMMIT = "send to", "commit to"
_LOGIN = "log in (hf auth login) or set HF_TOKEN, "
_AGAIN = "run the same command again"


@dataclass(frozen=True)
class _Sent:
    """A file of the commit to come. The Hub names those that it keeps apart by SHA-256, others as git does."""

    operation: CommitOperationAdd
    size: int
    sha256: str
    git: str
    spooled: Path | None

    def is_at(self, found: RepoFile | None) -> bool:
        """Whether the Hub lists this very content."""
        if found is None or found.size != self.size:
            return False
        return found.lfs.sha256 == self.sha256 if found.lfs else found.blob_id == self.git


class Repository:
    """What all views of one repository share: the state that is read, and the commit to come.

    Args:
        name: TEAM/NAME. revision: a branch, tag or commit; main by default. below: the folder that is looked at.
    """

    def __init__(self, name: str, revision: str | None, below: str) -> None:
        from huggingface_hub import HfApi

        self.name, self.revision, self.below = name, revision, below
        self.api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)  # huggingface_hub read it when it was imported
        self.sent: dict[str, _Sent] = {}
        self._waiting: list[_Sent] = []
        self._lock, self._spool = threading.Lock(), ""

    def __reduce__(self) -> tuple[Any, ...]:  # for reading: what is being sent stays here
        return type(self), (self.name, self.revision, self.below), {"head": self.head}

    def __str__(self) -> str:
        return self.at("")

    def at(self, path: str) -> str:
        """What messages call a path of it."""
        return "/".join(filter(None, ("hf://datasets", self.name, path))) + f"@{self.revision}" * bool(self.revision)

    # Reading

    @cached_property
    def head(self) -> str:
        """The commit that is read. Raises `StorageError`."""
        with _asked("read", str(self)):
            found = self.api.repo_info(self.name, repo_type="dataset", revision=self.revision).sha
        if not found:
            raise StorageError(f"{self} has no commit", remedy="make the repository anew")
        return found

    @cached_property
    def tree(self) -> dict[str, RepoFile]:
        """The files that lie `below` at the head, by path."""
        return self._listed(self.head, self.below)

    @cached_property
    def paths(self) -> list[str]:
        """Those of all files that lie there, or are being sent, in order."""
        return sorted({*self.tree, *self.sent})

    def _listed(self, commit: str, below: str) -> dict[str, RepoFile]:
        return {each.path: each for each, folder in self._tree(commit, below) if not folder}

    def _tree(self, commit: str, below: str, *, recursive: bool = True) -> Iterator[tuple[Any, bool]]:
        """Files and folders below a folder; whether each is a folder."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        with _asked("list", self.at(below)):
            try:
                listing = self.api.list_repo_tree(
                    self.name, below or None, recursive=recursive, revision=commit, repo_type="dataset"
                )
                each: Any
                for count, each in enumerate(listing):
                    is_file = isinstance(each, RepoFile)
                    if type(each.path) is not str or (is_file and (type(each.size) is not int or each.size < 0)):
                        raise TypeError
                    if count >= MOST_LISTED:
                        raise StorageError(
                            f"the listing of {self.at(below)} has not ended after {MOST_LISTED:,} files and folders",
                            remedy="give the address of one store",
                        )
                    yield each, not is_file
            except EntryNotFoundError:
                return

    def part(self, path: str, start: int, length: int) -> bytes:
        """Some bytes of a file; fewer where it ends."""
        return self.fetch(path, start, length)[0]

    def fetch(self, path: str, start: int, length: int) -> tuple[bytes, int]:
        """The same, and how many bytes the file has; 0 where the server does not say. Raises `FileNotFoundError`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        url = hf_hub_url(self.name, path, repo_type="dataset", revision=self.head, endpoint=self.api.endpoint)
        with _asked("read", self.at(path)):
            for left in reversed(range(_TRIES)):
                try:
                    data, size, error = _body(url, start, length)
                except EntryNotFoundError:
                    data, size, error = b"", -1, None
                if error is None or not left:
                    break
            if error is not None:
                raise error
            if len(data) > length:
                raise StorageError(
                    f"{self.at(path)}: the server gives no parts of files", remedy="find out who answers"
                )
        if size < 0:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.at(path))
        return data, size

    def info(self, path: str) -> RepoFile | None:
        """What the Hub says of a file; None where there is none."""
        from huggingface_hub.hf_api import RepoFile

        with _asked("look at", self.at(path)):
            found = self.api.get_paths_info(self.name, [path], revision=self.head, repo_type="dataset")
        return next((each for each in found if isinstance(each, RepoFile)), None)

    def entries(self, below: str) -> dict[str, bool]:
        """What stands in a folder, by its path; whether it is a folder."""
        return {each.path: folder for each, folder in self._tree(self.head, below, recursive=False)}

    def page(self, limit: int) -> str:
        """What its page says; "" where there is none. Raises `StorageError` for a page of more than `limit` bytes."""
        with _asked("read", self.at(PAGE)):
            found = self.api.get_paths_info(self.name, [PAGE], revision=self.head, repo_type="dataset")
        size = max((getattr(each, "size", 0) for each in found), default=0)
        if size > limit:
            raise StorageError(f"{self.at(PAGE)} is larger than {limit} bytes", remedy="shorten it")
        return self.part(PAGE, 0, size).decode(errors="replace") if size else ""

    # Writing

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """While files are sent. Makes a private repository where there is none, and says whether it did.

        Raises:
            StorageError: it may not be written to, or the revision is no branch.
        """
        if re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise StorageError(
                f"{self} is a commit, and nothing can be added to a commit", remedy="name a branch, or none"
            )
        with _quiet(), tempfile.TemporaryDirectory(prefix="softlabels-") as self._spool:
            yield self._made()

    def _made(self) -> bool:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        with _asked("read", str(self)):
            try:
                self.api.repo_info(self.name, repo_type="dataset")
                return False
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                pass
        with _asked("create", str(self)):
            self.api.create_repo(self.name, repo_type="dataset", private=True, exist_ok=True)
        return True

    def fill(self, path: str, pieces: Iterable[bytes], size: int) -> None:
        """Gather a file, and upload what waits where that is much."""
        from huggingface_hub import CommitOperationAdd

        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

        def hashed() -> Iterator[bytes]:
            for piece in pieces:
                sha256.update(piece)
                git.update(piece)
                yield piece

        spooled = None if size <= PART else Path(self._spool, uuid.uuid4().hex)  # Xet takes bytes or a path
        if spooled is None:
            operation = CommitOperationAdd(path, b"".join(hashed()))
        else:
            try:
                with spooled.open("xb") as out:
                    out.writelines(hashed())
            except OSError as error:
                raise DiskFull(
                    f"{path} cannot be copied to {self._spool} ({error.strerror}): a push copies a file before it is sent",
                    remedy="make room there, or set TMPDIR to a folder with room",
                ) from None
            operation = CommitOperationAdd(path, str(spooled))
        sent = _Sent(operation, size, sha256.hexdigest(), git.hexdigest(), spooled)
        with self._lock:
            self.sent[path] = sent
            self.__dict__.pop("paths", None)
            if len(self.sent) > MOST_SENT:
                raise StorageError(
                    f"{self} takes {MOST_SENT:,} files in a commit, and this store has more",
                    remedy="make a store of larger shards, or in the Arrow layout: softlabels convert",
                )
            self._waiting.append(sent)
            full = len(self._waiting) >= _BATCH_FILES or sum(each.size for each in self._waiting) >= _BATCH_BYTES
            batch = self._taken() if full else []
        self._upload(batch)

    def _taken(self) -> list[_Sent]:
        batch, self._waiting = self._waiting, []
        return batch

    def _upload(self, batch: list[_Sent]) -> None:
        """Upload the contents that the Hub keeps apart; what it has already, it does not take again."""
        if batch:
            with _asked(_SEND, str(self)):
                operations = [each.operation for each in batch]
                self.api.preupload_lfs_files(self.name, operations, repo_type="dataset", revision=self.revision)
        for each in batch:
            if each.spooled is not None and each.operation.path_or_fileobj == b"":  # it is there now
                each.spooled.unlink()

    def publish(self, message: str) -> str:
        """Make what was gathered one commit, and compare what the Hub then lists with what was sent. Gives the commit.

        Raises:
            SpecMismatch: somebody else committed since it was read. StorageError: the Hub refused, or lists something else.
        """
        self._upload(self._taken())
        with _asked(_COMMIT, str(self)):
            commit = self.api.create_commit(
                self.name, [each.operation for each in self.sent.values()], commit_message=message,
                repo_type="dataset", revision=self.revision, parent_commit=self.head,
            ).oid  # fmt: skip
        found = self._listed(commit, "")
        wrong = [path for path, each in self.sent.items() if not each.is_at(found.get(path))]
        if wrong:
            raise StorageError(
                f"{self} does not list what was sent to it ({some(wrong)})",
                remedy="check whether a .gitignore there excludes these files, and run the same command again",
            )
        self.sent = {}
        for known in ("head", "tree", "paths"):  # of the state before
            self.__dict__.pop(known, None)
        return commit


def _body(url: str, start: int, length: int) -> tuple[bytes, int, Exception | None]:
    """Some bytes at an address, no more than one beyond what is asked for and what came with it; how many there are in all, 0
    where that is not said; and what broke them off.
    """
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, and not in an __all__
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
    )

    wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    data = bytearray()
    with http_stream_backoff("GET", url, headers={**build_hf_headers(), **wanted}, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416:  # it has no such byte
            return b"", int(answer.headers.get("Content-Range", "").removeprefix("bytes */")), None
        hf_raise_for_status(answer)
        try:
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > length:
                    break
        except Exception as error:  # which the other's loop would take for its own
            return b"", 0, error
        said = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    return bytes(data), int(said[1]) if said else 0, None


@contextmanager
def _quiet() -> Iterator[None]:
    """While huggingface_hub says nothing: its warnings repeat signed addresses, and its bars stand in the way of ours."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # as above
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    log = logging.getLogger("huggingface_hub")
    level, shows = log.level, not are_progress_bars_disabled()
    try:
        log.setLevel(logging.ERROR)
        if shows:
            disable_progress_bars()
        yield
    finally:
        log.setLevel(level)
        if shows:
            enable_progress_bars()


@contextmanager
def _asked(action: str, where: str) -> Iterator[None]:
    """What huggingface_hub and its clients raise, as errors of ours; none of them holds the text that it came with."""
    try:
        yield
    except (SoftLabelsError, MemoryError, ImportError):
        raise
    except Exception as error:  # of an answer that is none, any
        kept = "; what was sent is kept" * (action in (_SEND, _COMMIT))
        raise _refusal(error, f"cannot {action} {one_line(where, None)}", _AGAIN + kept) from None


def _refusal(error: BaseException, what: str, again: str) -> SoftLabelsError:
    """Why the Hub refused, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    while getattr(error, "response", None) is None and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "OfflineModeIsEnabled":
        return StorageError(f"{what}: HF_HUB_OFFLINE is set", remedy="unset it")
    if type(error).__name__ == "HFValidationError":
        return StorageError(f"{what}: this is not a valid name of a repository", remedy="check the address")
    if isinstance(error, GatedRepoError):
        return StorageError(
            f"{what}: access to it is granted one by one", remedy=f"ask for it on its page; {_LOGIN}and {again}"
        )
    if isinstance(error, RevisionNotFoundError):
        return StorageError(f"{what}: there is no such revision", remedy="name an existing branch, tag or commit")
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return StorageError(
            f"{what}: there is no such repository, or this token has no access ({status})",
            remedy=f"check the address; if it is private, {_LOGIN}and {again}",
        )
    if status == 403:
        return StorageError(
            f"{what}: the token has no permission (403)", remedy=f"use one that may write: {_LOGIN}and {again}"
        )
    if status in (409, 412):
        return SpecMismatch(
            f"{what}: somebody else committed to it since this command began ({status})",
            remedy=f"look at what they did, and {again}",
        )
    if status == 429:
        return StorageError(f"{what}: too many requests (429)", remedy=f"wait some minutes, and {again}")
    if status is not None:
        return StorageError(f"{what}: the Hub answered {status}", remedy=f"check the address, and {again}")
    return StorageError(
        f"{what}: no answer, or a broken one ({type(error).__name__})", remedy=f"check the network, and {again}"
    )
