"""Make a store from logits or probabilities that something else produced: a gradient-free ensemble, a served model, a file
from another team.

The rows are those whose `inputs` (or content `keys`) the file holds beside its outputs; without them, those of the
recipe's transfer set (--config), in the same order::

    numpy.savez("forest.npz", probabilities=forest.predict_proba(X), inputs=X, labels=y)
    softlabels import --from=forest.npz --store=stores/forest/train --teacher_name=forest
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from tqdm import tqdm

from softlabels.errors import ClassMismatch, ConfigError, TransferSetError
from softlabels.labels import NO_LABEL
from softlabels.labels.ensemble import normalised_weights
from softlabels.store.dense_spec import dense_spec, prepared_by
from softlabels.store.markdown import without_folders
from softlabels.store.outputs import Kind, Outputs, read_outputs
from softlabels.store.root import is_split_folder, write_root
from softlabels.store.same_plan import kept_about, require_same_maker
from softlabels.store.spec import About, MemberSpec, Preprocessing, TeacherSpec
from softlabels.store.writer import StoreWriter, require_room
from softlabels.transfer import TransferSetConfig, array_keys, load_transfer_set
from softlabels_stages.recipe import parse
from softlabels_stages.run import command, should_stop, suggested

_HASHED_ROWS = 1024  # at once


@dataclass(frozen=True)
class Import:
    """Arguments of import."""

    transfer_set: TransferSetConfig | None = None
    from_: str = ""  # npy, npz or Parquet file: logits or probabilities, (rows, classes) or (rows, members, classes)
    store: str = ""  # where the store goes: the folder of one split
    split: str = "train"  # the split that these rows are
    teacher_name: str = "imported"  # how the teacher is named in the store
    weights: tuple[float, ...] | None = None  # the members' shares in the mean; all alike by default
    column: str | None = None  # the array or column of outputs, when it is not called logits or probabilities
    kind: Kind = "auto"  # logits or probabilities; auto goes by the array's name, and refuses logits that sum to 1
    transfer_name: str | None = None  # how the transfer set is named; by default as in the recipe, or as the file
    classes: tuple[str, ...] | None = None  # names of the classes in order
    layout: Literal["zarr", "arrow"] = "zarr"  # zarr or arrow
    inputs: Literal["reference", "embed"] = "reference"  # embed keeps the inputs in the store
    teacher_licence: str = ""  # for the card
    licence: str = ""  # of the transfer set, for the card


@dataclass(frozen=True)
class _Rows:
    """The rows that outputs belong to."""

    name: str
    source: str
    keys: NDArray[np.uint8]
    labels: NDArray[np.int64]
    inputs: NDArray[np.generic] | None
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, write, seal."""
    args = parse(argv, Import, stage="import", doc=__doc__, positional=("from_", "store"))
    if not args.from_ or not args.store:
        raise ConfigError(
            "a file of outputs and a store are needed", remedy="write softlabels import --from=FILE --store=STORE"
        )
    outputs = read_outputs(args.from_, column=args.column, kind=args.kind)
    rows = _rows_of(args, outputs)
    members = outputs.logits.shape[1]
    weights = args.weights or (1.0,) * members
    normalised_weights(weights, members)
    if args.inputs == "embed" and rows.inputs is None:
        raise ConfigError(
            f"{args.from_} holds keys and no inputs", remedy="leave out --inputs=embed, or add the inputs"
        )
    spec = dense_spec(
        teacher=TeacherSpec(
            name=args.teacher_name,
            precision=outputs.logits.dtype.name,
            members=tuple(MemberSpec(model=args.teacher_name, weight=weight) for weight in weights),
        ),
        name=args.transfer_name or rows.name,
        split=args.split,
        keys=rows.keys,
        classes=_classes(args.classes or rows.class_names, outputs.logits.shape[2]),
        layout=args.layout,
        preprocessing=rows.preprocessing,
        embed=rows.inputs if args.inputs == "embed" else None,
    )
    made_of = f"outputs {_digest(outputs, rows)}"
    about = About(
        source=f"{without_folders(rows.source)}; {made_of}",
        teacher_licence=args.teacher_licence,
        transfer_licence=args.licence,
    )
    with StoreWriter(args.store, spec, about=about, settings="--") as writer:
        require_same_maker(writer.path, made_of, remedy="give the outputs that began it")
        for line in kept_about(writer.path, about):
            print(line)
        require_room([writer])
        for shard in tqdm(writer.pending, desc="import", unit="shard", disable=None):
            if should_stop():
                raise writer.stopped()
            span = slice(*writer.rows_of(shard))
            writer.write_logits(
                shard,
                keys=rows.keys[span],
                labels=rows.labels[span],
                logits=outputs.logits[span],
                inputs=np.array(rows.inputs[span]) if args.inputs == "embed" and rows.inputs is not None else None,
            )
        manifest = writer.seal()
    if is_split_folder(Path(args.store), args.split):
        write_root(Path(args.store).parent)
    print(f"sealed: {args.store}, {manifest.spec.rows:,} rows (look: {suggested('info', args.store)})")
    return 0


def _digest(outputs: Outputs, rows: _Rows) -> str:
    """Of the file's outputs and the hard labels, which no specification tells apart. The logarithm of a probability may have
    other last bits on another machine.
    """
    hasher = blake3(np.ascontiguousarray(rows.labels).tobytes())
    hasher.update(b"" if outputs.values is outputs.logits else b"probabilities")
    for start in range(0, len(outputs.values), _HASHED_ROWS):
        hasher.update(np.ascontiguousarray(outputs.values[start : start + _HASHED_ROWS]).tobytes())
    return hasher.hexdigest()[:16]


def _rows_of(args: Import, outputs: Outputs) -> _Rows:
    """The rows in the file, by their inputs or keys; else those of the recipe's transfer set."""
    count = len(outputs.logits)
    keys = outputs.keys
    if keys is None and outputs.inputs is not None:
        keys = array_keys(outputs.inputs)
    if keys is not None:
        labels = np.full(count, NO_LABEL, np.int64) if outputs.labels is None else outputs.labels
        how = Preprocessing(function="") if outputs.inputs is None else prepared_by("", {}, outputs.inputs)
        file = Path(args.from_)
        return _Rows(file.stem, str(file), keys, labels, outputs.inputs, None, how)
    if args.transfer_set is None:
        raise ConfigError(
            f"{args.from_} has neither inputs nor keys, and the recipe no transfer_set",
            remedy="add an array inputs (or keys) to the file, or name a recipe with --config",
        )
    where = f"the {args.split} split of {args.transfer_set.name} (--config)"
    print(f"{args.from_} has neither inputs nor keys: its rows are taken to be those of {where}", file=sys.stderr)
    rows = load_transfer_set(args.transfer_set, args.split)
    if len(rows.keys) != count:
        raise TransferSetError(
            f"{args.from_} has {count} rows of outputs and the {args.split} split of {rows.name} {len(rows.keys)}",
            remedy="add an array inputs (or keys) to the file, or name the recipe that was labelled with --config",
        )
    labels = rows.labels if outputs.labels is None else outputs.labels
    how = prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs)
    return _Rows(rows.name, rows.source, rows.keys, labels, rows.inputs, rows.class_names, how)


def _classes(names: Sequence[str] | None, count: int) -> int | Sequence[str]:
    if names is not None and len(names) != count:
        raise ClassMismatch(
            f"the outputs have {count} classes and there are {len(names)} class names",
            remedy="name every class in order with --classes=a,b,...",
        )
    return count if names is None else names


if __name__ == "__main__":
    sys.exit(main())
