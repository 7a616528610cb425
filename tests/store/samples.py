"""Small stores with random content, and what should be found in them. Imports no torch: writers in other processes use it.

A kind is a layout (`zarr`, `zstd`: zarr compressed, `arrow`), or what is stored and a layout, such as `topk-zarr`: `topk`;
`sequence` and `ragged`, topk labels of rows of several positions; `tokens` and `ragtokens`, the same with dense labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from softlabels.errors import DamagedStore
from softlabels.labels.class_ids import narrow
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.labels.fidelity import FidelitySums
from softlabels.labels.lost import Lost
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, Spec, TeacherSpec
from softlabels.store.verify import verify
from tests.labels.dense_reference import dense_columns
from tests.labels.test_topk import some_coefficients

KINDS = ("zarr", "zstd", "arrow")
SPARSE = ("topk-zarr", "sequence-zstd", "ragged-arrow")
ALL = (
    *KINDS, *SPARSE, "topk-zstd", "topk-arrow", "sequence-zarr", "sequence-arrow", "tokens-zarr", "tokens-zstd",
    "tokens-arrow", "ragtokens-arrow",
)  # fmt: skip
POSITIONS = 5
LOWRANK = TopkEncoding(k=3, tail="lowrank", nodes=4, rank=4, fine=1)
FIDELITY = Lost(
    fidelity=(FidelitySums(temperature=1.0, samples=9, kl_sum=0.5, kl_max=0.25, tail_mass_error=0.125, top1_agreed=9),)
)


@dataclass(frozen=True)
class Sample:
    """Rows as a teacher stage has them: keys (R, 16), labels (R,), logits (R, [P,] M, C) float32 or, where they are encoded
    already, columns `soft` (R, [P,] M, ...) with `encoding` and `basis`; of sequences mask and document (R, P); inputs
    (R, 3, 2) uint8.
    """

    keys: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    inputs: np.ndarray
    soft: dict[str, np.ndarray] | None = None
    mask: np.ndarray | None = None
    document: np.ndarray | None = None
    encoding: TopkEncoding | None = None
    basis: np.ndarray | None = None
    classes: int = 0  # where it does not follow from the logits
    ragged: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | np.ndarray) -> Sample:
        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        soft = None if self.soft is None else {name: values[rows] for name, values in self.soft.items()}
        return replace(
            self, keys=self.keys[rows], labels=self.labels[rows], logits=self.logits[rows], inputs=self.inputs[rows],
            soft=soft, mask=part(self.mask), document=part(self.document),
        )  # fmt: skip

    @property
    def positions(self) -> int | None:
        return None if self.mask is None else self.mask.shape[1]

    @property
    def members(self) -> int:
        return self.logits.shape[-2]

    def changed(self, by: float) -> Sample:
        """The same rows with other distributions."""
        if self.soft is None:
            return replace(self, logits=self.logits * np.float32(by))
        logit = (self.soft["top_logit"].astype(np.float32) * np.float32(by)).astype(np.float16)
        return replace(self, soft=self.soft | {"top_logit": np.where(self.real(logit), logit, np.float16(0))})

    def with_columns(self, soft: dict[str, np.ndarray]) -> Sample:
        """The same rows with these columns (R, [P,] M, ...); positions that a ragged store does not keep are blank."""
        assert self.encoding is not None
        blanks = {"top_class": np.arange(self.encoding.k, dtype=np.uint16), "label_logit": np.float16(np.nan)}
        blank = {
            name: np.where(self.real(values), values, blanks.get(name, values.dtype.type(0))).astype(values.dtype)
            for name, values in soft.items()
        }
        return replace(self, soft=blank)

    def real(self, like: np.ndarray) -> np.ndarray:
        """Whether a value (R, [P,] ...) is of a position that a ragged store keeps; True elsewhere."""
        if not self.ragged or self.document is None:
            return np.bool_(True)
        return (self.document > 0).reshape(*self.document.shape, *(1,) * (like.ndim - 2))

    def stored(self) -> dict[str, np.ndarray]:
        """The columns that a store of these rows holds."""
        found = {"content_key": self.keys, "label": self.labels}
        if self.mask is not None and self.document is not None:
            if self.ragged:
                found["positions"] = (self.document > 0).sum(axis=1).astype(np.int32)
            found |= {"position_mask": self.mask, "document": self.document}
        if self.soft is not None:
            found |= self.soft
        elif self.mask is None:
            encoded = dense_columns(self.logits)
            found |= {"logits": encoded.logits, "shift": encoded.shift}
        else:
            quiet = np.where(self.mask[:, :, None, None] == 1, self.logits, np.float32(0))
            encoded = dense_columns(quiet.reshape(-1, *quiet.shape[2:]))
            found |= {"logits": encoded.logits.reshape(quiet.shape), "shift": encoded.shift.reshape(quiet.shape[:3])}
        return found | {"input": self.inputs}


def sample(rng: np.random.Generator, rows: int, kind: str = "zarr", *, members: int = 2, classes: int = 7) -> Sample:
    """Distinct keys; some rows without a label, some impossible classes."""
    what = kind.rpartition("-")[0]
    lead: tuple[int, ...] = (rows,)
    data = Sample(
        keys=rng.integers(0, 256, (rows, 16), np.uint8),
        labels=rng.integers(-1, classes, rows),
        logits=np.zeros((rows, members, 1), np.float32),
        inputs=rng.integers(0, 256, (rows, 3, 2), np.uint8),
        classes=classes,
    )
    if what not in ("", "topk"):
        lead = (rows, POSITIONS)
        mask, document = positions(rng, rows)
        data = replace(data, mask=mask, document=document, ragged=what.startswith("rag"), labels=np.full(rows, -1))
    if what in ("topk", "sequence", "ragged"):
        soft, basis = topk(rng, lead, LOWRANK, members=members, classes=classes)
        return replace(data, encoding=LOWRANK, basis=basis).with_columns(soft)
    logits = (rng.normal(size=(*lead, members, classes)) * 5).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    logits[..., 0] = rng.normal(size=(*lead, members))
    return replace(data, logits=logits)


def positions(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Mask uint8 and document uint16 (R, P) of rows of 2 to P + 1 tokens in one or more documents."""
    length = rng.integers(2, POSITIONS + 2, rows)
    begins = rng.random((rows, POSITIONS + 1)) < 0.3
    begins[:, 0] = True
    document = np.where(np.arange(POSITIONS + 1) < length[:, None], begins.cumsum(axis=1), 0)
    mask = (document[:, :-1] == document[:, 1:]) & (document[:, :-1] > 0)
    return mask.astype(np.uint8), document[:, :-1].astype(np.uint16)


def topk(
    rng: np.random.Generator, lead: tuple[int, ...], encoding: TopkEncoding, *, members: int, classes: int
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Columns (R, [P,] M, ...) that an encoder might have written, and the basis, where the tail has one."""
    shape, kept = (*lead, members), encoding.k
    if classes < 100:
        ids = np.argsort(rng.random((*shape, classes)), axis=-1)[..., :kept]
    else:  # distinct by their steps, and the last is the last class there is
        ids = classes - np.cumsum(rng.integers(1, classes // kept + 1, (*shape, kept)), axis=-1)
        ids += classes - 1 - ids.max()
    logit = -np.abs(rng.normal(size=(*shape, kept)) * 5)
    np.put_along_axis(logit, rng.integers(0, kept, (*shape, 1)), 0.0, axis=-1)
    odds = np.where(rng.random((*shape, 1)) < 0.1, -np.inf, rng.normal(size=(*shape, 2)))
    found: dict[str, np.ndarray] = dict(narrow(np.sort(ids, axis=-1), classes))
    found["top_logit"] = logit.astype(np.float16)
    if encoding.tail != "renormalised":
        found["tail_odds"] = odds.astype(np.float16)
        found["tail_curve"] = rng.integers(-1000, 1, (*shape, encoding.nodes - 1)).astype(np.int16)
    if encoding.tail == "lowrank":
        found |= some_coefficients(rng, shape, encoding)
    found["label_logit"] = np.where(rng.random(shape) < 0.2, np.nan, -np.abs(rng.normal(size=shape))).astype(np.float16)
    if encoding.tail not in ("lowrank", "prior"):
        return found, None
    return found, rng.normal(size=(1 + encoding.rank, classes)).astype(np.float16)


def make_spec(
    data: Sample,
    kind: str = "zarr",
    *,
    rows_per_shard: int = 48,
    rows_per_chunk: int = 16,
    embed: bool = True,
    names: bool = False,
    split: str = "train",
    reduce: str = "none",
    weights: Iterable[float] | None = None,
) -> Spec:
    """A specification for these rows; of `kind` (see the module) only the layout counts, the rest stands in `data`."""
    layout = kind.rpartition("-")[2]
    members, classes = data.members, data.classes or data.logits.shape[-1]
    shares = (1.0,) * members if weights is None else tuple(weights)
    return store_spec(
        data.encoding or DenseEncoding(reduce=reduce),  # type: ignore[arg-type]
        teacher=TeacherSpec(
            name="sample", precision="float32", members=tuple(MemberSpec(model="m", weight=share) for share in shares)
        ),
        name="rows",
        keys=data.keys,
        classes=[f"class {i}" for i in range(classes)] if names else classes,
        split=split,
        layout="arrow" if layout == "arrow" else "zarr",
        compression="zstd" if layout == "zstd" else "none",
        basis=data.basis,
        positions=data.positions,
        vocabulary=None if data.mask is None else "ab" * 32,
        ragged=data.ragged,
        embed=data.inputs if embed else None,
        rows_per_shard=rows_per_shard,
        rows_per_chunk=rows_per_chunk,
    )


def fill(writer: StoreWriter, data: Sample, shards: Iterable[int] | None = None) -> None:
    """Write these shards (default: all that are pending)."""
    for shard in writer.pending if shards is None else shards:
        part = data[slice(*writer.rows_of(shard))]
        rows = {
            "keys": part.keys, "labels": part.labels, "mask": part.mask, "document": part.document,
            "inputs": part.inputs if writer.spec.encoding.inputs == "embed" else None,
        }  # fmt: skip
        if part.soft is None:
            writer.write_logits(shard, logits=part.logits, **rows)  # type: ignore[arg-type]
        else:
            writer.write_columns(shard, columns=part.soft, fidelity=FIDELITY, **rows)  # type: ignore[arg-type]


def write_store(path: Path, data: Sample, spec: Spec, *, checked: bool = False) -> Store:
    """A sealed store of these rows; `checked`: rows of one key may contradict each other."""
    with StoreWriter(path, spec, basis=data.basis) as writer:
        fill(writer, data)
        writer.seal(checked=checked)
    return open_store(path)


def assert_holds(store: Store, data: Sample) -> None:
    """Every column that the store has is what these rows encode to, bit for bit."""
    expected = data.stored()
    assert list(store.columns) == [name for name in expected if name in store.columns]
    for name in store.columns:
        found = store.column(name)
        assert found.dtype == expected[name].dtype, name
        assert found.shape == expected[name].shape, name
        assert found.tobytes() == expected[name].tobytes(), name
    if data.basis is not None:
        assert store.basis is not None
        assert store.basis.tobytes() == data.basis.tobytes()


def require_sound(path: Path) -> None:
    """Raise `DamagedStore` listing every problem that `verify` finds."""
    if problems := verify(path):
        listing = "\n".join(map(str, problems))
        raise DamagedStore(f"{path} is damaged in {len(problems)} places:\n{listing}", remedy="see each line's remedy")
