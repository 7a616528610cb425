"""The sections of a page on stores: what each split is, and what the teacher said in it, target by target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from softlabels.checks.leaks import leak_lines, leaks
from softlabels.pages.markup import Html, element, joined, paragraph, table
from softlabels.pages.outcome_parts import outcome_part
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from softlabels.pages.store_facts import bytes_table, lost, overview
from softlabels.pages.token_names import token_names
from softlabels.pages.value_part import value_part
from softlabels.store import Store
from softlabels.store.shared import MOST
from softlabels.transfer.config import TransferSetConfig


def store_sections(
    stores: Mapping[str, Store], slider: Slider | None, transfer: TransferSetConfig | None = None
) -> list[Section]:
    """A section a split, in their order, and of several splits one before them.

    Args:
        stores: sealed stores by split. slider: the temperature; None where nothing follows one.
        transfer: whose tokenizer says what the classes of a language model are called.

    Raises:
        DamagedStore: what is read of a store is not what was sealed.
    """
    said = _leaks(stores)
    sections = [_splits(stores, said)] if len(stores) > 1 else []
    for number, (split, store) in enumerate(stores.items()):
        title = f"The store, split {split}" if len(stores) > 1 else "The store"
        sections.append(_section(f"store-{number}", title, store, slider, said if len(stores) == 1 else None, transfer))
    return sections


def _leaks(stores: Mapping[str, Store]) -> Html:
    """What is said of rows that splits share or repeat."""
    rows = {split: store.rows for split, store in stores.items()}
    if sum(rows.values()) > MOST:
        return paragraph(f"Rows that stand in two splits, or twice in one, are not counted (more than {MOST:,} rows).")
    if not all(store.near for store in stores.values()):
        return paragraph("Rows that stand in two splits, or twice in one, are not counted: the store lies far away.")
    found = leaks({split: np.asarray(store.column("content_key"), np.uint8) for split, store in stores.items()})
    if not found:
        return paragraph("No row is in two splits, or twice in one.")
    said = "Rows of equal content keys: a student that learnt one has seen the other, and scores on it are too good."
    return joined([paragraph(said), element("ul", joined(element("li", line) for line in leak_lines(found, rows)))])


def _splits(stores: Mapping[str, Store], said: Html) -> Section:
    rows = [(split, f"{store.rows:,}", element("code", store.digest[:16])) for split, store in stores.items()]
    return Section("splits", "The splits", joined([table(("split", "rows", "digest"), rows), said]))


def _section(
    name: str, title: str, store: Store, slider: Slider | None, said: Html | None, transfer: TransferSetConfig | None
) -> Section:
    named = [target for target in store.targets if target]
    parts: list[Html] = []
    data: list[dict[str, Any]] = []
    for number, target in enumerate(store.targets):
        own = store.only(target)
        if own.encoding.target == "values":
            html, found = value_part(own)
        else:
            assert slider is not None
            html, found = outcome_part(own, slider, token_names(own, transfer))
        heading = element("h3", f"Target {target}", class_="target") if target else None
        body = joined([heading, html, element("h3", "What storing lost"), lost(own)])
        parts.append(element("div", body, data_target=number))
        data.append(found)
    where = [element("h3", "Bytes"), paragraph("What each column takes in the store, compressed."), bytes_table(store)]
    html = joined([overview(store), said, _choice(name, named), *parts, *where])
    return Section(name, title, html, {"targets": data}, "store")


def _choice(name: str, targets: list[str]) -> Html | None:
    """Of several targets a choice of the one that is shown."""
    if len(targets) < 2:
        return None
    options = joined(element("option", target, value=number) for number, target in enumerate(targets))
    label = element("label", "Target", for_=f"{name}-target")
    return element("p", label, " ", element("select", options, id=f"{name}-target", data_choice="target"))
