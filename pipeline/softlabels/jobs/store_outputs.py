"""A store of outputs that something else produced, at hand as arrays: checked whole, written, sealed. `softlabels import` reads
them from a file, `write_store` takes them from memory. R rows, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from tqdm import tqdm

from softlabels.checks.contradictions import apart, require_consistent
from softlabels.checks.order import require_order
from softlabels.errors import ConfigError
from softlabels.jobs.watch import Watch
from softlabels.labels.decoder import Columns
from softlabels.labels.ensemble import largest_class, normalised_weights
from softlabels.store.hard_labels import require_labels
from softlabels.store.records import Manifest
from softlabels.store.root import is_split_folder, write_root
from softlabels.store.same_plan import kept_about, require_same_maker
from softlabels.store.spec import About, Spec
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.places import Target, folder_of

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "validation", "val", "valid", "dev", "test")  # what the folder of a split is called
_HASHED_ROWS = 1024  # at once


@dataclass(frozen=True)
class Given:
    """Outputs of one target: `logits` (R, [P,] M, C); `values`, which they were made of; hard `labels` as
    `softlabels.labels.hard` says, None where it has none.
    """

    logits: NDArray[np.floating]
    values: NDArray[np.generic]
    labels: NDArray[np.generic] | None


@dataclass(frozen=True)
class Whole:
    """All rows of a split: `keys` (R, 16); `inputs` (R, ...), where they are kept; what is given of each target, by its name
    ("" of one without); and `mask` (R, P) uint8 of rows of positions.
    """

    keys: NDArray[np.uint8]
    inputs: NDArray[np.generic] | None
    targets: Mapping[str, Given]
    mask: NDArray[np.uint8] | None = None


def store_outputs(path: Target, spec: Spec, whole: Whole, *, about: About, where: str, watch: Watch) -> Manifest:
    """Check outputs, make their store or go on with it, and describe the folder of splits that it lies in.

    Args:
        path: the store, the folder of one split. spec: what it will hold, of encodings that keep all outputs.
        about: the source's words; the digest of the values is added.
        where: where the outputs come from, for messages.
        watch: gets the findings on the rows, and is asked before each shard whether to stop.

    Raises:
        ContradictingOutputs, OtherClassOrder: see `softlabels.checks`; nothing is written. Others as `StoreWriter` raises them.
        Interrupted: `watch` asked to stop; the same call goes on from there.
    """
    for name, given in whole.targets.items():
        _check(spec, name, given, whole, where)
    made_of = f"outputs {_digest(whole)}"
    about = msgspec.structs.replace(about, source=f"{about.source}; {made_of}")
    with StoreWriter(path, spec, about=about) as writer:
        require_same_maker(writer.folder, made_of, remedy="give the outputs that began it")
        kept = kept_about(writer.folder, about)
        require_room([writer])
        for shard in tqdm(writer.pending, desc="import", unit="shard", disable=None):
            if watch.should_stop():
                raise writer.stopped()
            span = slice(*writer.rows_of(shard))
            logits = {name: given.logits[span] for name, given in whole.targets.items()}
            labels = {name: given.labels[span] for name, given in whole.targets.items() if given.labels is not None}
            writer.write_logits(
                shard,
                keys=whole.keys[span],
                labels=labels,
                logits=logits.get("", logits),
                mask=None if whole.mask is None else whole.mask[span],
                are_logits=True,
                inputs=None if whole.inputs is None else np.array(whole.inputs[span]),
            )
        manifest = writer.seal(checked=True)
    for line in (*kept, *_not_finite(whole.inputs), *writer.said):
        watch.say(line)
    if is_split_folder(writer.folder, spec.transfer_set.split):
        write_root(writer.folder.above())
    return manifest


def split_of(store: Target, split: str | None, *, others: Collection[str] = (), setting: str = "split") -> str:
    """The split that rows are: as it is said, else by the name of the store's folder.

    Args:
        others: names of splits beside the usual ones. setting: what messages call where it is said.

    Raises:
        ConfigError: nobody says it, or folder and setting say two.
    """
    place, known = folder_of(store), {*SPLITS, *others}
    folder = place.name
    if split is None and folder not in known:
        raise ConfigError(
            f"the folder {place} does not say which split these rows belong to",
            remedy=f"give {setting}=train (or test, ...), or a folder of that name, such as {place.at('train')}",
        )
    if split is not None and folder in known and folder != split:
        raise ConfigError(
            f"{setting}={split}, and the folder of the store is called {folder}",
            remedy=f"leave out {setting}, or change it",
        )
    return split or folder


def _check(whole_spec: Spec, name: str, given: Given, whole: Whole, where: str) -> None:
    """Before a store is begun, of one target: hard labels and outputs that are none, rows of one key that contradict each
    other, and classes in another order than the labels.
    """
    from softlabels.labels.blocks import block_of, tensor_of

    spec, title = whole_spec.only(name), f", target {name}" if name else ""
    target, mask = next(each for each in whole_spec.targets if each.name == name), whole.mask
    classes, encoding, logits, labels = spec.label_space.classes, spec.encoding, given.logits, given.labels
    if labels is not None:
        require_labels(target, labels)
    each, lead = spec.positions or 1, logits.shape[:-2]

    def read(numbers: NDArray[np.int64]) -> Columns:
        columns = encoding.exact(logits[numbers])
        return columns if mask is None else {**columns, "position_mask": mask[numbers]}

    def place(number: int) -> str:
        position = "" if mask is None else f", position {number % each}"
        return f"{title.removeprefix(', ')}{', ' * bool(title)}row {number // each}{position}"

    counts = None if mask is None else _counts(mask)
    _ = block_of(tensor_of(logits).flatten(0, -3), None, counts, place, check=encoding.check_outputs)
    compare = partial(apart, encoding=encoding, classes=classes, precision=spec.teacher.precision)
    row_bytes = logits[0].nbytes
    require_consistent(whole.keys, read, compare, row_bytes=row_bytes, where=where + title, off=encoding.off)
    if target.encoding.target != "softmax" or labels is None or not (labels >= 0).any():  # type: ignore[operator]  # integers
        return
    weights = [member.weight for member in spec.teacher.members]
    share = normalised_weights(weights, len(weights))
    best = largest_class(logits.reshape(-1, *logits.shape[len(lead) :]), share)
    named = labels.reshape(-1).astype(np.int64)
    require_order(best, named, classes, names=spec.label_space.names, where=where + title)


def _counts(mask: NDArray[np.uint8]) -> Tensor:
    """(R, P) as (R * P,) bool in torch."""
    import torch

    return torch.from_numpy(mask.reshape(-1) != 0)


def _digest(whole: Whole) -> str:
    """Of outputs and hard labels, which no specification tells apart. The logarithm of a probability may have other last bits
    on another machine, so of these the outputs are taken as they were given.
    """
    hasher = blake3()
    for name, given in whole.targets.items():
        hasher.update(name.encode())
        hasher.update(b"" if given.labels is None else np.ascontiguousarray(given.labels).tobytes())
        hasher.update(b"" if given.values is given.logits else b"probabilities")
        for start in range(0, len(given.values), _HASHED_ROWS):
            hasher.update(np.ascontiguousarray(given.values[start : start + _HASHED_ROWS]).tobytes())
    hasher.update(b"" if whole.mask is None else whole.mask.tobytes())
    return hasher.hexdigest()[:16]


def _not_finite(inputs: NDArray[np.generic] | None) -> Iterator[str]:
    """A line on inputs that students would train on and that hold NaN or infinite values; a teacher may have taken such."""
    if inputs is not None and inputs.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1))
        if wrong.size:
            yield f"the inputs of {wrong.size:,} of {len(inputs):,} rows hold NaN or infinite values, first in row {wrong[0]}"
