"""`encode`: a dense store's labels as topk: its logits in the teacher's place. n rows, M members, C classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import ConfigError, some
from softlabels.jobs.stores import Stores
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import Fidelity, by_temperature, nats, table
from softlabels.labels.lost import Lost
from softlabels.labels.settings import EncodingSettings
from softlabels.labels.tail_fit import TailBasis
from softlabels.labels.targets import titled
from softlabels.models.device import resolve_device, warm_up
from softlabels.report.table import as_text, fidelity_table
from softlabels.store import Store, StoreWriter, open_store, store_splits
from softlabels.store.basis import Basis
from softlabels.store.columns import is_soft
from softlabels.store.findings import ask, keys_of
from softlabels.store.new_spec import encoded_as
from softlabels.store.records import Manifest
from softlabels.store.root import require_apart, require_root, write_root
from softlabels.store.same_plan import require_same_maker
from softlabels.store.spec import About, Spec
from softlabels.system.files import Folder
from softlabels.system.places import Place, Target, files_of, folder_of
from softlabels.teacher.reencode import DensePilot, DenseTeacher


def encode(
    dense: Place,
    store: Target,
    settings: EncodingSettings,
    *,
    target: str | None = None,
    layout: Literal["zarr", "arrow"] | None = None,
    compression: Literal["none", "zstd"] = "none",
    device: str = "auto",
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Encode a dense store as topk, without a teacher.

    The basis of the tails is found once, in a sample of the first split (train, if there is one), and shared by all. The same
    call resumes.

    Args:
        dense: the dense store (R, [P,] M, C): one split, or a folder of splits. store: where the topk labels go.
        settings: k, tail and its rank, see docs/any-temperature.md.
        target: the target to encode; by default the only dense one. The others are copied.
        layout: "zarr" or "arrow"; by default that of the dense store. compression: "none" or "zstd" (zarr).
        device: "cuda", "cpu" or "auto". watch: gets the messages, and is asked whether to stop.

    Returns:
        The manifest of each split's store; its fidelity is measured against the dense labels.

    Raises:
        ConfigError: `dense` is topk already, or settings that do not fit its classes.
        StorePathError: one folder is inside the other, or `store` holds something else. SpecMismatch: it was begun with other
            settings.
        Interrupted: `watch` asked to stop. DiskFull, StorageError, DamagedStore: from the disk.

    Example:
        >>> encode("stores/noise", "stores/topk", LabelsConfig(encoding="topk", k=3, rank=2))["train"].spec.encoding.k
        3
    """
    root, source = folder_of(store), files_of(dense)
    splits = store_splits(source)
    single = list(splits.values()) == [source]
    require_apart(source, root)
    if not single:
        require_root(root, tuple(splits))
    stores = {split: open_store(path) for split, path in splits.items()}
    name = _chosen(stores.values(), target)
    for each in stores.values():
        for error in ask(each, keys_of(each)):
            raise error
    folders = {split: root if single else root.within(split) for split in splits}
    warm_up()
    made = _Encoded(stores, folders, name, settings, layout, compression, resolve_device(device), watch).fill()
    if not single:
        write_root(root)
    return made


@dataclass
class _Encoded(Stores[Store]):
    """Topk stores of what dense ones hold."""

    rows: Mapping[str, Store]
    folders: Mapping[str, Folder]
    target: str
    settings: EncodingSettings
    layout: str | None
    compression: str
    device: torch.device
    watch: Watch

    def __post_init__(self) -> None:
        """Raises `ConfigError` where the settings do not fit a store."""
        first = self.rows.get("train") or next(iter(self.rows.values()))
        encodings = [_encoding(self.settings, each.only(self.target)) for each in (first, *self.rows.values())]
        self.first, self.teacher = first, DenseTeacher(first.spec.teacher, self.device, self.target)
        self.encodings: Mapping[str, Encoding] = {
            each.name: encodings[0] if each.name == self.target else each.encoding for each in first.spec.targets
        }
        self.classes = {
            split: {each.name: each.label_space.classes for each in store.spec.targets}
            for split, store in self.rows.items()
        }

    def spec(self, split: str, basis: Basis | None) -> Spec:
        """That of the dense store, of other labels."""
        store = self.rows[split]
        encoding, layout = _encoding(self.settings, store.only(self.target)), self.layout or store.layout
        return encoded_as(
            store.spec, encoding, target=self.target, basis=basis, layout=layout, compression=self.compression
        )

    def about(self, split: str) -> About:
        """That of the dense store, and which it was."""
        about, made_of = self.rows[split].manifest.about, _made_of(self.rows[split])
        return msgspec.structs.replace(about, source=f"{about.source}; {made_of}" if about.source else made_of)

    def pilot(self, target: str) -> Iterable[Tensor]:
        """A sample of the first split."""
        return DensePilot(self.first.only(target), self.teacher.device)

    def compare(self, split: str, writer: StoreWriter) -> None:
        """The dense labels that they were made of."""
        require_same_maker(writer.folder, _made_of(self.rows[split]), remedy="give the dense store that began it")

    def announce(self, writers: Mapping[str, StoreWriter], free: int | None) -> None:
        """What is lost for lack of tokens."""
        for split, store in self.rows.items():
            if store.spec.of_tokens and "input" not in store.columns and writers[split].pending:
                self.watch.say(
                    f"{split}: the store holds no tokens (inputs: reference), so the next token's exact logit is not kept, and "
                    "the losses dkd and nkd take it from the tail's shape; a dense store with labels.inputs=embed keeps it"
                )

    def say_what_was_made(self, split: str, manifest: Manifest) -> None:
        """Bytes and fidelity before and after."""
        dense, size = self.rows[split], manifest.bytes_per_position
        sizes = f"{counted(manifest.spec.rows, 'row')}, {dense.manifest.bytes:,} -> {manifest.bytes:,} bytes"
        made, title = manifest.only(self.target), f"{split}: {titled(self.target)}{sizes}"
        self.watch.say(_before_and_after(title, dense.only(self.target), size, made.fidelity, made.spec.encoding))


def try_encoding(
    dense: Place,
    settings: EncodingSettings,
    *,
    target: str | None = None,
    layout: Literal["zarr", "arrow"] | None = None,
    compression: Literal["none", "zstd"] = "none",
    device: str = "auto",
) -> str:
    """What settings would cost and lose, in words, on a sample of the split in which the basis is found; nothing is written.
    Arguments and errors as of `encode`.
    """
    splits, place = store_splits(dense), resolve_device(device)
    split = "train" if "train" in splits else next(iter(splits))
    whole = open_store(splits[split])
    made = _Encoded({split: whole}, {}, _chosen([whole], target), settings, layout, compression, place, LOGGED)
    basis, store = made.basis(), whole.only(made.target)
    spec = made.spec(split, basis)
    shared = None if basis is None else TailBasis(torch.from_numpy(np.array(basis)).to(place))
    encoding = spec.only(made.target).encoding
    parts = (encoding.encode(logits, basis=shared)[1] for logits in _Sample(store, place))
    lost = Lost.total(parts).fidelity
    tried = max((sums.samples for sums in lost), default=0)
    columns = [
        column for column in spec.columns if is_soft(column.name) or column.name in ("position_mask", "document")
    ]
    size = sum(column.row_bytes for column in columns) / (spec.positions or 1)
    title = f"{split}: {titled(made.target)}{counted(tried, 'distribution')} tried"
    return _before_and_after(title, store, size, table([lost]), encoding)


def _chosen(stores: Collection[Store], target: str | None) -> str:
    """The name of the target that is encoded, alike in all splits. Raises `ConfigError`."""
    names = {_only_dense(store) if target is None else target for store in stores}
    if len(names) > 1:
        raise ConfigError(
            f"the splits have dense targets of different names ({', '.join(sorted(names))})", remedy="say which"
        )
    name = names.pop()
    for store in stores:
        encoding = store.only(name).encoding
        if encoding.target != "softmax" or not encoding.keeps_all:
            already = encoding.target == "softmax"
            raise ConfigError(
                f"{titled(name)}{store.path} holds {encoding.kind} labels{' already' * already}, "
                + ("and what they left out is gone" if already else "and topk is of distributions over classes"),
                remedy="give the dense store" if already else "give a dense store, or another target",
            )
    return name


def _only_dense(store: Store) -> str:
    """The one target that can be encoded, or the first, for an error that says why not. Raises `ConfigError`."""
    found = [each.name for each in store.spec.targets if each.encoding.target == "softmax" and each.encoding.keeps_all]
    if len(found) > 1:
        raise ConfigError(
            f"{store.path} holds {len(found)} dense targets ({some(found)})", remedy=f"say --target={found[0]}"
        )
    return found[0] if found else store.targets[0]


def _encoding(settings: EncodingSettings, store: Store) -> Encoding:
    """What is asked for, its basis not found yet. Raises `ConfigError`."""
    dense = store.encoding
    found = settings.made(store.members, classes=store.classes, reduce=dense.reduce, inputs=dense.inputs)
    if found.keeps_all:
        raise ConfigError("the labels are dense already", remedy='give encoding="topk"')
    return found


def _made_of(store: Store) -> str:
    return f"encoded from the dense labels {store.content_digest[:16]}"


@dataclass(frozen=True)
class _Sample(DensePilot):
    """As many distributions as the basis is found in, of the rows between those where there are any."""

    @property
    def rows(self) -> NDArray[np.int64]:
        pilot = super().rows
        return pilot if len(pilot) < 2 else np.minimum(pilot + (pilot[1] - pilot[0]) // 2, self.store.rows - 1)


def _before_and_after(
    title: str, dense: Store, size: float, fidelity: Mapping[str, Fidelity], encoding: Encoding
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
