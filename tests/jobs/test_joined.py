"""A list of stores in the place of one: read as the store that `merge` makes of them, by students too; and refused as `merge`
refuses.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from softlabels import ModelConfig, StudentTraining, errors, judge, merge, open_store, sign, train
from softlabels.jobs.sources import Source
from softlabels.jobs.splits import open_splits, training_batches
from softlabels.jobs.watch import Watch
from softlabels.store import Store
from softlabels.store.joined import Joined
from softlabels.store.pinned import Pinned
from softlabels.stream import EmbeddedRows, Loader
from tests.jobs.test_combine import X, Y, from_arrays, made
from tests.jobs.test_sign import keys
from tests.store.places import MemoryPath
from tests.store.samples import sample

MLP = ModelConfig("softlabels.models.MLP", {"inputs": 3, "hidden": [4], "classes": 4})
TRAINING = StudentTraining(epochs=2, batch_size=16, temperature=(2.0,), seeds=(1,), threads=1, device="cpu", block=16)


def three(path: Path, rng: np.random.Generator, rows: int = 90) -> tuple[list[str], np.ndarray]:
    """Stores of one member each, the later ones in another order and with gaps; and that of all three, of the rows of all."""
    x, y = rng.normal(size=(rows, 3)).astype(np.float32), rng.integers(0, 4, rows)
    z = rng.normal(size=(rows, 3, 4)) + 3 * np.eye(4)[y][:, None]
    own = [np.arange(rows), rng.permutation(rows)[5:], rng.permutation(rows)[:-7]]
    both = np.intersect1d(own[1], own[2])
    for member, at in enumerate(own):
        one = z[at, member : member + 1]
        from_arrays(path / str(member) / "train", one, inputs=x[at], labels=y[at])  # type: ignore[arg-type]
    from_arrays(path / "whole" / "train", z[both], inputs=x[both], labels=y[both])  # type: ignore[arg-type]
    return [str(path / str(member)) for member in range(3)], both


def three_ways(path: Path, rng: np.random.Generator) -> tuple[list[Any], np.ndarray]:
    """The store of all members, the merged one, and the list."""
    places, both = three(path, rng)
    merge(places, path / "merged", missing="skip")
    return [str(path / "whole"), str(path / "merged"), places], both


def test_merged_listed_and_of_one_pass(tmp_path: Path, rng: np.random.Generator) -> None:
    """Row for row at all temperatures and means; and students see the same batches."""
    sources, both = three_ways(tmp_path, rng)
    whole, merged, listed = stores = [Source.of(each).open(missing="skip")["train"] for each in sources]
    assert [store.rows for store in stores] == [len(both)] * 3
    for mean in ("arithmetic", "geometric", "tempered"):
        for temperature in (1.0, 2.0, 4.0):
            expected = whole.log_probs(range(len(both)), temperature=temperature, mean=mean)
            for store in (merged, listed):
                found = store.log_probs(range(len(both)), temperature=temperature, mean=mean)
                np.testing.assert_array_equal(found, expected)
    batches = []
    for source in sources:
        loader, _ = training_batches(open_splits(source, None, missing="skip"), TRAINING)
        batches.append([(b.rows, b.inputs, b.soft.log_probs(2.0)) for e in (0, 1) for b in loader.epoch(e)])  # type: ignore[union-attr]
    for other in batches[1:]:
        for (rows, inputs, soft), (own, theirs, also) in zip(batches[0], other, strict=True):
            np.testing.assert_array_equal(rows, own)
            assert torch.equal(inputs, theirs)
            assert torch.equal(soft, also)


@pytest.mark.slow
def test_students_end_with_the_same_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = []
    for number, source in enumerate(three_ways(tmp_path, rng)[0]):
        run = train(MLP, source, TRAINING, missing="skip", out=tmp_path / f"run{number}")
        files = sorted(run.path.rglob("weights.safetensors"))
        weights.append(torch.cat([w.flatten() for file in files for _, w in sorted(load_file(file).items())]))
    assert len(weights[0]) > 40
    assert max(float((weights[0] - each).abs().max()) for each in weights[1:]) <= 1e-6


def refused_alike(places: Sequence[Any], tmp_path: Path, said: str, **options: Any) -> None:
    """By `merge` and by a list with the same words."""
    with pytest.raises(errors.UserError, match=said) as one:
        merge(places, tmp_path / "out", **options)
    missing = options.pop("missing", "error")
    with pytest.raises(type(one.value)) as other:
        Source(tuple(places), **options).open(missing=missing)
    assert str(other.value) == str(one.value)


def test_what_is_refused_as_merge_refuses_it(tmp_path: Path, rng: np.random.Generator) -> None:
    def one(name: str, rows: Any = slice(None), **options: Any) -> Path:
        given = {"inputs": X[rows], "labels": Y[rows]} | options
        logits = np.random.default_rng(len(name)).normal(size=(60, 1, 4))[rows]
        from_arrays(tmp_path / name / "train", logits, **given)  # type: ignore[arg-type]
        return tmp_path / name

    a, twice, part = one("a"), one("two", np.r_[0:60, 5]), one("part", classes=["ant", "bee", "cow", "dog"])
    refused_alike([twice, a], tmp_path, "rows 5 and 60 of .* have one content key; give repeated=first")
    refused_alike([a, part], tmp_path, "label spaces share 3 of 4 and 4 classes")
    refused_alike([a, part], tmp_path, r"2 classes of .* are called 'bee' then \('bee', 'cow'\)", rename={"cow": "bee"})
    refused_alike([a, one("few...", slice(2, None))], tmp_path, "lacks 2 of the 60 rows .*missing=skip")
    refused_alike([a, a], tmp_path, "hold the same labels; name each store once")
    refused_alike([a, part / "train"], tmp_path, "is one split, and .* a folder of splits")
    data = sample(rng, 40)
    data = replace(data, logits=np.where(np.isinf(data.logits), np.float32(-9), data.logits))
    path: Any = tmp_path
    made(path / "mean", data, "zarr", reduce="geometric")
    made(path / "all", data, "zarr")
    refused_alike([tmp_path / "all", tmp_path / "mean"], tmp_path, "keeps the geometric mean of its members")
    [first] = Source((twice, a), repeated="first").open().values()
    assert first.rows == 60
    with pytest.raises(errors.ConfigError, match="repeated needs several stores, and there is one; name several"):
        Source((a,), repeated="first")
    with pytest.raises(errors.ConfigError, match="no store is named"):
        Source(())
    with pytest.raises(errors.UserError, match="are read as one and are not one store; `softlabels merge` makes one"):
        first.record(0)


def test_a_run_knows_all_its_stores(tmp_path: Path, rng: np.random.Generator) -> None:
    places, _ = three(tmp_path, rng, rows=60)
    said, training = list[str](), replace(TRAINING, epochs=1, baseline=False)
    given: dict[str, Any] = {"missing": "skip", "out": tmp_path / "run", "watch": Watch(said.append, said.append)}
    run = train(MLP, places, training, **given)
    own = [open_store(place).digest for place in places]
    assert any("train: 12 of 60 rows of" in line and "are not in all" in line for line in said)
    assert run.results["store"] == places
    assert run.results["digests"] == {"train": own}
    assert json.loads((run.path / "run.json").read_text())["stores"] == {"train": own}
    card = (run.path / "README.md").read_text()
    assert f"digest {' + '.join(f'`{digest}`' for digest in own)}" in card
    with pytest.raises(errors.RunExists, match=r"holds another run: .*stores.train\[1\]: "):
        train(MLP, [places[0], places[2], places[1]], training, **given)
    with pytest.raises(errors.RunExists, match="holds another run: several"):
        train(MLP, Source(tuple(places), repeated="first"), training, **given)
    assert train(MLP, places, training, **given).results == run.results
    assert list(judge(places, split="train", missing="skip")) == [
        "teacher 0: one", "teacher 1: one", "teacher 2: one", "ensemble"
    ]  # fmt: skip


def test_rows_in_another_order_and_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    """Chunks of the list are made when they are wanted; a store in another order is read often, which is said."""
    rows, classes = 128, 2048
    x, z = np.arange(rows, dtype=np.float32).reshape(rows, 1), rng.normal(size=(rows, 2, classes))
    one = MemoryPath()
    for member, order in enumerate([np.arange(rows), rng.permutation(rows)]):
        from_arrays(
            one / str(member), z[order, member : member + 1], inputs=x[order], classes=classes,
        )  # fmt: skip
    [joined] = Source((one / "0", one / "1")).open().values()
    assert isinstance(joined, Joined)
    [(second, times)] = joined.scattered()
    assert (second.path, times > 4) == (joined.stores[1].path, True)

    def peak(store: Store) -> int:
        loader = Loader(EmbeddedRows(store), store, batch_size=16, seed=0, block=16, window=2)
        for _ in loader.epoch(0):  # what is read once
            pass
        tracemalloc.start()
        for _ in loader.epoch(1):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    merge([one / "0", one / "1"], one / "out")
    chunk = joined.rows_per_chunk * joined.spec.row_bytes
    more = peak(joined) - peak(open_store(one / "out"))
    assert more <= 3 * chunk, f"{more / chunk:.2f} chunks"


def test_what_is_pinned_is_asked_of_each_store(tmp_path: Path, rng: np.random.Generator) -> None:
    places, _ = three(tmp_path, rng, rows=40)
    own, public = keys(tmp_path, "team")
    for place in places[:2]:
        sign(place, own)
    signed = Pinned(signed_by=public)
    assert list(Source(tuple(places[:2]), pinned=signed).open(missing="skip")) == ["train"]
    with pytest.raises(errors.NotSigned, match="2/train"):
        Source(tuple(places), pinned=signed).open(missing="skip")
    with pytest.raises(
        errors.ConfigError, match=r"pinned\.digest names one store a split, and 3 stores are read as one; pin"
    ):
        Source(tuple(places), pinned=Pinned(digest={"train": open_store(places[0]).digest})).open()
