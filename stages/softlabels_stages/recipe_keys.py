"""What a recipe, or a command's flags, call the fields in which a store was begun otherwise: the library names those of the
specification.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from softlabels.errors import OtherLabels, OtherPreprocessing, SoftLabelsError
from softlabels.store.differences import Difference
from softlabels.store.same_plan import said

_PREPARE_ARGUMENTS = "transfer_set.prepare.init_args"
# What the recipe calls the fields of a specification, by how their names begin; the others are called alike.
_RECIPE_KEYS = {
    "transfer_set.split": "transfer_set.splits",
    "transfer_set.key_rule": "transfer_set.missing, key_salt",
    "transfer_set.rows": "transfer_set: number of rows",
    "transfer_set.content_keys": "transfer_set: content of its rows",
    "label_space.names": "transfer_set.classes",
    "label_space.classes": "classes of the teacher",
    "label_space.vocabulary": "transfer_set.sequences.tokenizer",
    "positions.ragged": "rows of different length (transfer_set.positions, labels.layout)",
    "positions": "transfer_set.positions",
    "targets": "labels.targets",
    "sequence.ragged": "rows of different length (transfer_set.sequences.pack, labels.layout)",
    "sequence": "transfer_set.sequences",
    "preprocessing.function": "transfer_set.prepare.class_path",
    "preprocessing.arguments": _PREPARE_ARGUMENTS,
    "preprocessing.sample": "transfer_set.prepare: the rows that it makes",
    "teacher.floor": "floor",
    "encoding.kind": "labels.encoding, kind",
    "encoding": "labels",
    "layout": "labels.layout",
    "compression": "labels.compression",
    "cut.teacher_batch": "teacher.batch_size",
    "cut": "labels",
}
_OF_TARGET = {  # of a target that has a name, below it
    "label_space.names": "labels.targets.{}.classes",
    "label_space.classes": "classes of the teacher for {}",
    "encoding.kind": "labels.targets.{}.kind, encoding",
    "encoding": "labels.targets.{}",
}
_SECTIONS: dict[type[SoftLabelsError], str] = {
    OtherLabels: "transfer_set.label, classes",
    OtherPreprocessing: "transfer_set.prepare",
}  # for a remedy


def in_recipe(error: SoftLabelsError, settings: str = "labels.") -> SoftLabelsError:
    """The error with the names that the user wrote. `settings` stands before those of labels: a recipe's section, or `--`.

    Of rows of tokens the prepare function is ours, and its arguments are those of the section `transfer_set.sequences`.
    """
    known = error if error.differences else error.__cause__
    if not isinstance(known, SoftLabelsError) or not known.differences:
        return error
    tokens = bool(known.spec.sequence)
    given = sorted(map(_as_given, known.differences), key=lambda leaf: leaf.path)
    names = [target.name for target in known.spec.targets]
    ours = [leaf._replace(path=key_of(leaf.path, settings, tokens, names)) for leaf in given]
    remedy, section = error.remedy.replace("list the members", "list teacher.members"), _SECTIONS.get(type(error))
    if section is not None:
        section = section.replace("prepare", "sequences") if tokens else section
        remedy = remedy.replace(", or give another", f" ({section}), or give another")
    found = type(error)(error.what.replace(said(known.differences), said(ours)), remedy=remedy)
    found.__cause__ = error.__cause__
    return found


def key_of(path: str, settings: str = "labels.", tokens: bool = False, targets: Sequence[str] = ()) -> str:
    """What the recipe calls the field at `path` of a specification whose targets have these names, or the flag where `settings`
    is `--`.
    """
    known, name = _RECIPE_KEYS, ""
    if (found := re.fullmatch(r"targets\[(\d+)\]\.(.+)", path)) and int(found[1]) < len(targets):
        known, name, path = _RECIPE_KEYS | _OF_TARGET, targets[int(found[1])], found[2]
    for field, key in known.items():
        if re.match(rf"{re.escape(field)}(?![^.\[])", path):
            key = "transfer_set.sequences" if tokens and key == _PREPARE_ARGUMENTS else key
            return re.sub(r"^labels\.", settings, key.format(name) + path[len(field) :])
    return re.sub(r"^(teacher\.members\[\d+\])\.model$", r"\1.class_path", path)


def _as_given(leaf: Difference) -> Difference:
    """With what a recipe gives in place of what is computed from it."""
    if leaf.path.endswith("encoding.beta_max"):
        return Difference(
            leaf.path.replace("beta_max", "min_temperature"), *(value and 1 / value for value in leaf[1:])
        )
    if leaf.path == "sequence.positions":
        return Difference("sequence.length", *(value and value + 1 for value in leaf[1:]))
    return leaf
