"""Pseudo-data: rows without hard labels that follow a split's own, and that all that comes after takes for rows of the source.

MUNGE makes them (`munge`), or a function of the recipe's. Those of MUNGE are kept beside the prepared rows, in an entry of
their own; a function is called at each opening, as `transfer_set.factory` is. Neighbours: `source` opens the split,
`attributes` makes numbers of its columns, `pseudo_config` has what a recipe may ask for.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from blake3 import blake3
from datasets import Dataset, DatasetInfo, concatenate_datasets

from softlabels.errors import DiskFull, TransferSetError
from softlabels.objects import ObjectSpec, build, require_extra
from softlabels.system.local import LocalFolder
from softlabels.transfer.attributes import Attributes, column_of
from softlabels.transfer.cache import Entry, FileRecord, NpyFile, cached
from softlabels.transfer.columns import column_at, path_of
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import decode, is_file, plain
from softlabels.transfer.munge import Codes, Reals, munge
from softlabels.transfer.pretrained import one_line
from softlabels.transfer.pseudo_config import PseudoDataConfig
from softlabels.transfer.source import Source, content_identity, dataset_of

RULE = 1  # changes whenever the same rows and settings give other pseudo rows


class _Made(NamedTuple):
    """Pseudo rows: columns by name, what they depend on, how they were made; how many are `known`, equal to an own row."""

    columns: Mapping[str, pa.Array | pa.ChunkedArray]
    identity: str
    how: str
    known: int | None = None


def with_pseudo_rows(config: TransferSetConfig, split: str, source: Source, root: Path) -> Source:
    """The split as it was opened, and after its own rows the pseudo rows that the recipe asks for.

    Args:
        config: of the transfer set.
        split: its name in the store.
        source: its own rows.
        root: the cache.

    Raises:
        TransferSetError: rows of which no pseudo rows can be made, or a function's rows without these columns.
        MissingExtra: scikit-learn is not installed.
    """
    asked = config.pseudo_data
    if asked is None or asked.split != split or asked.rows == 0:
        return source
    factory = asked.factory
    made = _by_munge(config, asked, source, root) if factory is None else _by_function(config, factory, source)
    pseudo = _in_types_of(source.data, made.columns)
    said = f"{len(pseudo):,} pseudo rows ({made.how})"
    known = "" if made.known is None else f"; {made.known:,} of them equal a row of the source"
    return replace(
        source,
        data=concatenate_datasets([source.data, pseudo]).with_format("arrow"),
        identity=blake3(f"{source.identity}\0{made.identity}".encode()).hexdigest(),
        notes=(*source.notes, f"{source.rows:,} rows of the source, {said}{known}"),
        pseudo=said,
    )


def _in_types_of(own: Dataset, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> Dataset:
    """Columns as a dataset of the split's own types; what is not given is null, as the labels are."""
    rows, arrays, schema = len(next(iter(columns.values()))), [], own.features.arrow_schema
    for field in schema:
        given = columns.get(field.name)
        try:
            arrays.append(pa.nulls(rows, field.type) if given is None else _cast(given, field.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise TransferSetError(
                f"column {field.name!r} of the pseudo rows is not of the source's type, {field.type}: {one_line(error)}",
                remedy="let pseudo_data.factory return columns of these types",
            ) from error
    table = pa.Table.from_arrays(arrays, schema=schema)
    return Dataset(table, info=DatasetInfo(features=own.features), fingerprint="pseudo")


def _cast(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    array = plain(values) if isinstance(values, pa.ChunkedArray) else values
    if isinstance(kind, pa.ExtensionType):
        return pa.ExtensionArray.from_storage(kind, array.cast(kind.storage_type))
    return array.cast(kind)


def _by_function(config: TransferSetConfig, factory: ObjectSpec, source: Source) -> _Made:
    who = factory.class_path
    data = dataset_of(build(factory, source.data.with_format("numpy")), who)
    names = [*config.inputs, *([] if config.key == "content" else [config.key])]
    needed = list(dict.fromkeys(path_of(name, source.data.column_names)[0] for name in names))
    if lacking := [name for name in needed if name not in data.column_names]:
        raise TransferSetError(f"{who} returned no column {lacking[0]!r}", remedy=f"return {', '.join(needed)}")
    if len(data) == 0:
        raise TransferSetError(f"{who} returned no rows", remedy="return some, or drop transfer_set.pseudo_data")
    data = data.select_columns(needed).with_format("arrow")
    return _Made({name: data[:].column(name) for name in needed}, content_identity(data), who)


def _by_munge(config: TransferSetConfig, asked: PseudoDataConfig, source: Source, root: Path) -> _Made:
    """From the cache, where they were made before."""
    require_extra("sklearn", extra="tables")
    found = _attributes(config, asked, source)
    reals, codes = found.reals, found.codes
    passes = asked.passes_of(source.rows)
    identity: dict[str, Any] = {
        "pseudo_data": RULE,
        "rows": blake3(reals.tobytes()).update(codes.tobytes()).hexdigest(),
        "columns": [[each.name, str(each.values.dtype), each.attributes.shape[1]] for each in found.columns],
        "settings": [passes, asked.probability, asked.spread, asked.seed],
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scikit-learn")},
    }
    shapes = {"reals": (passes * source.rows, reals.shape[1]), "codes": (passes * source.rows, codes.shape[1])}

    def fits(entry: Entry) -> bool:
        known = entry.facts.get("known")
        return {name: each.shape for name, each in entry.arrays.items()} == shapes and isinstance(known, int)

    def write(folder: Path) -> tuple[list[FileRecord], dict[str, Any]]:
        return _write(folder, found, asked, passes)

    about = {"transfer_set": config.name or config.origin, "split": f"{asked.split}, pseudo rows"}
    entry = cached(root, identity, write, about=about, is_current=lambda arrays: True, fits=fits)
    columns = found.restored(np.asarray(entry.arrays["reals"]), np.asarray(entry.arrays["codes"]))
    how = f"munge: passes {passes}, probability {asked.probability:g}, spread {asked.spread:g}, seed {asked.seed}"
    return _Made(columns, blake3(repr(identity).encode()).hexdigest(), how, entry.facts["known"])


def _attributes(config: TransferSetConfig, asked: PseudoDataConfig, source: Source) -> Attributes:
    """Of the input columns. Raises `TransferSetError` for one that MUNGE cannot take."""
    if strangers := [name for name in asked.nominal if name not in config.inputs]:
        raise TransferSetError(
            f"transfer_set.pseudo_data.nominal names {strangers[0]!r}, which is no input column",
            remedy=f"the inputs are {', '.join(config.inputs)}",
        )
    table, columns = source.data[:], []
    for name in config.inputs:
        if name not in table.column_names:
            raise TransferSetError(
                f"input {name!r} is a field inside a struct, which MUNGE cannot put together again",
                remedy="make it a separate column, or make rows by a function, transfer_set.pseudo_data.factory",
            )
        column = column_at(table, name)
        images = name in source.images
        one = slice(0, 1) if is_file(column.type) else slice(None)  # files are refused: no need to open all
        decoded = decode(column[one], name=name, start=0, images=images, missing=True)
        columns.append(column_of(name, decoded, nominal=name in asked.nominal))
    return Attributes(columns)


def _write(
    folder: Path, found: Attributes, asked: PseudoDataConfig, passes: int
) -> tuple[list[FileRecord], dict[str, Any]]:
    """Make the rows and write their attributes; `known` of them equal an own row.

    Raises `TransferSetError` where all do, `DiskFull` before any is made.
    """
    reals, codes = found.reals, found.codes
    settings: dict[str, Any] = {"probability": asked.probability, "spread": asked.spread, "seed": asked.seed}
    known, own = 0, _joined(reals, codes)
    need, free = passes * (reals.nbytes + codes.nbytes), LocalFolder(folder).room()
    if need > free:
        raise DiskFull(
            f"{passes * len(own):,} pseudo rows take {need:,} bytes in {folder.parent}, and {free:,} are free",
            remedy="ask for fewer (transfer_set.pseudo_data), or set SOFTLABELS_CACHE to a folder elsewhere",
        )
    with (
        NpyFile(folder / "reals.npy", rows=passes * len(own)) as of_reals,
        NpyFile(folder / "codes.npy", rows=passes * len(own)) as of_codes,
    ):
        for made, swapped in munge(reals, codes, passes=passes, **settings):
            rounded = found.rounded(made)
            of_reals.append(rounded)
            of_codes.append(swapped)
            known += int(np.isin(_joined(rounded, swapped), own).sum())
        if known == passes * len(own):
            raise TransferSetError(
                f"MUNGE gives {known:,} rows, and each equals a row of the source",
                remedy="raise pseudo_data.probability, lower spread, name fewer columns nominal, or give a factory",
            )
        return [of_reals.finish(), of_codes.finish()], {"known": known}


def _joined(reals: Reals, codes: Codes) -> Any:
    """(R,) a row's attributes as one value of bytes."""
    rows = np.ascontiguousarray(np.hstack([reals.view(np.int64) if reals.size else reals.astype(np.int64), codes]))
    return rows.view(np.dtype((np.void, rows.shape[1] * 8))).reshape(-1)
