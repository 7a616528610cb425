"""Make a store from outputs that something else produced: a gradient-free ensemble, a served model, a file from another team.

The file holds the `inputs` (or content `keys`) of its rows beside the outputs. Without them, the rows are those of the recipe's
transfer set (--config), in the same order::

    numpy.savez("forest.npz", probabilities=forest.predict_proba(X), inputs=X, labels=y)
    softlabels import --from=forest.npz --store=stores/forest/train --teacher_name=forest

A CSV or Parquet file may have one column per class: p0, p1, ... (or prob_0, logit_1, ...), or columns named after the classes
(--classes=a,b,...). --key=id names the column that identifies rows.

Outputs are logits or probabilities of one distribution over the classes, of each class by itself (--target=sigmoid) or real
numbers (--target=values). Rows of positions need --positions=N, a mask, lengths, or lists of different length (Parquet).
Several targets are arrays NAME.logits, NAME.probabilities or NAME.values, and --targets.NAME.kind says what each is.

With --from_format the file is one of DistillKit's, axolotl's, vLLM's or SGLang's, top-k log-probabilities of tokens
(docs/translate.md)::

    softlabels import --from=capture/ --from_format=distillkit --teacher_tokenizer=./teacher --store=stores/lm/train

A recipe's labels.layout, inputs, licence, kind, dtype and targets are used too, unless a flag overrides them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError
from softlabels.jobs.imported import Imported, imported_spec, rows_of_file, rows_of_set
from softlabels.jobs.outputs import OutputFile, Outputs
from softlabels.jobs.reading import KEYS
from softlabels.jobs.splits import load_rows
from softlabels.jobs.store_outputs import split_of, store_outputs
from softlabels.jobs.watch import Watch
from softlabels.store.markdown import without_folders
from softlabels.store.spec import About
from softlabels.system.paths import local_path
from softlabels.transfer import TransferRows
from softlabels.transfer.identity import shown_name
from softlabels.transfer.salt import read_salt
from softlabels_stages.arguments import Import
from softlabels_stages.foreign import require_format, translated
from softlabels_stages.recipe import load, parse, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn

_POSITIONAL = ("from_", "store")
# What import takes of a recipe's labels, and what its flags call it.
_OF_LABELS = {
    "layout": "layout", "inputs": "inputs", "licence": "licence", "kind": "target", "dtype": "dtype", "targets": "targets",
}  # fmt: skip
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
    if args.from_format is not None:
        return translated(args)
    require_format(args)
    split = split_of(args.store, args.split, others=known, setting="--split")
    file = OutputFile(Path(local_path(args.from_)), _reading(args))
    rows = None if file.says_rows else _set_of(args, split)
    outputs = file.read(None if rows is None else rows.mask)
    found = _rows(args, file, outputs, rows, split)
    if args.inputs == "embed" and found.inputs is None:
        raise ConfigError(
            f"{args.from_} holds no inputs of numbers", remedy="leave out --inputs=embed, or add the inputs"
        )
    kept = found.inputs if args.inputs == "embed" else None
    watch = Watch(lambda line: say(f"{split}: {line}"), warn, should_stop)
    for line in outputs.said:
        watch.say(line)
    if args.transfer_name:
        found.facts["name"] = args.transfer_name
    manifest = store_outputs(
        args.store,
        imported_spec(
            found, outputs, file.how, split=split, teacher=args.teacher_name, precision=args.precision, embed=kept,
            layout=args.layout,
        ),
        found.whole(outputs, kept),
        about=About(
            source=without_folders(found.source), teacher_licence=args.teacher_licence, transfer_licence=args.licence
        ),
        where=args.from_,
        watch=watch,
    )  # fmt: skip
    print(f"sealed: {args.store}, {manifest.spec.rows:,} rows (look: {suggested('info', args.store)})")
    return 0


def _parsed(argv: Sequence[str]) -> Import:
    """What the command line says; where it says nothing, what the recipe's section `labels` does. Classes that are named here
    are those of the transfer set too.
    """
    given = texts(argv, Import, positional=_POSITIONAL)
    labels = load(given["config"]).get("labels") if "config" in given else None
    labels = labels if isinstance(labels, Mapping) else {}
    own = [f"--{name}={text}" for name, text in _of_recipe(labels) if name not in given]
    args = parse([*argv, *own], Import, stage="import", doc=__doc__, positional=_POSITIONAL)
    others = sorted(item[0] for item in labels.items() if item[0] not in _OF_LABELS and item not in _AS_IT_IS)
    others += [f"targets.{name}.{key}" for name, key in _unused(labels.get("targets"))]
    if others:
        warn(
            f"the recipe's labels say {', '.join(others)}, which import does not use: it stores dense labels of all "
            "members (topk: softlabels encode)"
        )
    if args.classes is not None and args.transfer_set is not None and not isinstance(args.transfer_set.label, Mapping):
        args = replace(args, transfer_set=replace(args.transfer_set, classes=args.classes))
    return args


def _of_recipe(labels: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What import takes of a recipe's labels, as flags; of targets a flag a setting."""
    for name, flag in _OF_LABELS.items():
        if name in labels and name != "targets":
            yield flag, str(labels[name])
    targets = labels.get("targets")
    for name, entry in targets.items() if isinstance(targets, Mapping) else ():
        if not isinstance(entry, Mapping):
            yield f"targets.{name}", str(entry)
            continue
        for key in KEYS:
            if key in entry or key == "kind":
                yield f"targets.{name}.{key}", json.dumps(entry.get(key, "softmax"))


def _unused(targets: object) -> list[tuple[str, str]]:
    """What a recipe's targets say that an import does not use."""
    if not isinstance(targets, Mapping):
        return []
    return [
        (name, key)
        for name, entry in targets.items()
        for key in (entry if isinstance(entry, Mapping) else ())
        if key not in KEYS and (key, entry[key]) not in _AS_IT_IS
    ]


def _reading(args: Import) -> Import:
    """How the file is read, with what the transfer set says of classes and positions. Raises `ConfigError`."""
    chosen = args.transfer_set
    if chosen is None:
        return args
    rule = chosen.row_positions
    positions = args.positions if rule is None or args.positions is not None else rule.most
    classes = args.classes if args.classes is not None or args.targets is not None else chosen.classes
    return replace(args, positions=positions, classes=classes)


def _set_of(args: Import, split: str) -> TransferRows:
    """The rows of the recipe's transfer set. Raises `ConfigError` without one."""
    if args.transfer_set is None:
        raise ConfigError(
            f"{args.from_} has neither inputs nor keys, and the recipe no transfer_set",
            remedy="add an array inputs (or keys) to the file, or name a recipe with --config",
        )
    warn(f"{args.from_} has neither inputs nor keys: its rows are taken to be those of {_called(args, split)}")
    return load_rows(args.transfer_set, split, Watch(say, warn))


def _called(args: Import, split: str) -> str:
    """What messages call the rows of the transfer set."""
    return f"the {split} split of {shown_name(args.transfer_set) if args.transfer_set else ''} (--config)"


def _rows(args: Import, file: OutputFile, outputs: Outputs, rows: TransferRows | None, split: str) -> Imported:
    """The rows in the file, else those of the recipe's transfer set."""
    if rows is not None:
        return rows_of_set(outputs, file.how, file.path, rows, _called(args, split))
    salt = (
        None
        if args.transfer_set is None or args.transfer_set.key_salt is None
        else read_salt(args.transfer_set.key_salt)
    )
    return rows_of_file(outputs, file.how, file.path, salt)


if __name__ == "__main__":
    sys.exit(main())
