"""What import does with --from_format: a store of what DistillKit, axolotl, vLLM or SGLang wrote, and a report."""

from __future__ import annotations

import dataclasses

from softlabels.errors import ConfigError
from softlabels.jobs.import_labels import Foreign, import_labels
from softlabels.jobs.watch import Watch
from softlabels.store.spec import About
from softlabels_stages.arguments import Import
from softlabels_stages.run import say, should_stop, suggested, warn

_FLAGS = {"teacher_tokenizer": "tokenizer"} | {
    each.name: each.name for each in dataclasses.fields(Foreign) if each.name != "tokenizer"
}  # of import, and what Foreign calls them
_SHARED = {"column"}  # with files of outputs
_TAKEN = _FLAGS.keys() | {
    "from_", "store", "from_format", "split", "teacher_name", "precision", "transfer_name", "layout", "inputs", "licence",
    "teacher_licence",
}  # fmt: skip


def require_format(args: Import) -> None:
    """Raise `ConfigError` for flags that mean nothing without --from_format."""
    for each in dataclasses.fields(args):
        if each.name in _FLAGS.keys() - _SHARED and getattr(args, each.name) != each.default:
            raise ConfigError(
                f"--{each.name} means nothing without --from_format", remedy="say whose format it is, or leave it out"
            )


def translated(args: Import) -> int:
    """Import, say what the file held, and where the store is."""
    assert args.from_format is not None
    for each in dataclasses.fields(args):
        if each.name not in _TAKEN and getattr(args, each.name) != each.default:
            raise ConfigError(
                f"--{each.name} means nothing for files of {args.from_format}",
                remedy="leave it out; import --help says which flags --from_format has",
            )
    foreign = Foreign(**{name: getattr(args, flag) for flag, name in _FLAGS.items()})
    done = import_labels(
        args.from_, args.store, from_format=args.from_format, foreign=foreign,
        split=args.split, teacher=args.teacher_name, precision=args.precision, name=args.transfer_name, layout=args.layout,
        about=About(teacher_licence=args.teacher_licence, transfer_licence=args.licence),
        watch=Watch(say, warn, should_stop),
    )  # fmt: skip
    print(f"sealed: {args.store}, {done.manifest.spec.rows:,} rows (look: {suggested('info', args.store)})")
    return 0
