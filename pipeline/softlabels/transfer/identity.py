"""What the prepared arrays of a split depend on: the name of their entry in the cache, and what the entry says of itself.

Neighbours: `cache` keeps entries, `rows` asks for them. What no digest shows, `anew` finds.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from dataclasses import asdict
from pathlib import Path

from blake3 import blake3

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec, import_object
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.file_arguments import package_versions, versions_of
from softlabels.transfer.keys import KEY_RULE
from softlabels.transfer.sequences import PACKAGES
from softlabels.transfer.source import Source

CACHE_VERSION = 2


def identity(config: TransferSetConfig, split: str, source: Source, prepare: ObjectSpec) -> dict[str, object]:
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
        **_labels_identity(config, source),
        "key": config.key,
        "prepare": prepare.class_path,
        "init_args": init_args,
        "prepare_file": _file_digest(prepare),
        "files": _files_of_arguments(prepare),
        "images": sorted(source.images),
        "missing": config.missing,
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "pyarrow")}
        | (package_versions(prepare) if config.sequences is None else versions_of(PACKAGES)),
    }


def _labels_identity(config: TransferSetConfig, source: Source) -> dict[str, object]:
    """Of a plain label the column and the class names alone, as entries say from before there were others."""
    names, labels, positions = source.class_names, config.targets, config.row_positions
    if positions is None and all(each.target == "" and each.kind == "class" for each in labels):
        plain = names.get("")
        return {
            "label": labels[0].column if labels else None,
            "class_names": None if plain is None else list(plain),
        }
    return {
        "label": [[each.target, each.column, each.kind] for each in labels],
        "class_names": {target: None if own is None else list(own) for target, own in names.items()},
        "positions": None if positions is None else [positions.most, positions.fixed, positions.length],
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


def recipe_digest(config: TransferSetConfig) -> str:
    """What the splits of one transfer set have in common. The cache holds keys without their salt."""
    facts = asdict(config) | {"splits": None, "classes": None, "label": None}
    for name in ("key_salt", "label_as", "positions"):
        del facts[name]
    for name in ("split_column", "pseudo_data"):
        if facts[name] is None:
            del facts[name]  # as in entries from before there was one
    return blake3(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def shown_name(config: TransferSetConfig) -> str:
    """The recipe's, or one that does not say where the data lies: of the local folder or file, else the hub id or factory."""
    local = None if config.source is None else Path(config.source).expanduser()
    return config.name or (local.resolve().name if local is not None and local.exists() else config.origin)
