"""Encode a dense store's labels as topk, without a teacher: STORE holds the k largest logits of each distribution and its
tail, and bytes a position and fidelity are printed before and after, so that the choice can be made by looking.

The dense store may be one split or a folder of splits; the basis of the tails is found once, in a sample of the first split
(train, where there is one), and shared by all. The same command goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from pipeline.errors import ConfigError, Interrupted, StorePathError
from pipeline.labels.encoding import Tail, TopkEncoding
from pipeline.labels.fidelity import by_temperature, nats
from pipeline.labels.tail_basis import find_basis
from pipeline.labels.topk import topk_encoding
from pipeline.models.device import resolve_device, warm_up
from pipeline.report.table import Table, as_text
from pipeline.store import Store, StoreWriter, open_store, store_splits
from pipeline.store.basis import Basis, resumable_basis
from pipeline.store.dense_spec import encoded_as
from pipeline.store.root import require_root, write_root
from pipeline.store.spec import Manifest, Spec
from pipeline.store.writer import require_room
from pipeline.teacher.config import LabelsConfig
from pipeline.teacher.pilot import needs_basis
from pipeline.teacher.reencode import DensePilot, reencode
from stages.recipe import parse
from stages.run import command, program, should_stop


@dataclass(frozen=True)
class Encode:
    """Arguments of encode."""

    from_: str = ""  # the dense store, or a folder of dense stores
    store: str = ""  # where the encoded store goes
    encoding: Literal["topk"] = "topk"  # the only one that a dense store can be brought into
    k: int = LabelsConfig.k  # how many classes are stored one by one
    tail: Tail = "lowrank"  # the shape of the rest: lowrank, prior, uniform, bucket; renormalised: none
    rank: int = LabelsConfig.rank  # of lowrank tails: coefficients a distribution
    fine: int | None = None  # of these, the leading ones with 8 bits, by default 16 or all of fewer; the others have 4
    nodes: int = LabelsConfig.nodes  # values of the tail's mass over the temperatures, 2 or more
    min_temperature: float = 1.0  # the lowest temperature at which the labels can be used
    layout: Literal["zarr", "arrow"] | None = None  # by default that of the dense store
    compression: Literal["none", "zstd"] = "none"  # zstd: zarr only
    device: str = "auto"  # cuda, cpu, or auto (cuda where there is one)


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Encode every split."""
    args = parse(argv, Encode, stage="encode", doc=__doc__, positional=("from_", "store"))
    if not args.from_ or not args.store:
        raise ConfigError(
            "a dense store and a target are needed", remedy="write softlabels encode --from=DENSE --store=STORE"
        )
    target, splits = Path(args.store), store_splits(args.from_)
    single = list(splits.values()) == [Path(args.from_)]
    _require_apart(Path(args.from_), target)
    if not single:
        require_root(target, tuple(splits))
    stores = {split: _dense(path) for split, path in splits.items()}
    paths = {split: target if single else target / split for split in splits}
    device = resolve_device(args.device)
    warm_up()
    encodings = {split: _encoding(args, store) for split, store in stores.items()}
    basis = _shared_basis(stores, paths, encodings, device)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(_writer(paths[split], store, _spec(args, store, encodings[split], basis), basis))
            for split, store in stores.items()
        }
        require_room(writers.values())
        for split, store in stores.items():
            manifest = _encode(split, store, writers[split], basis, device)
            print(_before_and_after(split, store.manifest, manifest), flush=True)
    if not single:
        write_root(target)
    print(f"sealed: {target} (look: {program()} info {target})")
    return 0


def _require_apart(source: Path, target: Path) -> None:
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise StorePathError(f"{target} and {source} lie in each other", remedy="give a target beside the source")


def _dense(path: Path) -> Store:
    store = open_store(path)
    if isinstance(store.encoding, TopkEncoding):
        raise ConfigError(
            f"{path} holds topk labels already, and what they left out is gone", remedy="give the dense store"
        )
    return store


def _encoding(args: Encode, store: Store) -> TopkEncoding:
    """What is asked for, its basis not found yet. Raises `ConfigError`."""
    if args.k > store.classes:
        raise ConfigError(
            f"--k={args.k} exceeds the {store.classes} classes of {store.path}",
            remedy=f"give at most {store.classes}; so few classes are as well kept dense",
        )
    return topk_encoding(
        k=args.k,
        tail=args.tail,
        rank=args.rank,
        fine=args.fine,
        nodes=args.nodes,
        min_temperature=args.min_temperature,
        members=store.members,
        reduce=store.encoding.reduce,
        inputs=store.encoding.inputs,
    )


def _shared_basis(
    stores: Mapping[str, Store], paths: Mapping[str, Path], encodings: Mapping[str, TopkEncoding], device: torch.device
) -> Basis | None:
    """The prior and basis of the tails: that of a target that is begun, else found now. None where the tails have none."""
    split = "train" if "train" in stores else next(iter(stores))
    encoding = encodings[split]
    if not needs_basis(encoding):
        return None
    for path in paths.values():
        found = resumable_basis(path, rank=encoding.rank)
        if found is not None:
            return found
    return find_basis(DensePilot(stores[split], device), encoding.rank)


def _spec(args: Encode, store: Store, encoding: TopkEncoding, basis: Basis | None) -> Spec:
    return encoded_as(
        store.spec, encoding, basis=basis, layout=args.layout or store.layout, compression=args.compression
    )


def _writer(path: Path, store: Store, spec: Spec, basis: Basis | None) -> StoreWriter:
    about = store.manifest.about
    made_of = f"encoded from the dense store {store.digest[:16]}"
    about = msgspec.structs.replace(about, source=f"{about.source}; {made_of}" if about.source else made_of)
    return StoreWriter(path, spec, basis=basis, about=about, environment={"torch": str(torch.__version__)})


def _encode(split: str, store: Store, writer: StoreWriter, basis: Basis | None, device: torch.device) -> Manifest:
    """One split, a chunk of the dense store at a time."""
    shared = None if basis is None else torch.from_numpy(np.array(basis)).to(device)
    if store.positions is not None and "input" not in store.columns and writer.pending:
        print(
            f"{split}: the store holds no tokens (inputs: reference), so the next token's exact logit is not kept, and the "
            "losses dkd and nkd take it from the tail's shape; a dense store with labels.inputs=embed keeps it"
        )
    left = sum(last - first for first, last in map(writer.rows_of, writer.pending))
    with tqdm(total=left, desc=f"encode {split}", unit="row", disable=None) as bar:

        def advance(rows: int) -> None:
            bar.update(rows)
            if should_stop():
                raise Interrupted(
                    f"{len(writer.pending)} shards of {split} are left", remedy="run the same command again to go on"
                )

        for shard in writer.pending:
            reencode(store, writer, shard, basis=shared, device=device, on_rows=advance)
        return writer.seal()


def _before_and_after(split: str, before: Manifest, after: Manifest) -> str:
    """Bytes a position and fidelity of a dense store and of what was made of it."""
    titles = ("T", "dense: mean KL", "topk: mean KL", "largest KL", "tail mass error", "same top class")
    lines = tuple(
        (t, nats(before.fidelity[t].kl_mean) if t in before.fidelity else "", nats(f.kl_mean), nats(f.kl_max),
         f"{f.tail_mass_error:.1e}", f"{f.top1_agreement:.2%}")
        for t, f in by_temperature(after.fidelity)
    )  # fmt: skip
    return (
        f"{split}: {after.spec.rows:,} rows, {before.bytes_per_position:,.1f} -> {after.bytes_per_position:,.1f} bytes a "
        f"position, {before.bytes:,} -> {after.bytes:,} bytes\n"
        "KL in nats, dense: of the teacher's logits to the dense labels; topk: of the dense labels to the topk labels\n"
        + as_text(Table(titles, lines))
    )


if __name__ == "__main__":
    sys.exit(main())
