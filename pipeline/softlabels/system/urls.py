"""Where users say that a store lies far away: an address as the place that stands for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from typing import Any
from urllib.parse import unquote, urlsplit

from softlabels.errors import ConfigError, one_line
from softlabels.objects import require_extra
from softlabels.system.asked import Server
from softlabels.system.bucket import ELSEWHERE, Bucket
from softlabels.system.bucket_folder import BucketFolder
from softlabels.system.depots import Depot, LocalDepot
from softlabels.system.hub import PREVIEW, Hub
from softlabels.system.local import LocalFolder
from softlabels.system.repository import PAGE, Repository
from softlabels.system.web_folder import WebFolder

SCHEMES = ("s3", "gs", "az", "http", "https", "hf", "file")
_HELP = f"give a folder, or an address that begins with one of {', '.join(f'{name}://' for name in SCHEMES)}"
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_IN_HEADERS = {  # what requests carry as it is: obstore panics at what no header can hold
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "gs": (),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY"),
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "AWS_PROXY_URL", "PROXY_URL")
_CLOUDS = {
    "s3": (("AWS_",), ".amazonaws.com,.amazonaws.com.cn"),
    "gs": (("GOOGLE_",), ".googleapis.com"),
    "az": (("AZUR", "IDENTITY_", "MSI_"), ".windows.net,.microsoftonline.com,.azure.com"),
}
RETRIES = {"max_retries": 5}
# A request may take as long as it moves: a file of many gigabytes is one.
_PATIENCE = {"connect_timeout": "10s", "read_timeout": "120s", "timeout": "24 hours"}
_READS = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "5 minutes"}  # of some megabytes


def depot_of(address: str | PathLike[str] | Depot) -> Depot:
    """An address or a path as a place; a place as it is.

    Raises:
        ConfigError: no address that is known, or one that holds a password, which is not repeated.
        MissingExtra: obstore is not installed.
    """
    if not isinstance(address, (str, PathLike)):
        return address
    text = os.fspath(address)
    return remote_of(text) if is_address(text) else LocalDepot(text)


def is_address(text: str) -> bool:
    """Whether a text is an address, and no path."""
    return "://" in text


def remote_of(text: str, *, reads: bool = False) -> Bucket | Hub | LocalDepot | WebFolder:
    """An address as a place; `reads`: parts of files are read there, and nothing is written. Raises as `depot_of`."""
    scheme, _, rest = text.partition("://")
    try:
        parts = urlsplit(text)
        user = parts.username or parts.password
    except ValueError:
        raise ConfigError("this is no address", remedy=_HELP) from None
    if user or parts.query or parts.fragment:
        raise ConfigError(
            f"an address of {one_line(scheme)}:// that holds a password, a signature or a query",
            remedy="leave them out: credentials are taken from the environment (docs/places.md)",
        )
    if scheme not in SCHEMES:
        raise ConfigError(f"{one_line(scheme)}:// is not a known kind of place", remedy=_HELP)
    if scheme == "hf":
        return _hub(text)
    path = unquote(parts.path) if scheme in ("http", "https", "file") else rest.partition("/")[2]
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ConfigError(f"{one_line(text)} names a machine", remedy="write file:///folder/of/this/machine")
        return LocalDepot(path)
    if not re.fullmatch(
        r"[\w.-]{1,255}" if "http" not in scheme else r"([\w.-]+|\[[\w:.]+\])(:\d+)?", parts.netloc, re.ASCII
    ):
        raise ConfigError(  # what stands there may be a password
            f"an address of {scheme}:// that names no bucket or server that can be",
            remedy=f"write {scheme}://NAME/FOLDER",
        )
    inside = _inside(path, text)
    root = f"{scheme}://{parts.netloc}"
    if scheme in ("http", "https"):
        return WebFolder(Server(scheme, parts.netloc), root, inside)
    return Bucket(_client(scheme, parts.netloc, _READS if reads else _PATIENCE), root, inside)


def written_at(text: str) -> BucketFolder | LocalFolder:
    """An address as a folder of an object store, to be written piece by piece. Raises as `depot_of`."""
    found = remote_of(text)
    if isinstance(found, LocalFolder):
        return LocalFolder(found.at())
    if isinstance(found, Bucket):
        scheme, _, host = found.root.partition("://")
        once = _client(scheme, host, _READS, retries={"max_retries": 0})
        return BucketFolder(found.client, found.root, found.inside, once=once)
    raise ConfigError(
        f"{one_line(text)} cannot hold a store that is written shard by shard",
        remedy="give a folder or an object store (s3://, gs://, az://); `softlabels push` carries a finished store to the Hub",
    )


def _hub(text: str) -> Hub:
    """The repository of an address, or a folder in it."""
    address, at, revision = text.removeprefix("hf://").partition("@")
    kind, team, name, folder = [*address.split("/", 3), "", "", ""][:4]
    plain = all(re.fullmatch(r"[\w-][\w.-]{0,95}", each, re.ASCII) for each in (team, name))
    inside = _inside(folder, text)
    plain &= re.fullmatch(r"[\w. /-]*", inside, re.ASCII) is not None  # the page repeats it
    if kind != "datasets" or not plain or (at and not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision, re.ASCII)):
        raise ConfigError(  # what stands there may be a token
            "the address hf:// names no dataset repository",
            remedy="write hf://datasets/TEAM/NAME, hf://datasets/TEAM/NAME/FOLDER or hf://datasets/TEAM/NAME@REVISION",
        )
    if inside.partition("/")[0] in (PREVIEW, PAGE, ".git", ".gitattributes"):
        raise ConfigError(f"{one_line(text)} is the repository's page", remedy="give another folder")
    return Hub(Repository(f"{team}/{name}", revision or None, inside), inside)


def _inside(path: str, text: str) -> str:
    """The folder of an address. Raises `ConfigError` for one that leads elsewhere than it says, as some servers take a
    backslash for a slash.
    """
    steps = [step for step in path.split("/") if step]
    if any(step in (".", "..") or "\\" in step or not step.isprintable() for step in steps):
        raise ConfigError(
            f"{one_line(text)} has '.', '..' or a backslash in it, or characters that are not visible",
            remedy="write it out",
        )
    return "/".join(steps)


def _client(scheme: str, host: str, patience: Mapping[str, str], retries: Mapping[str, int] | None = None) -> Any:
    obstore, store = require_extra("obstore", extra="remote"), require_extra("obstore.store", extra="remote")
    _check_variables(scheme)
    plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS[scheme])
    only = _only_there(scheme)
    options: dict[str, Any] = {"client_options": {**patience, **only, "allow_http": plain}}
    options["retry_config"] = RETRIES if retries is None else retries
    try:
        if scheme == "s3":  # the server compares what it gets with this hash
            return store.S3Store(host, checksum_algorithm="SHA256", **options)
        if scheme == "gs":
            return store.GCSStore(host, **options)
        return store.AzureStore(host, **options)
    except (obstore.exceptions.BaseError, ValueError, OSError):  # what it says may repeat a variable
        raise ConfigError(
            f"{scheme}:// needs environment variables that are missing or cannot be read",
            remedy="set those that docs/places.md lists",
        ) from None


def _check_variables(scheme: str) -> None:
    """Raises `ConfigError`, which repeats no value, for variables with which no request can be made."""
    for name in _ENDPOINTS[scheme]:
        if name in os.environ and not _is_server(os.environ[name]):
            raise ConfigError(f"{name} is not the address of a server", remedy="write http://HOST:PORT or https://HOST")
    for name in _IN_HEADERS[scheme]:
        value = os.environ.get(name, "")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ConfigError(
                f"{name} has spaces at its ends, line breaks or non-ASCII characters",
                remedy="set it without them",
            )


def _is_server(text: str) -> bool:
    if not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return text.startswith(("http://", "https://")) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _only_there(scheme: str) -> dict[str, str]:
    """Options of a client that reaches the cloud's own servers and those that variables name, and no other: obstore
    follows redirects and cannot be told not to, so everything else lies behind a proxy that is not there. Where the user has a
    proxy, that says where requests may go.
    """
    if any(os.environ.get(name) or os.environ.get(name.lower()) for name in _PROXIES):
        return {}
    prefix, cloud = _CLOUDS[scheme]
    hosts = [*filter(None, (_server(value) for name, value in os.environ.items() if name.startswith(prefix)))]
    role = scheme != "s3" or "AWS_ACCESS_KEY_ID" not in os.environ  # of the machine: its credentials are fetched
    hosts += ["127.0.0.1"] * any(name.startswith(prefix) and "EMULATOR" in name for name in os.environ)
    hosts += [cloud] * (role or not hosts) + ["169.254.0.0/16", "metadata.google.internal"] * role
    return {"proxy_url": f"http://{ELSEWHERE}", "proxy_excludes": ",".join(hosts)}


def _server(text: str) -> str | None:
    """The host of an http address; None for other texts."""
    with suppress(ValueError):
        return urlsplit(text).hostname if text.startswith(("http://", "https://")) else None
    return None
