"""Whether a run's plan is the one that a store was begun with; where it is not, an error that says what kind of mistake it is.

What a plan cannot show (hard labels, what the teacher says) `pipeline.teacher.resume` asks of the shards that are there.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import (
    OtherLabels,
    OtherMemberOrder,
    OtherPreprocessing,
    OtherRows,
    OtherTokenizer,
    OtherWeights,
    SpecMismatch,
    UserError,
)
from pipeline.store.spec import Plan, differing_fields, plain_json

_REMEDIES: dict[type[UserError], str] = {
    OtherTokenizer: "name the tokenizer that the rows were labelled with",
    OtherRows: "give the transfer set that was labelled",
    OtherLabels: "take labels and classes as they were (transfer_set.label, classes)",
    OtherMemberOrder: "list teacher.members in the order in which they began it",
    OtherWeights: "give the weights that began it",
    OtherPreprocessing: "prepare the inputs as they were (transfer_set.prepare)",
    SpecMismatch: "go on with the recipe that began it",
}


def require_same_plan(ours: Plan, theirs: Plan, where: str) -> None:
    """Compare this run's plan with the one that stands in the store `where`.

    Raises:
        OtherTokenizer, OtherRows, OtherLabels, OtherMemberOrder, OtherWeights, OtherPreprocessing: where that is what differs
            (the first of these, where it is several), else `SpecMismatch`; each names every field that differs.
    """
    this, that = plain_json(ours.spec), plain_json(theirs.spec)
    lines = differing_fields(this, that)
    if lines:
        kind = _kind(this, that, [line.partition(": ")[0] for line in lines])
        raise kind(
            f"{where} was begun with another specification ({'; '.join(lines)})",
            remedy=f"{_REMEDIES[kind]}, or give another store path",
        )


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
