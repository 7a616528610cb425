"""What a store is: who made it of what, what is kept, what storing lost, and its bytes by column. As tables for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET

from softlabels.errors import one_line, some
from softlabels.labels.fidelity import by_temperature, nats
from softlabels.pages.markup import Html, element, facts, joined, paragraph, table
from softlabels.store import Store
from softlabels.store.joined import Joined
from softlabels.store.paths import BASIS_FILE
from softlabels.store.signatures import read_signatures

_SHOWN = 12  # members and class names that are listed


def overview(store: Store) -> Html:
    """What a whole store says of itself."""
    spec, manifest = store.spec, store.manifest
    known = {"transfer set": spec.transfer_set.name, "split": spec.transfer_set.split, "rows": f"{spec.rows:,}"}
    if spec.positions is not None:
        known["positions a row"] = f"{'up to ' if spec.ragged else ''}{spec.positions:,}"
    if spec.folds is not UNSET:
        known["folds"] = f"{spec.folds}; each row is labelled by those that did not see it"
    kept = {(each.name or "labels"): _kept(store.only(each.name)) for each in spec.targets}
    parents = () if spec.parents is UNSET else spec.parents
    made = some([f"{each.how} {each.digest[:16]}" for each in parents], 8)
    signed = some({each.key: "" for part in _written(store) for each in read_signatures(part.folder)})
    return facts(
        [
            ("teacher", f"{spec.teacher.name}, {spec.teacher.precision or 'precision not stated'}"),
            ("members", _members(store)),
            *known.items(),
            *kept.items(),
            ("inputs", "in the store" if spec.inputs == "embed" else "not in the store: rows are found by content key"),
            *([("prepared by", spec.preprocessing.function)] if spec.preprocessing.function else []),
            *([("made of", made)] if parents else []),
            ("size", f"{_size(manifest.bytes)}, {spec.layout}, {spec.shards:,} shard{'s' * (spec.shards != 1)}"),
            ("digest", element("code", ", ".join(manifest.digests))),
            ("signed by", f"{signed} (not checked here: softlabels verify --signed_by)" if signed else "nobody"),
        ]
    )


def _members(store: Store) -> Html:
    members = store.spec.teacher.members
    lines = [
        element(
            "li",
            f"{one_line(each.model)}, weight {each.weight:g}",
            f", weights {each.weights[:16]}" * bool(each.weights),
        )
        for each in members[:_SHOWN]
    ]
    more = [element("li", f"and {len(members) - _SHOWN:,} more")] if len(members) > _SHOWN else []
    return element("ul", joined([*lines, *more]), class_="plain")


def _kept(store: Store) -> str:
    """What is stored of one target, in a line."""
    encoding, unit = store.encoding, {"softmax": "classes", "sigmoid": "classes, each for itself", "values": "numbers"}
    names = "" if not store.class_names else f" ({some(store.class_names, _SHOWN)})"
    at = "" if encoding.only_at is None else f"; known at T = {encoding.only_at:g} alone"
    words = encoding.words(store.classes, BASIS_FILE).replace("`", "")  # which are for a card
    reduced = f"; the members' {encoding.reduce} mean" if encoding.is_reduced else ""
    return f"{store.classes:,} {unit[encoding.target]}{names}; {words}{reduced}{at}"


def lost(store: Store) -> Html:
    """What storing one target lost, by temperature."""
    found = store.manifest.lost[store.name if store.name in store.manifest.lost else ""]
    if found.errors is not None:
        said = f"Stored values are off by {found.errors.rmse:.2e} (root mean square), at most by {found.errors.largest:.2e}."
        return paragraph(said)
    if not found.fidelity:
        return paragraph(
            "What storing lost was not measured: the labels were made of labels that somebody else had stored."
        )
    measured = "KL(exact || stored) in nats against the teacher's own logits, measured when they were written."
    small = "Values far below the KL of a student to its teacher (often .01 and more) do not matter to it."
    rows = [
        (t, nats(each.kl_mean), nats(each.kl_max), f"{each.tail_mass_error:.1e}", f"{each.top1_agreement:.4%}")
        for t, each in by_temperature(found.fidelity)
    ]
    heads = ("T", "mean KL", "largest KL", "tail mass off by", "same top class")
    return joined([paragraph(f"{measured} {small}"), table(heads, rows)])


def bytes_table(store: Store) -> Html:
    """The bytes of each column as they are stored, compressed."""
    sizes: Counter[str] = Counter()
    for part in _written(store):
        for payload in part.payloads(range(part.spec.shards)).values():
            for column, chunks in payload.chunks.items():
                sizes[column] += sum(chunk.size for chunk in chunks)
    total = max(1, sum(sizes.values()))
    rows = [
        (element("code", name), f"{size:,}", f"{size / store.rows:,.1f}", f"{size / total:.1%}")
        for name, size in sizes.most_common()
    ]
    return table(("column", "bytes", "a row", "share"), rows)


def _written(store: Store) -> Sequence[Store]:
    """The stores that lie somewhere: itself, or those that are read as this one."""
    return store.stores if isinstance(store, Joined) else (store,)


def _size(count: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:,.1f} {unit}"
    return f"{count} bytes"
