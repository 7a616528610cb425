"""Encode a dense store's labels as topk, without a teacher: STORE holds the k largest logits of each distribution and its
tail, and bytes a position and fidelity are printed before and after, so that the choice can be made by looking.

The dense store may be one split or a folder of splits; the basis of the tails is found once, in a sample of the first split
(train, where there is one), and shared by all. The same command goes on where it was stopped. --try writes nothing: it
shows what the settings would cost and lose, on a sample of that split.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from softlabels.errors import ConfigError, SpecMismatch
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, add_up, by_temperature, nats, table
from softlabels.labels.tail_basis import find_basis
from softlabels.models.device import resolve_device, warm_up
from softlabels.report.table import as_text, fidelity_table
from softlabels.store import Store, StoreWriter, open_store, store_splits
from softlabels.store.basis import Basis, resumable_basis
from softlabels.store.findings import Stored, ask
from softlabels.store.new_spec import encoded_as
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.store.same_plan import require_same_maker
from softlabels.store.spec import Manifest, Spec
from softlabels.store.writer import require_room
from softlabels.system.local import LocalFolder
from softlabels.teacher.reencode import DensePilot, reencode
from softlabels_stages.arguments import Encode
from softlabels_stages.recipe import parse
from softlabels_stages.run import command, should_stop, suggested
from softlabels_stages.words import counted


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Encode every split."""
    args = parse(argv, Encode, stage="encode", doc=__doc__, positional=("from_", "store"))
    if not args.from_ or not (args.store or args.try_):
        raise ConfigError(
            "a dense store and a target are needed", remedy="write softlabels encode --from=DENSE --store=STORE"
        )
    if args.try_:
        return _try(args)
    target, splits = LocalFolder(args.store), store_splits(args.from_)
    single = list(splits.values()) == [LocalFolder(args.from_)]
    require_apart(Path(args.from_), target.at())
    if not single:
        require_root(target, tuple(splits))
    stores = {split: _dense(path) for split, path in splits.items()}
    for store in stores.values():
        _require_sound(store)
    paths = {split: target if single else target.within(split) for split in splits}
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
            sizes = f"{counted(manifest.spec.rows, 'row')}, {store.manifest.bytes:,} -> {manifest.bytes:,} bytes"
            size = manifest.bytes_per_position
            for line in writers[split].said:
                print(f"{split}: {line}")
            print(
                _before_and_after(f"{split}: {sizes}", store, writers[split].spec.encoding, size, manifest.fidelity),
                flush=True,
            )
    if not single:
        write_root(target)
    print(f"sealed: {target} (look: {suggested('info', target)})")
    return 0


def _dense(path: LocalFolder) -> Store:
    store = open_store(path)
    if not store.encoding.keeps_all:
        raise ConfigError(
            f"{path} holds {store.encoding.kind} labels already, and what they left out is gone",
            remedy="give the dense store",
        )
    return store


def _require_sound(store: Store) -> None:
    """Raise the first error that the checks find in the dense labels."""
    stored = Stored.of(store)
    for error in ask(stored, stored.keys()):
        raise error


def _encoding(args: Encode, store: Store) -> Encoding:
    """What is asked for, its basis not found yet. Raises `ConfigError`."""
    dense = store.encoding
    return args.made(store.members, classes=store.classes, reduce=dense.reduce, inputs=dense.inputs)


def _shared_basis(
    stores: Mapping[str, Store],
    paths: Mapping[str, LocalFolder],
    encodings: Mapping[str, Encoding],
    device: torch.device,
) -> Basis | None:
    """The prior and basis of the tails: that of a target that is begun, else found now. None where the tails have none."""
    split = _first(stores)
    encoding = encodings[split]
    if encoding.basis_rank is None:
        return None
    for path in paths.values():
        found = resumable_basis(path, rank=encoding.basis_rank, settings="--")
        if found is not None:
            return found
    return find_basis(DensePilot(stores[split], device), encoding.basis_rank)


def _spec(args: Encode, store: Store, encoding: Encoding, basis: Basis | None) -> Spec:
    return encoded_as(
        store.spec, encoding, basis=basis, layout=args.layout or store.layout, compression=args.compression
    )


def _writer(path: LocalFolder, store: Store, spec: Spec, basis: Basis | None) -> StoreWriter:
    about = store.manifest.about
    made_of = f"encoded from the dense labels {store.content_digest[:16]}"
    about = msgspec.structs.replace(about, source=f"{about.source}; {made_of}" if about.source else made_of)
    writer = StoreWriter(
        path, spec, basis=basis, about=about, environment={"torch": str(torch.__version__)}, settings="--"
    )
    try:
        require_same_maker(path, made_of, remedy="give the dense store that began it")
    except SpecMismatch:
        writer.close()
        raise
    return writer


def _encode(split: str, store: Store, writer: StoreWriter, basis: Basis | None, device: torch.device) -> Manifest:
    """One split, a chunk of the dense store at a time."""
    shared = _on(device, basis)
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
                raise writer.stopped()

        for shard in writer.pending:
            reencode(store, writer, shard, basis=shared, device=device, on_rows=advance)
        return writer.seal()


@dataclass(frozen=True)
class _Sample(DensePilot):
    """As many distributions as the basis is found in, of the rows between those where there are any."""

    @property
    def rows(self) -> NDArray[np.int64]:
        pilot = super().rows
        return pilot if len(pilot) < 2 else np.minimum(pilot + (pilot[1] - pilot[0]) // 2, self.store.rows - 1)


def _try(args: Encode) -> int:
    """Encode a sample of the split in which the basis is found, and say what it lost."""
    splits, device = store_splits(args.from_), resolve_device(args.device)
    split = _first(splits)
    store = _dense(splits[split])
    encoding = _encoding(args, store)
    rank = encoding.basis_rank
    basis = None if rank is None else find_basis(DensePilot(store, device), rank)
    spec, shared = _spec(args, store, encoding, basis), _on(device, basis)
    lost = add_up(spec.encoding.encode(logits, basis=shared)[1] for logits in _Sample(store, device))
    tried = max((sums.samples for sums in lost), default=0)
    columns = [column for column in spec.columns if column.name in spec.soft_columns or column.by_position]
    size = sum(column.row_bytes for column in columns) / (spec.positions or 1)
    print(_before_and_after(f"{split}: {counted(tried, 'distribution')} tried", store, encoding, size, table([lost])))
    print(f"nothing was written; to encode: {suggested('encode')} with --store=STORE in place of --try")
    return 0


def _first(splits: Mapping[str, object]) -> str:
    """The split in which the basis is found."""
    return "train" if "train" in splits else next(iter(splits))


def _on(device: torch.device, basis: Basis | None) -> torch.Tensor | None:
    return None if basis is None else torch.from_numpy(np.array(basis)).to(device)


def _before_and_after(
    title: str, dense: Store, encoding: Encoding, size: float, fidelity: Mapping[str, Fidelity]
) -> str:
    """Bytes a position and fidelity of a dense store, and `size` and `fidelity` of what was made of it."""
    before = dense.manifest
    dense_kl = [nats(before.fidelity[t].kl_mean) if t in before.fidelity else "" for t, _ in by_temperature(fidelity)]
    lines = as_text(fidelity_table(fidelity).with_column("dense: mean KL", dense_kl, after="T"))
    return (
        f"{title}, {before.bytes_per_position:,.1f} -> {size:,.1f} bytes a position\n"
        f"KL in nats, dense: of the teacher's logits to the dense labels; the others: of these to the {encoding.kind} labels\n"
        + "\n".join(filter(None, [lines, encoding.warning(fidelity)]))
    )


if __name__ == "__main__":
    sys.exit(main())
