"""Whether a run's plan is the one that a store was begun with; where it is not, an error that says what kind of mistake it is,
and which keys of the recipe make the difference.

What a plan cannot show (hard labels, what the teacher says) `softlabels.teacher.resume` asks of the shards that are there.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from softlabels.errors import (
    OtherLabels,
    OtherMemberOrder,
    OtherPreprocessing,
    OtherRows,
    OtherTokenizer,
    OtherWeights,
    SoftLabelsError,
    SpecMismatch,
    UserError,
)
from softlabels.names import renamed
from softlabels.store.differences import differences
from softlabels.store.spec import PLAN, About, Plan, plain_json, read_json
from softlabels.system.files import Files

_REMEDIES: dict[type[UserError], str] = {
    OtherTokenizer: "name the tokenizer that the rows were labelled with",
    OtherRows: "give the transfer set that was labelled, and its key_salt where it has one",
    OtherLabels: "take labels and classes as they were (transfer_set.label, classes)",
    OtherMemberOrder: "list teacher.members in the order in which they began it",
    OtherWeights: "give the weights that began it",
    OtherPreprocessing: "prepare the inputs as they were (transfer_set.prepare)",
    SpecMismatch: "go on with the settings that began it",
}

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
    "sequence.ragged": "rows of different length (transfer_set.sequences.pack, labels.layout)",
    "sequence": "transfer_set.sequences",
    "preprocessing.function": "transfer_set.prepare.class_path",
    "preprocessing.arguments": _PREPARE_ARGUMENTS,
    "preprocessing.sample": "transfer_set.prepare: the rows that it makes",
    "teacher.floor": "floor",
    "encoding.kind": "labels.encoding",
    "encoding": "labels",
    "layout": "labels.layout",
    "compression": "labels.compression",
    "cut.teacher_batch": "teacher.batch_size",
    "cut": "labels",
}
_FOLLOWS = ("columns", "encoding.basis", "cut.rows_per_")  # from other fields, where the columns differ


def require_same_plan(ours: Plan, theirs: Plan, where: str, *, settings: str = "labels.") -> None:
    """Compare this run's plan with the one that stands in the store `where`. `settings` stands before the names of the settings
    of labels where this run got them: those of a recipe's section, or flags.

    Raises:
        OtherTokenizer, OtherRows, OtherLabels, OtherMemberOrder, OtherWeights, OtherPreprocessing: where that is what differs
            (the first of these, where it is several), else `SpecMismatch`; each names every key of the recipe that differs.
    """
    this, that = plain_json(ours.spec), plain_json(theirs.spec)
    this, that = _fields(this), _fields(renamed(that, this))
    if this["encoding"]["kind"] != that["encoding"]["kind"]:  # each has settings that mean nothing to the other
        for fields in (this, that):
            fields["encoding"] = {name: fields["encoding"][name] for name in ("kind", "reduce", "inputs")}
    found = differences(that, this)
    if found:
        kind = _kind(this, that, [leaf.path for leaf in found])
        if any(leaf.path.startswith("columns") for leaf in found):
            found = [leaf for leaf in found if not leaf.path.startswith(_FOLLOWS)] or found
        remedy, tokens = _REMEDIES[kind], "sequence" in this
        if tokens:
            remedy = remedy.replace("transfer_set.prepare", "transfer_set.sequences")
        named = dict.fromkeys(leaf._replace(path=in_recipe(leaf.path, settings, tokens)).said() for leaf in found)
        raise kind(
            f"{where} was begun with another specification ({'; '.join(named)})",
            remedy=f"{remedy}, or give another store path",
        )


def named_as_begun(ours: Plan, store: Files) -> Plan:
    """Our plan. Where only an earlier version's names tell it from the plan in `store`, it keeps them: the digest has them."""
    try:
        standing = read_json(store, PLAN, Plan)
        require_same_plan(ours, standing, str(store))
    except (FileNotFoundError, SoftLabelsError):  # none there, or another one
        return ours
    return msgspec.structs.replace(standing, about=ours.about)


def require_same_maker(store: Files, made_of: str, *, remedy: str) -> None:
    """Raise `SpecMismatch` where a begun store was made of something else. `made_of` is words and a digest, with which the
    source ends that its maker gave it: specifications do not tell what somebody else's numbers were.
    """
    standing = read_json(store, PLAN, Plan).about.source.rpartition("; ")[2]
    if standing.rpartition(" ")[0] == made_of.rpartition(" ")[0] and standing != made_of:
        raise SpecMismatch(
            f"{store} was begun from other values ({standing}, not {made_of.rpartition(' ')[2]})",
            remedy=f"{remedy}, or give another store path",
        )


def kept_about(store: Files, about: About) -> list[str]:
    """A line for each text for people (licences, source) that stands in a begun store otherwise than in this run: it keeps
    what it was begun with.
    """
    standing = read_json(store, PLAN, Plan).about
    return [
        f"{store} keeps the {name.replace('_', ' ')} that it was begun with ({there!r}, not {here!r}); "
        "for another one, make the store anew in another path"
        for name in About.__struct_fields__
        if (there := getattr(standing, name)) != (here := getattr(about, name))
    ]


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    """A specification, as JSON's own values, with what a recipe gives in place of what is computed from it."""
    if "beta_max" in fields["encoding"]:
        fields["encoding"]["min_temperature"] = 1 / fields["encoding"].pop("beta_max")
    if "sequence" in fields:
        fields["sequence"]["length"] = fields["sequence"].pop("positions") + 1
    return fields


def in_recipe(path: str, settings: str = "labels.", tokens: bool = False) -> str:
    """What the recipe calls the field at `path` of a specification, or the flag where `settings` is `--`; of rows of `tokens`
    the prepare function is ours, and its arguments are those of the section `transfer_set.sequences`.
    """
    for field, key in _RECIPE_KEYS.items():
        if re.match(rf"{re.escape(field)}(?![^.\[])", path):
            key = "transfer_set.sequences" if tokens and key == _PREPARE_ARGUMENTS else key
            return re.sub(r"^labels\.", settings, key + path[len(field) :])
    return re.sub(r"^(teacher\.members\[\d+\])\.model$", r"\1.class_path", path)


def _kind(ours: dict[str, Any], theirs: dict[str, Any], fields: list[str]) -> type[UserError]:
    """What the fields that differ have in common. Of rows of tokens the keys follow from the preprocessing, which comes first
    then.
    """
    members = [sorted(map(str, spec["teacher"]["members"])) for spec in (ours, theirs)]
    found: list[type[UserError]] = []
    for name in fields:
        if name == "label_space.vocabulary" or name.endswith(".tokenizer"):
            found.append(OtherTokenizer)
        elif name in ("transfer_set.rows", "transfer_set.content_keys"):
            found.append(OtherRows)
        elif name.startswith("label_space."):
            found.append(OtherLabels)
        elif name.startswith("teacher.members"):
            same = members[0] == members[1]
            found.append(OtherMemberOrder if same else OtherWeights if name.endswith(".weights") else SpecMismatch)
        elif name.startswith("preprocessing."):
            found.append(OtherPreprocessing)
    if OtherTokenizer not in found and OtherPreprocessing in found and "sequence" in ours:
        return OtherPreprocessing
    return next((kind for kind in _REMEDIES if kind in found), SpecMismatch)
