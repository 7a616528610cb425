"""One split of a transfer set, decoded, hashed and prepared once: after that it is read like labels.

Not here: joining rows to labels (`softlabels.stream`). R rows, B rows of a block.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3
from tqdm import tqdm

from softlabels.errors import ConfigError, TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.objects import ObjectSpec, build, call_with, import_object
from softlabels.transfer.cache import FileRecord, NpyFile, cached, default_cache
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array, Decoded, decode
from softlabels.transfer.file_arguments import package_versions, recorded, versions_of
from softlabels.transfer.hard_labels import hard_labels
from softlabels.transfer.keys import KEY_RULE, content_keys, id_keys
from softlabels.transfer.sequences import PACKAGES, SequenceInfo, open_tokenization, write_sequences
from softlabels.transfer.source import Source, open_split

Keys = npt.NDArray[np.uint8]
CACHE_VERSION = 1
BLOCK_BYTES = 1 << 26  # decoded inputs held at a time
FIRST_ROWS, MOST_ROWS = 16, 8192


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


def load_transfer_set(config: TransferSetConfig, split: str, *, cache: Path | None = None) -> TransferRows:
    """Open `split`, prepare its rows or map the cache of an earlier time.

    Args:
        config: what the transfer set is.
        split: the split's name in the store.
        cache: folder of caches; default `$SOFTLABELS_CACHE`, else `~/.cache/softlabels/prepared`.

    Raises:
        TransferSetError: source, split, column or value that cannot be read as `config` says.
        LabelError: a hard label outside the label space.
        ConfigError: the prepare function or factory cannot be found or called so.
        DiskFull, StorageError: the cache cannot be written.
    """
    source = open_split(config, split)
    tokens = None if config.sequences is None else open_tokenization(config.sequences)
    if tokens is None:
        call_with(config.prepare, [])  # refuse a misspelt function or argument before any work
    prepare = recorded(config.prepare) if tokens is None else tokens.recorded

    def write(folder: Path) -> list[FileRecord]:
        if tokens is None:
            return _write_rows(config, source, folder, title=f"prepare {split}")
        texts = (columns[0] for _, _, columns in _blocks(config, source))
        return write_sequences(tokens, texts, folder, texts=source.rows, title=f"tokenize {split}")

    identity = _identity(config, split, source, prepare)
    arrays = cached(cache if cache is not None else default_cache(), identity, write)
    return TransferRows(
        name=config.name or _name(config),
        split=split,
        revision=config.revision,
        source=config.origin,
        inputs=arrays["inputs"],
        keys=cast("Keys", arrays["keys"]),
        labels=cast("npt.NDArray[np.int64]", arrays["labels"]),
        class_names=source.class_names,
        prepare=prepare,
        sequence=None if tokens is None else tokens.info,
    )


def _name(config: TransferSetConfig) -> str:
    """A name that does not say where the data lies: that of the local folder or file, else the hub id or the factory."""
    local = None if config.source is None else Path(config.source).expanduser()
    return local.resolve().name if local is not None and local.exists() else config.origin


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


def _write_rows(config: TransferSetConfig, source: Source, folder: Path, *, title: str) -> list[FileRecord]:
    """Write inputs.npy, keys.npy and labels.npy block by block; memory holds one block, and the keys."""
    content: list[Keys] = []
    ids: list[Keys] = []
    with ExitStack() as stack, tqdm(total=source.rows, desc=title, unit="row", delay=2, disable=None) as progress:
        inputs, keys, labels = [
            stack.enter_context(NpyFile(folder / f"{name}.npy", rows=source.rows))
            for name in ("inputs", "keys", "labels")
        ]
        for start, table, columns in _blocks(config, source):
            inputs.append(_prepare(config.prepare, columns, start=start))
            content.append(content_keys(columns))
            if config.key != "content":
                ids.append(id_keys(table.column(config.key), name=config.key, start=start))
            keys.append(ids[-1] if ids else content[-1])
            labels.append(_labels(config, source, table, start=start))
            progress.update(len(table))
        if ids:
            _check_ids(config.key, np.concatenate(ids), np.concatenate(content))
        return [file.finish() for file in (inputs, keys, labels)]


def _blocks(config: TransferSetConfig, source: Source) -> Iterator[tuple[int, pa.Table, list[Decoded]]]:
    """First row, Arrow table and decoded input columns of one block after the other, each of about `BLOCK_BYTES`."""
    start, rows = 0, FIRST_ROWS
    while start < source.rows:
        table = source.block(start, min(start + rows, source.rows))
        columns = [decode(table.column(name), name=name, start=start) for name in config.inputs]
        yield start, table, columns
        start += len(table)
        row_bytes = sum(column.nbytes() for column in columns) / len(table)
        rows = max(1, min(MOST_ROWS, int(BLOCK_BYTES / max(row_bytes, 1))))


def _prepare(spec: ObjectSpec, columns: list[Decoded], *, start: int) -> Array:
    """The prepare function's array (B, ...) for one block."""
    rows = columns[0].rows() if len(columns) == 1 else list(zip(*(column.rows() for column in columns), strict=True))
    prepared = build(spec, rows)
    if not isinstance(prepared, np.ndarray) or prepared.dtype.kind not in "biuf":
        found = f"an array of {prepared.dtype}" if isinstance(prepared, np.ndarray) else f"a {type(prepared).__name__}"
        raise TransferSetError(
            f"{spec.class_path} returned {found}", remedy="return one numpy array of numbers (B, ...)"
        )
    if not prepared.dtype.isnative or prepared.dtype.itemsize > 8:
        raise TransferSetError(
            f"{spec.class_path} returned an array of {prepared.dtype.str}, which torch cannot hold",
            remedy="return numbers of at most 64 bits in this machine's byte order, as with .astype(np.float32)",
        )
    if prepared.ndim == 0 or len(prepared) != len(rows):
        raise TransferSetError(
            f"{spec.class_path} returned an array {list(prepared.shape)} for {len(rows)} rows from row {start} on",
            remedy="return one row for each row it is given",
        )
    return prepared


def _labels(config: TransferSetConfig, source: Source, table: pa.Table, *, start: int) -> npt.NDArray[np.int64]:
    """Hard labels (B,) of one block."""
    if config.label_column is None:
        return np.full(len(table), NO_LABEL, np.int64)
    return hard_labels(
        table.column(config.label_column), name=config.label_column, class_names=source.class_names, start=start
    )


def _check_ids(name: str, ids: Keys, content: Keys) -> None:
    """Refuse an id column that gives one id to different inputs: labels would go to the wrong rows."""
    _, first, back = np.unique(ids, axis=0, return_index=True, return_inverse=True)
    wrong = np.flatnonzero((content[first[back.reshape(-1)]] != content).any(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise TransferSetError(
            f"id column {name!r} gives rows {int(first[back.reshape(-1)[row]])} and {row} the same id, and their inputs differ",
            remedy="name a column that tells rows apart, or use key: content",
        )
