"""The prior and the basis of the tails, (1 + r, C) float16, which all positions of a store share: row 0 the prior's logits,
below it the basis vectors. The file `tail_basis/c.0.0` holds the values, little-endian, in either layout, and nothing else.

Its digest stands in the specification, so it is written before the plan and never changed: whoever goes on with a store reads
it (`resumable_basis`) and computes none, but where it was lost, and then the same.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import DamagedBasis, DamagedManifest, SpecMismatch, UserError
from softlabels.labels.topk_fields import MAX_BASIS_BYTES, check_basis
from softlabels.store.claims import is_claimed_elsewhere
from softlabels.store.commit import create, is_bound
from softlabels.store.differences import Difference
from softlabels.store.digest import blake3_hex
from softlabels.store.json_files import read_json, read_small_file
from softlabels.store.paths import BASIS_FILE, BASIS_FOLDER, LOCK, MANIFEST, PLAN
from softlabels.store.rules import check_spec
from softlabels.store.same_plan import mismatch
from softlabels.store.spec import Plan, Spec
from softlabels.system.files import Files, Folder
from softlabels.system.places import Target, folder_of

Basis = NDArray[np.float16]
_REMEDY = "get this file again from the store's maker (all splits hold the same), or run `softlabels repair`"


def basis_digest(basis: Basis) -> str:
    """What the specification says of a basis: blake3 of its values."""
    return blake3_hex(np.ascontiguousarray(basis, "<f2"))


def require_basis(spec: Spec, basis: Basis) -> None:
    """Raise `UserError` unless a basis (1 + r, C) is the one that the specification speaks of."""
    if spec.basis_shape is None:
        raise UserError("the specification has no basis", remedy="leave it out, or choose tail: lowrank or prior")
    try:
        _check(spec, basis)
    except ValueError as error:
        raise UserError(
            f"this is not the specification's basis: {error}",
            remedy="give the basis that the specification was made with",
        ) from error


def _check(spec: Spec, basis: Basis) -> None:
    assert spec.basis_shape is not None
    check_basis(basis, spec.basis_shape)
    target = spec.with_basis
    if target is None or target.encoding != target.encoding.with_basis(basis_digest(basis)):
        raise ValueError("its digest is not the one that the specification names")


def read_basis(store: Files, spec: Spec) -> Basis | None:
    """The basis of a store, checked; None where its encoding has none. Raises `DamagedBasis`."""
    if spec.basis_shape is None:
        return None
    path, size = store.at(BASIS_FILE), 2 * math.prod(spec.basis_shape)
    try:
        data = read_small_file(store, BASIS_FILE, size)
        if len(data) != size:
            raise ValueError(f"it has {len(data)} bytes, not {size}")
        basis = np.frombuffer(data, "<f2").reshape(spec.basis_shape)
        _check(spec, basis)
    except FileNotFoundError:
        raise DamagedBasis(f"the basis of the stored tails is gone: {path}", remedy=_REMEDY) from None
    except (ValueError, DamagedManifest) as error:
        what = error.what if isinstance(error, DamagedManifest) else f"{path} is damaged: {error}"
        raise DamagedBasis(what, remedy=_REMEDY) from error
    return basis


def put_basis(store: Folder, basis: Basis) -> None:
    """Write the basis, flushed, where there is none. Raises `SpecMismatch` where another one stands."""
    if _stands(store, basis):
        return
    data = np.ascontiguousarray(basis, "<f2").tobytes()
    if not create(store, BASIS_FILE, data) and not _stands(store, basis):
        raise SpecMismatch(
            f"another basis of the tails is in {store}, from a writer that started at the same time",
            remedy="run the same command again",
        )


def _stands(store: Files, basis: Basis) -> bool:
    """Whether the store has this basis."""
    try:
        return read_small_file(store, BASIS_FILE, MAX_BASIS_BYTES) == np.ascontiguousarray(basis, "<f2").tobytes()
    except FileNotFoundError:
        return False


def drop_basis(store: Folder, *, keep: Basis | None) -> None:
    """Remove the basis of a start that committed nothing, unless it is the one to `keep`."""
    if keep is not None and _stands(store, keep):
        return
    store.remove(BASIS_FILE)
    if store.is_folder(BASIS_FOLDER):
        store.settle([BASIS_FILE])


def resumable_basis(path: Target, *, rank: int | None = None) -> Basis | None:
    """The basis that a store at `path` is bound to: it is sealed, or holds committed shards, or another writer may be at work
    in it. None where there is no such store, its tails have no basis, or its start binds nobody: a new one may be computed.
    None too where an unfinished store has lost it, or `repair` set it aside: what is computed must be the same, or the plan
    refuses it.

    Raises:
        DamagedBasis: it is not what the plan says, or a sealed store has lost it.
        SpecMismatch: it is not of this `rank`, where one is given.
    """
    store = folder_of(path)
    try:
        plan = read_json(store, PLAN, Plan)
    except FileNotFoundError:
        return None
    spec = check_spec(plan.spec, version=plan.format)
    sealed = store.exists(MANIFEST)
    bound = sealed or is_bound(store) or store.busy(LOCK) or is_claimed_elsewhere(store)
    lost = not sealed and not store.exists(BASIS_FILE)
    basis = read_basis(store, spec) if bound and not lost else None
    if basis is not None and rank is not None and len(basis) != 1 + rank:
        raise mismatch(
            SpecMismatch,
            f"{store} was begun with another specification",
            [Difference("encoding.rank", len(basis) - 1, rank)],
            spec,
        )
    return basis
