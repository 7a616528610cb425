"""The sections of a page on stores: what each split is, and what the teacher said in it."""

from __future__ import annotations

from collections.abc import Mapping

from softlabels.pages.markup import joined, paragraph
from softlabels.pages.section import Section
from softlabels.store import Store


def store_sections(stores: Mapping[str, Store]) -> list[Section]:
    """A section a split, in their order."""
    return [_section(f"store-{number}", split, store) for number, (split, store) in enumerate(stores.items())]


def _section(name: str, split: str, store: Store) -> Section:
    spec = store.spec
    what = f"{spec.teacher.name} labelled {spec.rows:,} rows of {spec.transfer_set.name}, split {split}."
    return Section(name, f"Store: {split}", joined([paragraph(what)]), {}, "store")
