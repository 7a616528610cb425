"""The card: what it says of an encoding, and that the lines which it shows do load the store."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.topk_reference import stored_log_probs
from softlabels.store import Store, open_store
from softlabels.store.card import root_card, store_card
from tests.report.test_model_card import HOSTILE, front_matter, with_names
from tests.store.samples import ALL, LOWRANK, Sample, make_spec, sample, topk, write_store

pytestmark = pytest.mark.on_disk("the lines on a card load a path")
FENCED = re.compile(r"(?ms)^```python\n(.*?)^```$")


def run(store: Store, block: int) -> dict[str, np.ndarray]:
    """What a block of Python on the card leaves behind."""
    card = (store.path / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    found: dict[str, np.ndarray] = {}
    exec(blocks[block].replace("PATH", str(store.path)), found)
    return found


@pytest.mark.parametrize("kind", ALL)
def test_the_card_of_each_kind_loads_it(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    data = sample(rng, 20, kind)
    store = write_store(tmp_path / "store", data, make_spec(data, kind))
    for number, (name, each) in enumerate(data.parts.items()):
        one, plain, found = store.only(name), run(store, 2 * number), run(store, 2 * number + 1)
        ours = found[{"softmax": "log_p", "sigmoid": "p", "values": "values"}[each.kind]]
        assert ours.shape == (8, one.classes) if store.positions is None else (8, 5, one.classes)
        if each.soft is None:
            assert len(plain["values" if each.kind == "values" else "logits"]) == 20
        else:
            assert_decodes(one, plain)


def assert_decodes(store: Store, plain: dict[str, np.ndarray]) -> None:
    """The first row by the card's lines against the reference."""
    columns = {name: store.gather(name, [0])[0] for name in store.soft_columns}
    if store.spec.ragged:
        columns = {name: values[: store.gather("positions", [0])[0]] for name, values in columns.items()}
    assert isinstance(store.encoding, TopkEncoding)
    ids, log_p, log_tail = stored_log_probs(columns, store.encoding, store.classes, 4.0)
    assert np.array_equal(plain["ids"], ids)
    assert np.allclose(plain["p"], np.exp(log_p), rtol=1e-9)
    assert np.allclose(plain["tail_mass"], np.exp(log_tail), rtol=1e-9)


@pytest.mark.parametrize("kind", ["topk-zarr", "topk-arrow"])
@pytest.mark.parametrize(
    ("classes", "k", "tail", "nodes"),
    [
        pytest.param(65_536, 300, "uniform", 2, marks=pytest.mark.slow),
        (140_000, 64, "uniform", 6),
        pytest.param(1 << 20, 300, "bucket", 3, marks=pytest.mark.slow),
        ((1 << 20) + 1, 9, "renormalised", 0),
    ],
)
def test_class_ids_of_every_width(
    tmp_path: Path, rng: np.random.Generator, kind: str, classes: int, k: int, tail: str, nodes: int
) -> None:
    encoding = TopkEncoding(k=k, tail=tail, nodes=nodes, beta_max=2.0 if nodes else 1.0)  # type: ignore[arg-type]
    store = write_store(tmp_path / "store", *sparse(rng, kind, encoding, classes))
    columns = {name: store.column(name) for name in store.soft_columns}
    ids = stored_log_probs(columns, encoding, classes, 1.0)[0]
    assert ids.max() == classes - 1
    assert_decodes(store, run(store, 0))


def test_the_hub_reads_the_card(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 20, "arrow")
    manifest = write_store(tmp_path / "store", data, make_spec(data, "arrow")).manifest
    read = DatasetCard(root_card({"a": manifest, "b": manifest})).data.to_dict()
    files = [{"split": split, "path": f"{split}/*.arrow"} for split in "ab"]
    assert read["configs"] == [{"config_name": "default", "data_files": files}]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_in_their_places(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    """Those of a recipe, or of whoever made the store."""
    data = sample(rng, 20, "zarr")
    manifest = write_store(tmp_path / "store", data, make_spec(data, names=True, reduce="geometric")).manifest
    spec = manifest.spec
    hostile = with_names(manifest, name)
    plain = msgspec.structs.replace(
        manifest,
        spec=msgspec.structs.replace(spec, transfer_set=msgspec.structs.replace(spec.transfer_set, revision="r")),
    )
    for bad, good in (
        (store_card(hostile), store_card(plain)),
        (root_card({name: hostile, "b": hostile}), root_card({"a": plain, "b": plain})),
    ):
        (head, page), (plain_head, plain_page) = front_matter(bad), front_matter(good)
        assert set(head) == {*plain_head, "license", "license_name"}
        for mark in ("\n#", "\n```", "\n---", "\n- ", "\n  - ", "\n|"):
            assert page.count(mark) == plain_page.count(mark), mark
        blocks = [re.findall(FENCED, text) for text in (page, plain_page)]
        for block, plain_block in zip(*blocks, strict=True):
            assert len(block.splitlines()) == len(plain_block.splitlines())
            compile(block, "card", "exec")
        outside_code = re.sub(r"`[^`\n]*`", "", FENCED.sub("", page))
        outside_code = re.sub(r"(?m)^\| \[(.*)\]\([^()\s]*/README.md\) \|", r"\1", outside_code)
        assert not re.search(r"(?<!\\)[<\[`]", outside_code)
        assert not re.search("[\x00-\x09\x0b-\x1f\u2028\u202e]", bad)


def sparse(rng: np.random.Generator, kind: str, encoding: TopkEncoding, classes: int) -> tuple[Sample, object]:
    """Rows of one member with labels of this encoding, and their specification."""
    soft, _ = topk(rng, (20,), encoding, members=1, classes=classes)
    part = sample(rng, 20, members=1)
    data = Sample(part.keys, part.labels, part.logits, part.inputs, soft, encoding=encoding, classes=classes)
    return data, make_spec(data, kind)


def test_what_the_card_says_of_sizes(tmp_path: Path, rng: np.random.Generator) -> None:
    data = sample(rng, 20, "topk-zarr")
    store = write_store(tmp_path / "store", data, make_spec(data, "topk-zarr"))
    card = (store.path / "README.md").read_text()
    each = 2 * (3 * 2 + 3 * 2 + 5 * 2 + 1 + 2 + 2 * 2 + 2)  # members x (ids, logits, mass, coefficients, scales, label)
    assert store.manifest.bytes_per_position == each
    assert f"{each} bytes a position; layout zarr" in card
    assert "topk, the k = 3 largest logits" in card
    assert "tail: lowrank, shared among its classes by a prior and 4 basis vectors" in card
    assert "(70 bytes in `tail_basis/c.0.0`)" in card
    assert store.manifest.bytes == 70 + sum(
        file.size for shard in range(store.spec.shards) for file in store.payload(shard).files.values()
    )


@pytest.mark.parametrize("kind", ["sequence-zarr", "sequence-zstd", "sequence-arrow", "ragged-arrow"])
def test_bytes_of_a_position_of_sequences(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    """Mask (1) and document (2) count, ragged rows by the positions that they have."""
    data = sample(rng, 80, kind)
    store = write_store(tmp_path / "store", data, make_spec(data, kind))
    each = 2 * (3 * 2 + 3 * 2 + 5 * 2 + 1 + 2 + 2 * 2 + 2) + 3
    assert (store.manifest.bytes_per_position == each) == (kind != "sequence-zstd")
    assert "5 positions a row" in (store.path / "README.md").read_text()
    again = open_store(store.path)
    assert again.encoding == msgspec.structs.replace(LOWRANK, inputs="embed", basis=again.encoding.basis)  # type: ignore[union-attr]
