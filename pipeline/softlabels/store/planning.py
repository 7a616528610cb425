"""One worker makes a store's plan, where that takes a teacher (the basis of the tails); the others wait for it and read it.

Neighbours: `basis.resumable_basis` says whether one is there already, `writer` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from softlabels.store.basis import drop_basis
from softlabels.store.claims import PLANNING, Claims, is_alone
from softlabels.store.commit import is_bound
from softlabels.store.paths import BASIS_FILE, CLAIMS, LOCK, PLAN, STAGING
from softlabels.store.writer import require_store_path
from softlabels.system.files import Folder, Presence


def begin_plan(store: Folder, claims: Claims) -> Presence | None:
    """The mark of a live writer, for the one who is to make the plan and then opens a `StoreWriter` with it. None while another
    worker is at it. What is left of a start that committed nothing is removed.

    Raises:
        StorePathError: the folder holds something else.
    """
    require_store_path(store)
    presence = store.enter(LOCK)
    try:
        alone = is_alone(store, presence)
        if alone:
            store.clear(CLAIMS)  # of the dead
            if not is_bound(store):
                store.remove(PLAN)
                drop_basis(store, keep=None)
        presence.share()
        is_planned = store.exists(PLAN) and store.exists(BASIS_FILE)
        if (alone or not is_planned) and claims.take(PLANNING):
            return presence
    except BaseException:
        presence.close()
        raise
    presence.close()
    return None


def give_up_plan(store: Folder, claims: Claims, presence: Presence, made: Sequence[Folder]) -> None:
    """End what `begin_plan` began, without a plan. Of the folders that were `made` for it those go in which nothing is."""
    claims.release(PLANNING)
    try:
        if is_alone(store, presence):
            store.clear(STAGING)
            for folder in made:
                if not folder.names():
                    folder.above().clear(folder.name)
    finally:
        presence.close()
