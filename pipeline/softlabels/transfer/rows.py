"""One split of a transfer set, decoded, hashed and prepared once: after that it is read like labels.

`fill` does that work, `cache` keeps it, `anew` shows at every opening that it still is what the prepare function gives, `kinds`
that all splits hold rows of one kind. Not here: joining rows to labels (`softlabels.stream`). R rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from softlabels.errors import ConfigError, TransferSetError, some
from softlabels.objects import ObjectSpec, call_with
from softlabels.transfer.anew import depends, is_current
from softlabels.transfer.cache import Entry, FileRecord, cached, default_cache
from softlabels.transfer.cache_entries import recorded_entries
from softlabels.transfer.class_names import Names
from softlabels.transfer.config import TransferSetConfig
from softlabels.transfer.decode import Array
from softlabels.transfer.file_arguments import recorded
from softlabels.transfer.fill import blocks, write_rows
from softlabels.transfer.identity import identity, recipe_digest, shown_name
from softlabels.transfer.keys import KEY_RULE, NULLS_RULE, SALTED_RULE, salted_keys
from softlabels.transfer.kinds import Kinds, require_one_kind
from softlabels.transfer.label_columns import LabelReader, RowKind, label_reader
from softlabels.transfer.pseudo import with_pseudo_rows
from softlabels.transfer.salt import read_salt
from softlabels.transfer.sequences import SequenceInfo, Tokenization, open_tokenization, write_sequences
from softlabels.transfer.source import Source, open_split
from softlabels.transfer.tabular_fit import SPLIT, fitted, said

Keys = npt.NDArray[np.uint8]
_KEYS: RowKind = np.dtype(np.uint8), (16,)


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
        labels: hard labels of the target without a name: (R,) int64, -1 = none; other kinds, and those of positions, as of
            `hard`. Memory-mapped, read-only. Where all targets have names -1 of every row.
        class_names: ordered, None where nobody names them; of the target without a name.
        prepare: the prepare function and its arguments, with digests in place of files (see `file_arguments`).
        sequence: of rows of tokens: their length and vocabulary; None for everything else.
        key_rule: the version of the key rule, 2 where rows miss inputs, 3 where keys are salted, see `keys`.
        key: how keys are made: of the content, or the name of the column that holds ids.
        notes: what is worth a line about these rows, for whoever reads what a command prints.
        named: hard labels by the name of their target, where targets have names.
        names_of: class names by the name of their target, likewise.
        positions: P, the positions of a row; None where rows have none, and of rows of tokens.
        ragged: whether a row may have fewer.
        mask: (R, P) uint8, 1 where a row has the position; None where rows have none.
        pseudo: which rows were made, and how (`transfer_set.pseudo_data`); "" where all are the source's.
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
    named: Mapping[str, Array] = field(default_factory=dict)
    names_of: Mapping[str, Names | None] = field(default_factory=dict)
    positions: int | None = None
    ragged: bool = False
    mask: npt.NDArray[np.uint8] | None = None
    pseudo: str = ""

    @property
    def hard(self) -> Mapping[str, Array]:
        """Hard labels by target, "" where it has no name: a class (R,) int64, -1 = none; flags (R, C) int8, 0, 1, -1 = unknown;
        values (R, D) float32, NaN = none. Of positions (R, P), (R, P, C), (R, P, D), with -1 or NaN beyond those of a row.
        """
        return self.named or {"": self.labels}

    def only(self, name: str) -> TransferRows:
        """The same rows with the hard labels of one target. Raises ConfigError where there is none of that name."""
        if name not in self.hard:
            raise ConfigError(
                f"the transfer set {self.name} has no hard labels of a target {name!r}",
                remedy=f"transfer_set.label names {some(map(repr, self.hard))}",
            )
        labels = cast("npt.NDArray[np.int64]", self.hard[name])
        names = self.names_of.get(name) if self.named else self.class_names
        return replace(self, labels=labels, class_names=names, named={}, names_of={})

    def take(self, at: npt.NDArray[np.int64]) -> TransferRows:
        """The rows with the numbers `at` (n,), copied into memory, in that order."""
        return replace(
            self,
            inputs=np.asarray(self.inputs[at]),
            keys=np.asarray(self.keys[at]),
            labels=np.asarray(self.labels[at]),
            named={name: np.asarray(labels[at]) for name, labels in self.named.items()},
            mask=None if self.mask is None else np.asarray(self.mask[at]),
        )


def load_transfer_set(config: TransferSetConfig, split: str, *, cache: Path | None = None) -> TransferRows:
    """Open `split`, prepare its rows or map an existing cache.

    Args:
        config: what the transfer set is.
        split: the split's name in the store.
        cache: folder of caches; default `$SOFTLABELS_CACHE`, else `~/.cache/softlabels/prepared`.

    Raises:
        TransferSetError: a source, split, column or value that cannot be read as `config` says; rows of several kinds; a
            prepare function that does not treat each row separately.
        LabelError: a hard label outside the label space.
        ConfigError: the prepare function or factory cannot be found or called with these arguments; the salt that the recipe
            names does not exist.
        DiskFull, StorageError: the cache cannot be written.

    Example:
        >>> rows = load_transfer_set(states, "train")
        >>> rows.inputs.shape, rows.keys.shape
        ((160, 6), (160, 16))
    """
    root, config = cache if cache is not None else default_cache(), fitted(given := config)
    salt = None if config.key_salt is None else read_salt(config.key_salt)
    source = open_rows(config, split, cache=root)
    reader = label_reader(config, source)
    tokens = None if config.sequences is None else open_tokenization(config.sequences)
    if tokens is None:
        call_with(config.prepare, [])  # refuse a misspelt function or argument before any work
    prepare = recorded(config.prepare) if tokens is None else tokens.recorded
    entry = _entry(config, split, source, reader, tokens, prepare=prepare, root=root)
    if tokens is None and not config.mixed_images:
        _require_one_kind(config, split, entry.facts["kinds"], root)
    keys, key_rule = _keys(config, entry, salt)
    return TransferRows(
        name=shown_name(config),
        split=split,
        revision=config.revision,
        source=config.origin,
        inputs=entry.arrays["inputs"],
        keys=keys,
        class_names=source.class_names.get(""),
        prepare=prepare,
        sequence=None if tokens is None else tokens.info,
        key_rule=key_rule,
        notes=(
            *_notes(source, entry.facts),
            *([said(config.prepare)] if config is not given and split == SPLIT else []),
        ),
        pseudo=source.pseudo,
        key=config.key,
        names_of={name: names for name, names in source.class_names.items() if name},
        **reader.of_rows(entry.arrays, len(keys)),
    )


def open_rows(config: TransferSetConfig, split: str, *, cache: Path | None = None) -> Source:
    """The split's raw rows in the order of `load_transfer_set`, with the rows that are made for it."""
    root = cache if cache is not None else default_cache()
    return with_pseudo_rows(config, split, open_split(config, split), root)


def _entry(
    config: TransferSetConfig,
    split: str,
    source: Source,
    reader: LabelReader,
    tokens: Tokenization | None,
    *,
    prepare: ObjectSpec,
    root: Path,
) -> Entry:
    """The cache's entry of a split, made where there is none that is sound and current."""
    filled = False

    def write(folder: Path) -> tuple[list[FileRecord], dict[str, Any]]:
        nonlocal filled
        filled = True
        if tokens is None:
            return write_rows(config, source, reader, folder, split=split)
        texts = (columns[0] for _, _, columns in blocks(config, source))
        return write_sequences(tokens, texts, folder, texts=source.rows, title=f"tokenize {split}")

    def check(arrays: dict[str, Array]) -> bool:
        return tokens is not None or is_current(config, source, arrays["inputs"])

    about = {"recipe": recipe_digest(config), "transfer_set": shown_name(config), "split": split}
    fits = partial(_fits, rows=source.rows if tokens is None else None, inputs=config.inputs, labels=reader.arrays)
    entry = cached(root, identity(config, split, source, prepare), write, about=about, is_current=check, fits=fits)
    if filled and not check(entry.arrays):
        raise depends(config)
    return entry


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


def _fits(entry: Entry, rows: int | None, inputs: Sequence[str], labels: Mapping[str, RowKind]) -> bool:
    """Whether an entry holds one input, key and label of each kind a row, of `rows` rows where their number is known
    beforehand.
    """
    arrays = dict(entry.arrays)
    values = arrays.pop("inputs")
    try:
        facts = msgspec.convert(entry.facts, _Facts)
    except msgspec.ValidationError:
        return False
    return (
        {len(values), *map(len, arrays.values())} == {len(values) if rows is None else rows}
        and values.dtype.kind in "biuf"
        and {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()} == {"keys": _KEYS, **labels}
        and len(facts.kinds) == (len(inputs) if rows is not None else 0)
    )


def _notes(source: Source, facts: Mapping[str, Any]) -> Iterator[str]:
    yield from source.notes
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
    ours = recipe_digest(config)
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
            if (
                identity(config, other, open_rows(config, other, cache=root), recorded(config.prepare))
                == meta["identity"]
            ):
                raise
