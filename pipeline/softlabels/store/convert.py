"""`convert`: the same labels in the other layout. Nothing is encoded anew, so the content digest stays."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from softlabels.errors import DamagedStore, UserError
from softlabels.store.derived import Derived, fill
from softlabels.store.parts import Picked
from softlabels.store.reader import open_store
from softlabels.store.records import Manifest
from softlabels.store.root import require_apart
from softlabels.store.spec import Spec
from softlabels.system.places import Place, Target, files_of, folder_of


def convert(
    source: Place,
    target: Target,
    *,
    layout: str,
    compression: str = "none",
    progress: Callable[[int], object] = lambda shards: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Manifest:
    """Write the sealed store at `source` to `target` in another layout; resumes where an earlier try stopped.

    Args:
        layout: "zarr" or "arrow". compression: "none" or "zstd" (zarr only).
        progress: called with 1 after each shard. should_stop: asked before each.

    Raises:
        DamagedStore: a chunk of the source is damaged; nothing of its shard is written.
        UserError: ragged rows, which only layout arrow holds.
        SpecMismatch, StorePathError: `target` holds something else, or lies inside the source, or around it.
        Interrupted: `should_stop` said so; calling again goes on. DiskFull: before the first shard, where possible.
    """
    opened = files_of(source)
    require_apart(opened, folder_of(target))
    store = open_store(opened)
    if store.spec.ragged and layout != "arrow":
        raise UserError(
            f"the rows of {source} are ragged (each has its own number of positions), and Zarr holds regular arrays",
            remedy="keep the layout arrow",
        )
    spec: Spec = msgspec.structs.replace(store.spec, layout=layout, compression=compression)
    made = Derived(spec, Picked(store, range(store.rows)), store.manifest.about, store.basis)
    manifest = fill(target, made, progress=progress, should_stop=should_stop)
    if manifest.content_digest != store.content_digest:
        raise DamagedStore(f"{target} does not hold the content of {source}", remedy="delete it and convert again")
    return manifest
