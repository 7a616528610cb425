"""One split of a transfer set, decoded, hashed and prepared once: after that it is read like labels.

`fill` does that work, `cache` keeps it, `anew` shows at every opening that it still is what the prepare function gives, `kinds`
that all splits hold rows of one kind. Not here: joining rows to labels (`softlabels.stream`). R rows.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from softlabels.errors import ConfigError, TransferSetError
from softlabels.objects import ObjectSpec, call_with, import_object
from softlabels.transfer.anew import depends, is_current
from softlabels.transfer.cache import Entry, FileRecord, cached, default_cache
from softlabels.transfer.cache_entries import recorded_entries
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array
from softlabels.transfer.file_arguments import package_versions, recorded, versions_of
from softlabels.transfer.fill import blocks, write_rows
from softlabels.transfer.keys import KEY_RULE, NULLS_RULE, SALTED_RULE, salted_keys
from softlabels.transfer.kinds import Kinds, require_one_kind
from softlabels.transfer.salt import read_salt
from softlabels.transfer.sequences import PACKAGES, SequenceInfo, open_tokenization, write_sequences
from softlabels.transfer.source import Source, open_split

Keys = npt.NDArray[np.uint8]
CACHE_VERSION = 2


@dataclass(frozen=True, eq=False)
class TransferRows:
    """One prepared split.

    Attributes:
        name: of the transfer set.
        split: its name in the store.
        revision: as the recipe gives it.
        source: hub id, path, or dotted path of the factory.
        inputs: (R, ...) prepared inputs, memory-mapped, read-only.
        keys: (R, 16) uint8 content keys, memory-mapped, read-only.
        labels: (R,) int64, -1 = none, memory-mapped, read-only.
        class_names: ordered, None where nobody names them.
        prepare: the prepare function and its arguments, with digests in place of files (see `file_arguments`).
        sequence: of rows of tokens: their length and vocabulary; None for everything else.
        key_rule: the version of the key rule, 2 where rows miss inputs, 3 where keys are salted, see `keys`.
        key: how keys are made: of the content, or the name of the column that holds ids.
        notes: what is worth a line about these rows, for whoever reads what a command prints.
    """

    name: str
    split: str
    revision: str | None
    source: str
    inputs: Array
    keys: Keys
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] | None
    prepare: ObjectSpec
    sequence: SequenceInfo | None = None
    key_rule: int = KEY_RULE
    notes: tuple[str, ...] = ()
    key: str = "content"


def load_transfer_set(config: TransferSetConfig, split: str, *, cache: Path | None = None) -> TransferRows:
    """Open `split`, prepare its rows or map the cache of an earlier time.

    Args:
        config: what the transfer set is.
        split: the split's name in the store.
        cache: folder of caches; default `$SOFTLABELS_CACHE`, else `~/.cache/softlabels/prepared`.

    Raises:
        TransferSetError: source, split, column or value that cannot be read as `config` says; rows of several kinds; a prepare
            function that does not treat every row alone.
        LabelError: a hard label outside the label space.
        ConfigError: the prepare function or factory cannot be found or called so; there is no salt where the recipe names one.
        DiskFull, StorageError: the cache cannot be written.
    """
    root = cache if cache is not None else default_cache()
    salt = None if config.key_salt is None else read_salt(config.key_salt)
    source = open_split(config, split)
    tokens = None if config.sequences is None else open_tokenization(config.sequences)
    if tokens is None:
        call_with(config.prepare, [])  # refuse a misspelt function or argument before any work
    prepare = recorded(config.prepare) if tokens is None else tokens.recorded
    filled = False

    def write(folder: Path) -> tuple[list[FileRecord], dict[str, Any]]:
        nonlocal filled
        filled = True
        if tokens is None:
            return write_rows(config, source, folder, split=split)
        texts = (columns[0] for _, _, columns in blocks(config, source))
        return write_sequences(tokens, texts, folder, texts=source.rows, title=f"tokenize {split}")

    def check(arrays: dict[str, Array]) -> bool:
        return tokens is not None or is_current(config, source, arrays["inputs"])

    identity = _identity(config, split, source, prepare)
    about = {"recipe": _recipe_digest(config), "transfer_set": _shown_name(config), "split": split}
    fits = partial(_fits, rows=source.rows if tokens is None else None, inputs=config.inputs)
    entry = cached(root, identity, write, about=about, is_current=check, fits=fits)
    if filled and not check(entry.arrays):
        raise depends(config)
    if tokens is None and not config.mixed_images:
        _require_one_kind(config, split, entry.facts["kinds"], root)
    keys, key_rule = _keys(config, entry, salt)
    return TransferRows(
        name=_shown_name(config),
        split=split,
        revision=config.revision,
        source=config.origin,
        inputs=entry.arrays["inputs"],
        keys=keys,
        labels=cast("npt.NDArray[np.int64]", entry.arrays["labels"]),
        class_names=source.class_names,
        prepare=prepare,
        sequence=None if tokens is None else tokens.info,
        key_rule=key_rule,
        notes=tuple(_notes(source, entry.facts)),
        key=config.key,
    )


def _keys(config: TransferSetConfig, entry: Entry, salt: bytes | None) -> tuple[Keys, int]:
    """The rows' keys (R, 16), and the version of the rule that they have."""
    keys = cast("Keys", entry.arrays["keys"])
    if salt is not None:
        return salted_keys(keys, salt), SALTED_RULE
    return keys, NULLS_RULE if config.key == "content" and entry.facts.get("missing") else KEY_RULE


class _Facts(msgspec.Struct):
    """What `fill` and `sequences` hand on of the rows."""

    kinds: list[Kinds] = []
    missing: int = 0
    empty: int = 0


def _fits(entry: Entry, rows: int | None, inputs: Sequence[str]) -> bool:
    """Whether an entry holds one input, key and label a row, of `rows` rows where their number is known beforehand."""
    found = [entry.arrays[name] for name in ("inputs", "keys", "labels")]
    values, keys, labels = ((array.dtype, array.shape[1:]) for array in found)
    try:
        facts = msgspec.convert(entry.facts, _Facts)
    except msgspec.ValidationError:
        return False
    return (
        {len(array) for array in found} == {len(found[0]) if rows is None else rows}
        and values[0].kind in "biuf"
        and (keys, labels) == ((np.dtype(np.uint8), (16,)), (np.dtype(np.int64), ()))
        and len(facts.kinds) == (len(inputs) if rows is not None else 0)
    )


def _notes(source: Source, facts: Mapping[str, Any]) -> Iterator[str]:
    if source.text_by is not None:
        ways = " and ".join(way for way in ("line", "paragraph", "document") if way != source.text_by)
        yield (
            f"text files, {source.rows:,} texts: each {source.text_by} is one "
            f"(transfer_set.sample_by: {source.text_by}; {ways} are the other ways)"
        )
    if facts.get("empty"):
        yield f"{facts['empty']:,} of {source.rows:,} texts have no tokens and are left out"
    if facts.get("missing"):
        yield f"{facts['missing']:,} of {source.rows:,} rows miss an input (transfer_set.missing: pass)"


def _require_one_kind(config: TransferSetConfig, split: str, kinds: list[Kinds], root: Path) -> None:
    """Raise `TransferSetError` where this split, or it and another of the recipe that was prepared before, hold rows of several
    kinds. Prepared rows of data that has changed meanwhile do not count.
    """
    require_one_kind({split: kinds}, config.inputs, prepare=config.prepare.class_path)
    ours = _recipe_digest(config)
    for meta in recorded_entries(root):
        other = str(meta["about"].get("split"))
        if meta["about"].get("recipe") != ours or other == split or other not in config.splits:
            continue
        try:
            both = {other: msgspec.convert(meta["facts"], _Facts).kinds, split: kinds}
            require_one_kind(dict(sorted(both.items())), config.inputs, prepare=config.prepare.class_path)
        except (msgspec.ValidationError, IndexError):  # nobody wrote it for this recipe
            continue
        except TransferSetError:
            if _identity(config, other, open_split(config, other), recorded(config.prepare)) == meta["identity"]:
                raise


def _recipe_digest(config: TransferSetConfig) -> str:
    """What the splits of one transfer set have in common. The cache holds keys without their salt."""
    facts = asdict(config) | {"splits": None, "classes": None, "label": None}
    del facts["key_salt"]
    return blake3(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _shown_name(config: TransferSetConfig) -> str:
    """The recipe's, or one that does not say where the data lies: of the local folder or file, else the hub id or factory."""
    local = None if config.source is None else Path(config.source).expanduser()
    return config.name or (local.resolve().name if local is not None and local.exists() else config.origin)


def _identity(config: TransferSetConfig, split: str, source: Source, prepare: ObjectSpec) -> dict[str, object]:
    """Everything that the prepared arrays depend on."""
    try:
        init_args = json.dumps(prepare.init_args, sort_keys=True)
    except TypeError as error:
        raise ConfigError(
            f"init_args of {prepare.class_path} are no plain values: {error}",
            remedy="give numbers, text, lists and mappings only",
        ) from error
    return {
        "cache_version": CACHE_VERSION,
        "key_rule": KEY_RULE,
        "source": source.identity,
        "split": config.splits[split],  # a user may have given two splits one fingerprint
        "rows": source.rows,
        "inputs": list(config.inputs),
        "label": config.label_column,
        "key": config.key,
        "class_names": None if source.class_names is None else list(source.class_names),
        "prepare": prepare.class_path,
        "init_args": init_args,
        "prepare_file": _file_digest(prepare),
        "files": _files_of_arguments(prepare),
        "images": sorted(source.images),
        "missing": config.missing,
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "pyarrow")}
        | (package_versions(prepare) if config.sequences is None else versions_of(PACKAGES)),
    }


def _file_digest(spec: ObjectSpec) -> str | None:
    """Digest of the file that the function stands in; None for what is not written in Python."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(import_object(spec.class_path)))
    except TypeError:
        return None
    return None if file is None else blake3(Path(file).read_bytes()).hexdigest()


def _files_of_arguments(spec: ObjectSpec) -> dict[str, list[int]]:
    """Size and time of change of each file that an argument names; those of which a digest stands there are settled."""
    found = {}
    for name, value in spec.init_args.items():
        if isinstance(value, str) and value and (file := Path(value).expanduser()).is_file():
            status = file.stat()
            found[name] = [status.st_size, status.st_mtime_ns]
    return found
