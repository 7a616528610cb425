"""A store of outputs that something else produced, at hand as arrays: checked whole, written, sealed. `softlabels import` reads
them from a file, `write_store` takes them from memory. R rows, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from tqdm import tqdm

from softlabels.checks.contradictions import apart, require_consistent
from softlabels.checks.order import require_order
from softlabels.errors import ConfigError
from softlabels.jobs.outputs import Outputs
from softlabels.jobs.watch import Watch
from softlabels.labels.base import Columns
from softlabels.labels.ensemble import largest_class, normalised_weights
from softlabels.store.hard_labels import require_labels
from softlabels.store.records import Manifest
from softlabels.store.root import is_split_folder, write_root
from softlabels.store.same_plan import kept_about, require_same_maker
from softlabels.store.spec import About, Spec
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.local import LocalFolder

SPLITS = ("train", "validation", "val", "valid", "dev", "test")  # what the folder of a split is called
_HASHED_ROWS = 1024  # at once


def store_outputs(
    path: str | Path, spec: Spec, outputs: Outputs, *, about: About, where: str, watch: Watch
) -> Manifest:
    """Check outputs, make their store or go on with it, and describe the folder of splits that it lies in.

    Args:
        path: the store, the folder of one split. spec: what it will hold, of dense labels.
        outputs: with the keys and hard labels of their rows, and inputs where the specification embeds them.
        about: the source's words; the digest of the values is added.
        where: where the outputs come from, for messages.
        watch: is told what there is to say of the rows, and asked before each shard whether to stop.

    Raises:
        ContradictingOutputs, OtherClassOrder: see `softlabels.checks`; nothing is written. Others as `StoreWriter` raises them.
        Interrupted: `watch` asked to stop; the same call goes on from there.
    """
    logits, keys, labels, inputs = outputs.logits, outputs.keys, outputs.labels, outputs.inputs
    assert keys is not None and labels is not None  # noqa: PT018  # whoever calls has them
    _check(spec, logits, keys, labels, where)
    made_of = f"outputs {_digest(outputs.values, labels, is_logits=outputs.values is logits)}"
    about = msgspec.structs.replace(about, source=f"{about.source}; {made_of}")
    with StoreWriter(path, spec, about=about) as writer:
        require_same_maker(writer.folder, made_of, remedy="give the outputs that began it")
        kept = kept_about(writer.folder, about)
        require_room([writer])
        for shard in tqdm(writer.pending, desc="import", unit="shard", disable=None):
            if watch.should_stop():
                raise writer.stopped()
            span = slice(*writer.rows_of(shard))
            writer.write_logits(
                shard,
                keys=keys[span],
                labels=labels[span],
                logits=logits[span],
                are_logits=True,
                inputs=None if inputs is None else np.array(inputs[span]),
            )
        manifest = writer.seal(checked=True)
    for line in (*kept, *_not_finite(inputs), *writer.said):
        watch.say(line)
    if is_split_folder(LocalFolder(path), spec.transfer_set.split):
        write_root(LocalFolder(Path(path).parent))
    return manifest


def split_of(store: str | Path, split: str | None, *, others: Collection[str] = (), setting: str = "split") -> str:
    """The split that rows are: as it is said, else by the name of the store's folder.

    Args:
        others: names of splits beside the usual ones. setting: what messages call where it is said.

    Raises:
        ConfigError: nobody says it, or folder and setting say two.
    """
    folder, known = Path(store).name, {*SPLITS, *others}
    if split is None and folder not in known:
        raise ConfigError(
            f"the folder {store} does not say which split these rows are",
            remedy=f"give {setting}=train (or test, ...), or a folder of that name, such as {Path(store) / 'train'}",
        )
    if split is not None and folder in known and folder != split:
        raise ConfigError(
            f"{setting}={split}, and the folder of the store is called {folder}",
            remedy=f"leave out {setting}, or change it",
        )
    return split or folder


def _check(
    spec: Spec, logits: NDArray[np.floating], keys: NDArray[np.uint8], labels: NDArray[np.int64], where: str
) -> None:
    """Before a store is begun: rows of one key that contradict each other, and classes in another order than the labels."""
    from softlabels.labels.blocks import block_of, tensor_of

    classes, encoding = spec.label_space.classes, spec.encoding
    require_labels(spec.target, labels)

    def read(numbers: NDArray[np.int64]) -> Columns:
        return encoding.exact(logits[numbers])

    _ = block_of(tensor_of(logits), None, None, "row {}".format, check=encoding.check_outputs)
    compare = partial(apart, encoding=encoding, classes=classes, precision=spec.teacher.precision)
    require_consistent(keys, read, compare, row_bytes=logits[0].nbytes, where=where, off=encoding.off)
    if encoding.target != "softmax":
        return
    weights = [member.weight for member in spec.teacher.members]
    share = normalised_weights(weights, len(weights))
    best = largest_class(logits, share) if (labels >= 0).any() else labels
    require_order(best, labels, classes, names=spec.label_space.names, where=where)


def _digest(values: NDArray[np.generic], labels: NDArray[np.int64], *, is_logits: bool) -> str:
    """Of outputs and hard labels, which no specification tells apart. The logarithm of a probability may have other last bits
    on another machine, so `values` are the outputs as they were given.
    """
    hasher = blake3(np.ascontiguousarray(labels).tobytes())
    hasher.update(b"" if is_logits else b"probabilities")
    for start in range(0, len(values), _HASHED_ROWS):
        hasher.update(np.ascontiguousarray(values[start : start + _HASHED_ROWS]).tobytes())
    return hasher.hexdigest()[:16]


def _not_finite(inputs: NDArray[np.generic] | None) -> Iterator[str]:
    """A line on inputs that students would train on and that hold NaN or infinite values; a teacher may have taken such."""
    if inputs is not None and inputs.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1))
        if wrong.size:
            yield f"the inputs of {wrong.size:,} of {len(inputs):,} rows hold NaN or infinite values, first in row {wrong[0]}"
