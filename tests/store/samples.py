"""Small stores with random content, and what should be found in them. Imports no torch: writers in other processes use it.

A kind is a layout (`zarr`, `zstd`: zarr compressed, `arrow`), or what is stored and a layout, such as `topk-zarr`: `topk`;
`sequence` and `ragged`, topk labels of rows of several tokens; `tokens` and `ragtokens`, the same with dense labels; `sigmoid`
and `values`; `anchors` and `frames`, dense labels of rows of positions, fixed and ragged; `several` and `ragseveral`, three
targets of such rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from softlabels.errors import DamagedStore
from softlabels.labels.class_ids import narrow
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding, ValuesEncoding
from softlabels.labels.fidelity import FidelitySums
from softlabels.labels.lost import ErrorSums, Lost
from softlabels.store import Store, StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, Spec, TeacherSpec
from softlabels.store.verify import verify
from tests.labels.dense_reference import dense_columns
from tests.labels.test_topk import some_coefficients

KINDS = ("zarr", "zstd", "arrow")
SPARSE = ("topk-zarr", "sequence-zstd", "ragged-arrow")
TARGETS = ("sigmoid-zarr", "values-arrow", "anchors-zstd", "several-zarr", "ragseveral-arrow")  # of format 3
ALL = (
    *KINDS, *SPARSE, "topk-zstd", "topk-arrow", "sequence-zarr", "sequence-arrow", "tokens-zarr", "tokens-zstd",
    "tokens-arrow", "ragtokens-arrow", *TARGETS, "sigmoid-arrow", "values-zarr", "anchors-zarr", "anchors-arrow",
    "frames-arrow", "several-zstd", "several-arrow",
)  # fmt: skip
POSITIONS = 5
LOWRANK = TopkEncoding(k=3, tail="lowrank", nodes=4, rank=4, fine=1)
FIDELITY = Lost(
    fidelity=(FidelitySums(temperature=1.0, samples=9, kl_sum=0.5, kl_max=0.25, tail_mass_error=0.125, top1_agreed=9),)
)
ERRORS = Lost(errors=ErrorSums(samples=9, squares=0.5, largest=0.25))


@dataclass(frozen=True)
class Sample:
    """Rows as a teacher stage has them: keys (R, 16), labels (R, ...) as the target's kind has them, logits (R, [P,] M, C)
    float32 or, where they are encoded already, columns `soft` (R, [P,] M, ...) with `encoding` and `basis`; of rows of
    positions the mask (R, P), of tokens documents too; inputs (R, 3, 2) uint8. Of `several` targets each is a sample, of the
    same rows.
    """

    keys: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    inputs: np.ndarray
    soft: dict[str, np.ndarray] | None = None
    mask: np.ndarray | None = None
    document: np.ndarray | None = None
    encoding: Encoding | None = None
    basis: np.ndarray | None = None
    classes: int = 0  # where it does not follow from the logits
    ragged: bool = False
    labelled: bool = True
    fold: np.ndarray | None = None
    several: dict[str, Sample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | np.ndarray) -> Sample:
        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        soft = None if self.soft is None else {name: values[rows] for name, values in self.soft.items()}
        return replace(
            self, keys=self.keys[rows], labels=self.labels[rows], logits=self.logits[rows], inputs=self.inputs[rows],
            soft=soft, mask=part(self.mask), document=part(self.document), fold=part(self.fold),
            several={name: each[rows] for name, each in self.several.items()},
        )  # fmt: skip

    @property
    def positions(self) -> int | None:
        return None if self.mask is None else self.mask.shape[1]

    @property
    def members(self) -> int:
        return self.logits.shape[-2]

    @property
    def kind(self) -> str:
        """Of its target."""
        return "softmax" if self.encoding is None else self.encoding.target

    @property
    def parts(self) -> dict[str, Sample]:
        """Each target's rows, by its name."""
        return self.several or {"": self}

    def changed(self, by: float) -> Sample:
        """The same rows with other outputs."""
        if self.several:
            return replace(self, several={name: each.changed(by) for name, each in self.several.items()})
        if self.soft is None:
            return replace(self, logits=self.logits * np.float32(by))
        logit = (self.soft["top_logit"].astype(np.float32) * np.float32(by)).astype(np.float16)
        return replace(self, soft=self.soft | {"top_logit": np.where(self.real(logit), logit, np.float16(0))})

    def with_columns(self, soft: dict[str, np.ndarray]) -> Sample:
        """The same rows with these columns (R, [P,] M, ...); positions that a ragged store does not keep are blank."""
        assert isinstance(self.encoding, TopkEncoding)
        blanks = {"top_class": np.arange(self.encoding.k, dtype=np.uint16), "label_logit": np.float16(np.nan)}
        blank = {
            name: np.where(self.real(values), values, blanks.get(name, values.dtype.type(0))).astype(values.dtype)
            for name, values in soft.items()
        }
        return replace(self, soft=blank)

    @property
    def held(self) -> np.ndarray | None:
        """Which positions (R, P) a ragged store keeps; None of others."""
        if not self.ragged or self.mask is None:
            return None
        if self.document is not None:
            return self.document > 0
        return np.cumsum(self.mask[:, ::-1], axis=1)[:, ::-1] > 0

    def real(self, like: np.ndarray) -> np.ndarray:
        """Whether a value (R, [P,] ...) is of a position that a ragged store keeps; True elsewhere."""
        held = self.held
        return np.bool_(True) if held is None else held.reshape(*held.shape, *(1,) * (like.ndim - 2))

    def stored(self) -> dict[str, np.ndarray]:
        """The columns that a store of these rows holds."""
        found = {"content_key": self.keys}
        found |= {f"{name}.label".strip("."): each.labels for name, each in self.parts.items() if each.labelled}
        found |= {} if self.fold is None else {"fold": self.fold}
        if self.mask is not None:
            if self.held is not None:
                found["positions"] = self.held.sum(axis=1).astype(np.int32)
            found |= {"position_mask": self.mask} | ({} if self.document is None else {"document": self.document})
        for name, each in self.parts.items():
            found |= {f"{name}.{column}".strip("."): values for column, values in each.encoded().items()}
        return found | {"input": self.inputs}

    def encoded(self) -> dict[str, np.ndarray]:
        """The columns of its target's encoding."""
        if self.soft is not None:
            return self.soft
        quiet = self.logits
        if self.mask is not None:
            quiet = np.where(self.mask[:, :, None, None] == 1, self.logits, np.float32(0))
        if isinstance(self.encoding, SigmoidEncoding):
            return {"logits": quiet.astype(self.encoding.dtype)}
        if isinstance(self.encoding, ValuesEncoding):
            return {"values": quiet.astype(self.encoding.dtype)}
        found = dense_columns(quiet.reshape(-1, *quiet.shape[-2:]))
        return {"logits": found.logits.reshape(quiet.shape), "shift": found.shift.reshape(quiet.shape[:-1])}


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
    if what in ("anchors", "frames", "several", "ragseveral"):
        return _of_positions(rng, data, what, members, classes)
    if what in ("sigmoid", "values"):
        return _other(rng, data, what, members, classes)
    if what not in ("", "topk"):
        lead = (rows, POSITIONS)
        mask, document = positions(rng, rows)
        data = replace(data, mask=mask, document=document, ragged=what.startswith("rag"), labels=np.full(rows, -1))
    if what in ("topk", "sequence", "ragged"):
        soft, basis = topk(rng, lead, LOWRANK, members=members, classes=classes)
        return replace(data, encoding=LOWRANK, basis=basis).with_columns(soft)
    return replace(data, logits=_logits(rng, (*lead, members, classes)))


def _logits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of which each distribution's first class is possible."""
    logits = (rng.normal(size=shape) * 5).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    logits[..., 0] = rng.normal(size=shape[:-1])
    return logits


def _other(rng: np.random.Generator, data: Sample, what: str, members: int, classes: int) -> Sample:
    """The rows with a target that is no distribution over classes, and hard labels of it."""
    lead = (len(data),) if data.mask is None else data.mask.shape
    off = np.zeros(lead, np.bool_) if data.mask is None else data.mask == 0
    logits = (rng.normal(size=(*lead, members, classes)) * 5).astype(np.float32)
    if what == "values":
        labels = rng.normal(size=(*lead, classes)).astype(np.float32)
        labels[off | (rng.random(lead) < 0.2)] = np.nan
        return replace(data, logits=logits, labels=labels, encoding=ValuesEncoding(), classes=classes)
    logits[rng.random(logits.shape) < 0.1] = np.inf
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    labels = rng.integers(-1, 2, (*lead, classes)).astype(np.int8)
    labels[off] = -1
    return replace(data, logits=logits, labels=labels, encoding=SigmoidEncoding(), classes=classes)


def _of_positions(rng: np.random.Generator, data: Sample, what: str, members: int, classes: int) -> Sample:
    """The rows with positions that are no tokens, of which some count, and one target or three."""
    mask = (rng.random((len(data), POSITIONS)) < 0.6).astype(np.uint8)
    mask[np.arange(len(data)), rng.integers(0, POSITIONS, len(data))] = 1
    labels = np.where(mask == 1, rng.integers(-1, classes, mask.shape), -1)
    ragged = what in ("frames", "ragseveral")
    data = replace(data, mask=mask, labels=labels, ragged=ragged, logits=_logits(rng, (*mask.shape, members, classes)))
    if what in ("anchors", "frames"):
        return data
    own = data
    if ragged:  # one target has tails with a basis
        soft, basis = topk(rng, mask.shape, LOWRANK, members=members, classes=classes)
        data = replace(data, basis=basis)
        own = replace(data, encoding=LOWRANK, logits=np.zeros((len(data), members, 1), np.float32)).with_columns(soft)
    targets = {
        "class": own,
        "tag": _other(rng, data, "sigmoid", members, 3),
        "box": _other(rng, data, "values", members, 4),
    }
    targets["box"] = replace(targets["box"], labelled=not ragged)
    return replace(data, several=targets)


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
    several = {name: (each.encoding or DenseEncoding(), each.classes) for name, each in data.several.items()}
    return store_spec(
        data.encoding or DenseEncoding(reduce=reduce),  # type: ignore[arg-type]
        teacher=TeacherSpec(
            name="sample", precision="float32", members=tuple(MemberSpec(model="m", weight=share) for share in shares)
        ),
        name="rows",
        keys=data.keys,
        classes=[f"class {i}" for i in range(classes)] if names else classes,
        targets=several or None,
        labelled=[name for name, each in data.parts.items() if each.labelled],
        split=split,
        layout="arrow" if layout == "arrow" else "zarr",
        compression="zstd" if layout == "zstd" else "none",
        basis=data.basis,
        positions=data.positions,
        vocabulary=None if data.document is None else "ab" * 32,
        ragged=data.ragged,
        embed=data.inputs if embed else None,
        rows_per_shard=rows_per_shard,
        rows_per_chunk=rows_per_chunk,
    )


def fill(writer: StoreWriter, data: Sample, shards: Iterable[int] | None = None) -> None:
    """Write these shards (default: all that are pending)."""
    for shard in writer.pending if shards is None else shards:
        part = data[slice(*writer.rows_of(shard))]
        parts = part.parts

        def each(values: dict[str, object], plain: bool = not data.several) -> object:
            return values[""] if plain else values

        rows = {
            "keys": part.keys, "mask": part.mask, "document": part.document, "fold": part.fold,
            "labels": each({name: one.labels for name, one in parts.items() if one.labelled}),
            "inputs": part.inputs if writer.spec.inputs == "embed" else None,
        }  # fmt: skip
        if all(one.soft is None for one in parts.values()):
            writer.write_logits(shard, logits=each({name: one.logits for name, one in parts.items()}), **rows)  # type: ignore[arg-type]
            continue
        lost = {name: ERRORS if one.kind == "values" else FIDELITY for name, one in parts.items()}
        columns = {name: one.encoded() for name, one in parts.items()}
        writer.write_columns(shard, columns=each(columns), fidelity=each(lost), **rows)  # type: ignore[arg-type]


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
