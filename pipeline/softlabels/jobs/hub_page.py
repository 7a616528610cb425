"""What a push adds to a repository of the Hub beside the stores, their previews and the page; then all becomes one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from softlabels.errors import ConfigError
from softlabels.store.card import root_card, store_card
from softlabels.store.carry import MAX_CARD_BYTES
from softlabels.store.hub_card import page, preview_path, require_front_matter
from softlabels.store.json_files import read_small_file
from softlabels.store.paths import CARD
from softlabels.store.preview import preview
from softlabels.store.reader import open_store
from softlabels.system.depots import LocalDepot
from softlabels.system.hub import PREVIEW, Hub
from softlabels.system.repository import PAGE


def require_names(here: LocalDepot, there: Hub, splits: Mapping[str, LocalDepot]) -> None:
    """Raise `ConfigError` for a split whose folder is where previews lie, and for a folder that the page calls as another."""
    if there.inside == "default" or re.search("--|-/|/-", there.inside):
        raise ConfigError(
            f"{there} would have the name of another store on the page, which calls a/b a--b, and the root default",
            remedy="give the folder another name",
        )
    if not there.inside and splits.get(PREVIEW, here) != here:
        raise ConfigError(
            f"a split called {PREVIEW} cannot lie at the root of {there}, where the previews are",
            remedy=f"push to a folder of it: {there}/FOLDER",
        )


def require_page(there: Hub) -> None:
    """Raise `StorageError` for a page that could not be kept."""
    require_front_matter(there.repository.page(MAX_CARD_BYTES), there.repository.name)


def publish(here: LocalDepot, there: Hub, splits: Mapping[str, LocalDepot]) -> str:
    """Add the page and previews of stores that were sent, and make everything one commit, which is given.

    Raises:
        SpecMismatch: somebody else committed meanwhile. StorageError: the Hub refused.
    """
    repository = there.repository
    manifests = {split: open_store(folder).manifest for split, folder in splits.items()}
    single = [*splits.values()] == [here]
    for split, folder in splits.items():
        data = preview(open_store(folder))
        repository.fill(preview_path(there.inside, split), [data], len(data))
    try:
        card = read_small_file(here, CARD, MAX_CARD_BYTES).decode(errors="replace")
    except FileNotFoundError:
        card = store_card(next(iter(manifests.values()))) if single else root_card(manifests)
    text = page(
        repository.page(MAX_CARD_BYTES), card, manifests, repository=repository.name, folder=there.inside, single=single
    ).encode()  # fmt: skip
    repository.fill(PAGE, [text], len(text))
    digests = ", ".join(f"{split} {manifest.digest[:16]}" for split, manifest in manifests.items())
    return repository.publish(f"softlabels push: {digests}")
