"""Make a store from logits or probabilities that something else produced: a gradient-free ensemble, a served model, a file
from another team.

The rows are those whose `inputs` (or content `keys`) the file holds beside its outputs; without them, those of the
recipe's transfer set (--config), in the same order::

    numpy.savez("forest.npz", probabilities=forest.predict_proba(X), inputs=X, labels=y)
    softlabels import --from=forest.npz --store=stores/forest/train --teacher_name=forest

A CSV or Parquet file may have a column a class: p0, p1, ... (or prob_0, logit_1, ...), or columns that are called by their
classes (--classes=a,b,...), are one array, and --key=id says which row is which.

A recipe's labels.layout, inputs and licence hold here too, where no flag says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import UNSET
from numpy.typing import NDArray

from softlabels.errors import ClassMismatch, ConfigError, TransferSetError
from softlabels.jobs.outputs import Outputs, read_outputs
from softlabels.jobs.splits import load_rows
from softlabels.jobs.store_outputs import Given, Whole, split_of, store_outputs
from softlabels.jobs.watch import Watch
from softlabels.labels import NO_LABEL
from softlabels.store.markdown import without_folders
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.spec import About, MemberSpec, Preprocessing, Spec, TeacherSpec
from softlabels.transfer import array_keys
from softlabels.transfer.keys import KEY_RULE, SALTED_RULE, id_keys, salted_keys
from softlabels.transfer.salt import read_salt
from softlabels_stages.arguments import Import
from softlabels_stages.recipe import load, parse, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn

_POSITIONAL = ("from_", "store")
_OF_LABELS = ("layout", "inputs", "licence")  # what import takes of a recipe's labels
_AS_IT_IS = (("encoding", "dense"), ("reduce", "none"), ("compression", "none"))


@command(resumable=True, settings="--")
def main(argv: Sequence[str] | None = None) -> int:
    """Read, check, write, seal."""
    args = _parsed(sys.argv[1:] if argv is None else argv)
    if not args.from_ or not args.store:
        raise ConfigError(
            "a file of outputs and a store are needed", remedy="write softlabels import --from=FILE --store=STORE"
        )
    known = () if args.transfer_set is None else args.transfer_set.splits
    split = split_of(args.store, args.split, others=known, setting="--split")
    outputs = _outputs(args)
    facts, labels, inputs, source = _rows_of(args, outputs, split)
    if args.inputs == "embed" and inputs is None:
        raise ConfigError(
            f"{args.from_} holds keys and no inputs", remedy="leave out --inputs=embed, or add the inputs"
        )
    kept = inputs if args.inputs == "embed" else None
    watch = Watch(lambda line: say(f"{split}: {line}"), warn, should_stop)
    for line in outputs.said:
        watch.say(line)
    manifest = store_outputs(
        args.store,
        _spec(args, outputs, split, facts, kept),
        Whole(facts["keys"], kept, {"": Given(outputs.logits, outputs.values, labels)}),
        about=About(
            source=without_folders(source), teacher_licence=args.teacher_licence, transfer_licence=args.licence
        ),
        where=args.from_,
        watch=watch,
    )
    print(f"sealed: {args.store}, {manifest.spec.rows:,} rows (look: {suggested('info', args.store)})")
    return 0


def _parsed(argv: Sequence[str]) -> Import:
    """What the command line says; where it says nothing, what the recipe's section `labels` does. Classes that are named here
    are those of the transfer set too.
    """
    given = texts(argv, Import, positional=_POSITIONAL)
    labels = load(given["config"]).get("labels") if "config" in given else None
    labels = labels if isinstance(labels, Mapping) else {}
    own = [f"--{name}={labels[name]}" for name in _OF_LABELS if name in labels and name not in given]
    args = parse([*argv, *own], Import, stage="import", doc=__doc__, positional=_POSITIONAL)
    others = sorted(item[0] for item in labels.items() if item[0] not in _OF_LABELS and item not in _AS_IT_IS)
    if others:
        warn(
            f"the recipe's labels say {', '.join(others)}, which import does not use: it stores dense labels of all "
            "members (topk: softlabels encode)"
        )
    if args.classes is not None and args.transfer_set is not None:
        args = replace(args, transfer_set=replace(args.transfer_set, classes=args.classes))
    return args


def _spec(
    args: Import, outputs: Outputs, split: str, facts: Mapping[str, Any], embed: NDArray[np.generic] | None
) -> Spec:
    """What decides the bytes of the store; `facts` are those of its rows."""
    weights = args.weights or (1.0,) * outputs.logits.shape[1]
    teacher = TeacherSpec(
        name=args.teacher_name,
        precision=args.precision or outputs.values.dtype.name,  # of probabilities their logarithm is made in float64
        members=tuple(MemberSpec(model=args.teacher_name, weight=weight) for weight in weights),
        floor=UNSET if outputs.floor is None else outputs.floor,
    )
    names, count = args.classes or facts["classes"], outputs.logits.shape[2]
    if names is not None and len(names) != count:
        raise ClassMismatch(
            f"the outputs have {count} classes and there are {len(names)} class names",
            remedy="name every class in order with --classes=a,b,...",
        )
    own = {"split": split, "layout": args.layout, "embed": embed, "classes": count if names is None else names}
    return store_spec(teacher=teacher, **{**facts, **own, "name": args.transfer_name or facts["name"]})


def _outputs(args: Import) -> Outputs:
    """What the file holds. Raises `ConfigError` where numbers of members contradict each other."""
    members = args.members if args.weights is None else len(args.weights)
    if args.members not in (None, members):
        raise ConfigError(f"--members={args.members}, and {members} weights", remedy="give one weight a member")
    names = args.classes or (None if args.transfer_set is None else args.transfer_set.classes)
    return read_outputs(args.from_, replace(args, members=members, classes=names))


def _rows_of(
    args: Import, outputs: Outputs, split: str
) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.generic] | None, str]:
    """The rows in the file, by their ids, keys or inputs; else those of the recipe's transfer set: what a specification says of
    them, hard labels, inputs and source.
    """
    count = len(outputs.logits)
    keys, key = outputs.keys, "content"
    if outputs.ids is not None:
        key = str(args.key)
        keys = id_keys(pa.chunked_array([pa.array(outputs.ids.tolist())]), name=key, start=0)
    elif keys is None and outputs.inputs is not None:
        keys = array_keys(outputs.inputs)
    salt = None if args.transfer_set is None else args.transfer_set.key_salt
    if keys is not None:
        rule = KEY_RULE
        if salt is not None and outputs.keys is None:  # keys that the file holds are what its maker made them
            keys, rule = salted_keys(keys, read_salt(salt)), SALTED_RULE
        labels = np.full(count, NO_LABEL, np.int64) if outputs.labels is None else outputs.labels
        how = Preprocessing(function="") if outputs.inputs is None else prepared_by("", {}, outputs.inputs)
        facts: dict[str, Any] = {"name": Path(args.from_).stem, "keys": keys, "key": key, "classes": None}
        return facts | {"preprocessing": how, "key_rule": rule}, labels, outputs.inputs, str(Path(args.from_))
    if args.transfer_set is None:
        raise ConfigError(
            f"{args.from_} has neither inputs nor keys, and the recipe no transfer_set",
            remedy="add an array inputs (or keys) to the file, or name a recipe with --config",
        )
    where = f"the {split} split of {args.transfer_set.name} (--config)"
    warn(f"{args.from_} has neither inputs nor keys: its rows are taken to be those of {where}")
    rows = load_rows(args.transfer_set, split, Watch(say, warn))
    if len(rows.keys) != count:
        raise TransferSetError(
            f"{args.from_} has {count} rows of outputs and the {split} split of {rows.name} {len(rows.keys)}",
            remedy="add an array inputs (or keys) to the file, or name the recipe that was labelled with --config",
        )
    labels = rows.labels if outputs.labels is None else outputs.labels
    other = int(((labels != rows.labels) & (labels >= 0) & (rows.labels >= 0)).sum())
    if other:
        raise TransferSetError(
            f"{other} of {count} rows of {args.from_} have another hard label than those of {where}, and nothing but their "
            "order says which row is which",
            remedy="add an array inputs (or keys) to the file, or ids (--key); if the order is right, leave out its labels",
        )
    how = prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs)
    facts = {"name": rows.name, "keys": rows.keys, "key": rows.key, "classes": rows.class_names}
    return facts | {"preprocessing": how, "key_rule": rows.key_rule}, labels, rows.inputs, rows.source


if __name__ == "__main__":
    sys.exit(main())
