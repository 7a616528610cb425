"""The sections of a page on stores: what each split is, and what the teacher said in it, target by target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softlabels.pages.markup import Html, element, joined, paragraph, table
from softlabels.pages.outcome_parts import outcome_part
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from softlabels.pages.store_facts import bytes_table, lost, overview
from softlabels.pages.value_part import value_part
from softlabels.store import Store
from softlabels.store.shared import Shared, shared


def store_sections(stores: Mapping[str, Store], slider: Slider | None) -> list[Section]:
    """A section a split, in their order, and of several splits one before them.

    Raises:
        DamagedStore: what is read of a store is not what was sealed.
    """
    near = all(store.folder.near for store in stores.values())
    folders = {split: store.folder for split, store in stores.items()}
    found = (
        shared(folders) if near else Shared(unknown="rows that splits share are not counted: the store lies far away")
    )
    sections = [_splits(stores, found)] if len(stores) > 1 else []
    for number, (split, store) in enumerate(stores.items()):
        title = f"The store, split {split}" if len(stores) > 1 else "The store"
        sections.append(_section(f"store-{number}", title, store, slider, found.lines if len(stores) == 1 else []))
    return sections


def _splits(stores: Mapping[str, Store], found: Shared) -> Section:
    rows = [(split, f"{store.rows:,}", element("code", store.digest[:16])) for split, store in stores.items()]
    said = "Rows of equal content keys: a student that learnt one has seen the other, and scores on it are too good. "
    clean = [] if found.lines else [paragraph("No row stands in two splits, or twice in one.")]
    leaks = (
        [paragraph(said), element("ul", joined(element("li", line) for line in found.lines))] if found.lines else clean
    )
    return Section("splits", "The splits", joined([table(("split", "rows", "digest"), rows), *leaks]))


def _section(name: str, title: str, store: Store, slider: Slider | None, leaks: list[str]) -> Section:
    named = [target for target in store.targets if target]
    parts: list[Html] = []
    data: list[dict[str, Any]] = []
    for number, target in enumerate(store.targets):
        own = store.only(target)
        if own.encoding.target == "values":
            html, found = value_part(own)
        else:
            assert slider is not None
            html, found = outcome_part(own, slider)
        heading = element("h3", f"Target {target}", class_="target") if target else None
        body = joined([heading, html, element("h3", "What storing lost"), lost(own)])
        parts.append(element("div", body, data_target=number))
        data.append(found)
    again = [paragraph(line) for line in leaks]
    where = [element("h3", "Bytes"), paragraph("What each column takes in the store, compressed."), bytes_table(store)]
    html = joined([overview(store), *again, _choice(name, named), *parts, *where])
    return Section(name, title, html, {"targets": data}, "store")


def _choice(name: str, targets: list[str]) -> Html | None:
    """Of several targets a choice of the one that is shown."""
    if len(targets) < 2:
        return None
    options = joined(element("option", target, value=number) for number, target in enumerate(targets))
    label = element("label", "Target", for_=f"{name}-target")
    return element("p", label, " ", element("select", options, id=f"{name}-target", data_choice="target"))
