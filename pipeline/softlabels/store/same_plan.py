"""Whether a run's plan is the one that a store was begun with; where it is not, an error that says what kind of mistake it is,
and which fields of the specification make the difference. What a recipe calls them is the business of the command.

What a plan cannot show (hard labels, what the teacher says) `softlabels.teacher.resume` asks of the shards that are there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from softlabels import errors
from softlabels.names import renamed
from softlabels.store.differences import Difference, differences
from softlabels.store.json_files import plain_json, read_json
from softlabels.store.paths import PLAN
from softlabels.store.spec import About, Plan, Spec
from softlabels.system.files import Files

_REMEDIES: dict[type[errors.UserError], str] = {
    errors.OtherTokenizer: "name the tokenizer that the rows were labelled with",
    errors.OtherRows: "give the transfer set that was labelled, and its key_salt where it has one",
    errors.OtherLabels: "take labels and classes as they were",
    errors.OtherMemberOrder: "list the members in the order in which they began it",
    errors.OtherWeights: "give the weights that began it",
    errors.OtherPreprocessing: "prepare the inputs as they were",
    errors.SpecMismatch: "go on with the settings that began it",
}

_BEGUN = "was begun with another specification"
_FOLLOWS = ("columns", "encoding.basis", "cut.rows_per_")  # from other fields, where the columns differ


def require_same_plan(ours: Plan, theirs: Plan, where: str, *, how: str = _BEGUN, instead: str = "store path") -> None:
    """Compare this run's plan with the one that stands in the store `where`; `how` and `instead` are words of the message.

    Raises:
        OtherTokenizer, OtherRows, OtherLabels, OtherMemberOrder, OtherWeights, OtherPreprocessing: where that is what differs
            (the first of these, where it is several), else `SpecMismatch`; see `mismatch`.
    """
    this, that = plain_json(ours.spec), plain_json(theirs.spec)
    that = renamed(that, this)
    if _names(this) != _names(that):  # nothing below them can be compared, and columns follow
        for spec in (this, that):
            spec["targets"] = _names(spec)
            for name in ("label_space", "encoding", "columns"):
                spec.pop(name, None)
    for ours_kept, theirs_kept in zip(_encodings(this), _encodings(that), strict=True):
        if ours_kept["kind"] != theirs_kept["kind"]:  # each has settings that mean nothing to the other
            for fields in (ours_kept, theirs_kept):
                for name in fields.keys() - {"kind", "reduce", "inputs"}:
                    del fields[name]
    found = differences(that, this)
    if found:
        kind = _kind(this, that, [leaf.path for leaf in found])
        if any(leaf.path.startswith("columns") for leaf in found):
            found = [leaf for leaf in found if not _of_target(leaf.path).startswith(_FOLLOWS)] or _by_name(found)
        raise mismatch(kind, f"{where} {how}", found, ours.spec, instead=instead)


def _encodings(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """How each target is kept, in order."""
    each = spec.get("targets", [spec])
    return [target["encoding"] for target in each] if isinstance(each, list) else []


def _names(spec: dict[str, Any]) -> tuple[str, ...] | None:
    """Those of the targets, in order; None of one without."""
    return tuple(target["name"] for target in spec["targets"]) if "targets" in spec else None


def _by_name(found: Sequence[Difference]) -> list[Difference]:
    """Lists of columns as the names that are in one alone."""
    return [
        leaf
        if leaf.path != "columns"
        else Difference(leaf.path, _lacking(leaf.theirs, leaf.ours), _lacking(leaf.ours, leaf.theirs))
        for leaf in found
    ]


def _lacking(columns: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[str]:
    return [column["name"] for column in columns if column["name"] not in {other["name"] for other in others}]


def _of_target(path: str) -> str:
    """A field's path, of a target among several as it is of the only one."""
    return re.sub(r"^targets\[\d+\]\.", "", path)


def mismatch(
    kind: type[errors.UserError], what: str, found: Sequence[Difference], ours: Spec, *, instead: str = "store path"
) -> errors.UserError:
    """The error for a store that was begun with another specification: its text names the fields that differ, and it carries
    them as `differences`, with this run's specification as `spec`.
    """
    error = kind(f"{what} ({said(found)})", remedy=f"{_REMEDIES[kind]}, or give another {instead}")
    error.differences, error.spec = tuple(found), ours
    return error


def said(found: Sequence[Difference]) -> str:
    """How a message lists differences."""
    return "; ".join(dict.fromkeys(leaf.said() for leaf in found))


def named_as_begun(ours: Plan, store: Files) -> Plan:
    """Our plan. Where only an earlier version's names tell it from the plan in `store`, it keeps them: the digest has them."""
    try:
        standing = read_json(store, PLAN, Plan)
        require_same_plan(ours, standing, str(store))
    except (FileNotFoundError, errors.SoftLabelsError):  # none there, or another one
        return ours
    return msgspec.structs.replace(standing, about=ours.about)


def require_same_maker(store: Files, made_of: str, *, remedy: str) -> None:
    """Raise `SpecMismatch` where a begun store was made of something else. `made_of` is words and a digest, with which the
    source ends that its maker gave it: specifications do not tell what somebody else's numbers were.
    """
    standing = read_json(store, PLAN, Plan).about.source.rpartition("; ")[2]
    if standing.rpartition(" ")[0] == made_of.rpartition(" ")[0] and standing != made_of:
        raise errors.SpecMismatch(
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
        if name != "sentinels" and (there := getattr(standing, name)) != (here := getattr(about, name))
    ]


def _kind(ours: dict[str, Any], theirs: dict[str, Any], fields: list[str]) -> type[errors.UserError]:
    """What the fields that differ have in common. Of rows of tokens the keys follow from the preprocessing, which comes first
    then.
    """
    members = [sorted(map(str, spec["teacher"]["members"])) for spec in (ours, theirs)]
    found: list[type[errors.UserError]] = []
    for name in map(_of_target, fields):
        if name == "label_space.vocabulary" or name.endswith(".tokenizer"):
            found.append(errors.OtherTokenizer)
        elif name in ("transfer_set.rows", "transfer_set.content_keys"):
            found.append(errors.OtherRows)
        elif name.startswith("label_space."):
            found.append(errors.OtherLabels)
        elif name.startswith("teacher.members") and members[0] == members[1]:
            found.append(errors.OtherMemberOrder)
        elif name.startswith("teacher.members") and name.endswith(".weights"):
            found.append(errors.OtherWeights)
        elif name.startswith("preprocessing."):
            found.append(errors.OtherPreprocessing)
    if errors.OtherTokenizer not in found and errors.OtherPreprocessing in found and "sequence" in ours:
        return errors.OtherPreprocessing
    return next((kind for kind in _REMEDIES if kind in found), errors.SpecMismatch)
