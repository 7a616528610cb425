"""Labels in the formats of others, and back again."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from softlabels import open_store, write_store
from softlabels.errors import ConfigError, DamagedShard, StorageError, TransferSetError
from softlabels.jobs.export_labels import export_labels
from softlabels.jobs.import_labels import Foreign, import_labels
from softlabels.labels.topk import TopkEncoding
from softlabels_stages import export_labels as stage
from tests.jobs import foreign_files as files

imports = importlib.import_module("softlabels_stages.import").main


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory, rng_of: Any) -> tuple[Path, str]:
    """A store of tokens that are labelled in part, and its tokenizer."""
    folder, rng = tmp_path_factory.mktemp("lm"), rng_of("export")
    tokenizer = files.write_tokenizer(folder / "tokenizer")
    records = files.axolotl_rows(files.teacher(rng, (9, 14, 11, 8)), 6, 2)
    records[0]["logprobs"][3] = None
    files.write_lines(folder / "kd.jsonl", records)
    said = Foreign(tokenizer=tokenizer, known_at=1.0, aligned="own")
    import_labels(folder / "kd.jsonl", folder / "lm/train", from_format="axolotl", foreign=said)
    return folder / "lm", tokenizer


def test_a_round_trip_by_axolotl(lm: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, tokenizer = lm
    assert stage.main([str(store), f"--to={tmp_path / 'kd.parquet'}", "--to_format=axolotl"]) == 0
    said = capsys.readouterr().out
    assert "holds the 6 largest of each position" in said
    assert "log-probabilities at T=1, which the file does not say" in said
    row = pq.read_table(tmp_path / "kd.parquet").to_pylist()[0]
    lengths = {name: len(row[name]) for name in row}
    assert set(lengths.values()) == {9}
    assert row["target_mask"][-1] == [0] * 6  # nothing comes behind the last token
    assert row["labels"][0] == -100
    words = [
        f"--from={tmp_path / 'kd.parquet'}", f"--store={tmp_path / 'back/train'}", "--from_format=axolotl", "--known_at=1",
        f"--teacher_tokenizer={tokenizer}", "--teacher_name=theirs",
    ]  # fmt: skip
    assert imports(words) == 0
    assert "4 of 4 rows, 37 positions with labels" in capsys.readouterr().out
    one, other = open_store(store), open_store(tmp_path / "back")
    for name in ("content_key", "position_mask", "document", "input", "top_class", "top_logit"):
        assert np.array_equal(one.column(name), other.column(name)), name
    p, q = (each.probabilities(range(4), temperature=1.0) for each in (one, other))
    mask = one.column("position_mask") > 0
    np.testing.assert_allclose(p[mask], q[mask], atol=1e-6)
    assert imports(words) == 0  # it is there already
    capsys.readouterr()
    assert imports([*words, "--floor=0.1"]) == 2
    assert "--floor means nothing for files of axolotl" in capsys.readouterr().err
    assert imports([*words[:2], "--known_at=1"]) == 2
    assert "--known_at means nothing without --from_format" in capsys.readouterr().err


def test_a_round_trip_by_distillkit(tmp_path: Path, lm: tuple[Path, str]) -> None:
    capture = Path(__file__).parent / "distillkit/bins"
    said = Foreign(tokenizer=lm[1])
    import_labels(capture, tmp_path / "lm/train", from_format="distillkit", foreign=said)
    export_labels(tmp_path / "lm", tmp_path / "raw.parquet", to_format="distillkit-raw", k=9)
    with pytest.raises(ConfigError, match="do not give the temperature"):  # raw numbers are those of anybody
        import_labels(tmp_path / "raw.parquet", tmp_path / "back/train", from_format="distillkit", foreign=said)
    said = Foreign(tokenizer=lm[1], known_at=1.0)
    import_labels(tmp_path / "raw.parquet", tmp_path / "back/train", from_format="distillkit", foreign=said)
    one, other = open_store(tmp_path / "lm"), open_store(tmp_path / "back")
    assert np.array_equal(one.column("content_key"), other.column("content_key"))
    p, q = (each.probabilities([0], temperature=1.0)[0, :8] for each in (one, other))
    ids = np.argsort(-p, axis=-1)[:, :9]
    np.testing.assert_allclose(*(np.take_along_axis(each, ids, -1) for each in (p, q)), atol=1e-3)
    np.testing.assert_allclose(q.sum(-1), 1)


def test_rows_that_are_labelled_in_part_stay_whole(tmp_path: Path, lm: tuple[Path, str]) -> None:
    export_labels(lm[0], tmp_path / "raw.parquet", to_format="distillkit-raw")
    row = pq.read_table(tmp_path / "raw.parquet").to_pylist()[0]
    mask = open_store(lm[0]).column("position_mask")
    labelled = [label >= 0 for label in row["labels"]]  # as DistillKit's trainer masks positions
    assert labelled == [*(mask[0, : len(labelled) - 1] > 0), False]
    assert set(row["attention_mask"]) == {1}  # the teacher saw all of it
    said = Foreign(tokenizer=lm[1], known_at=1.0)
    import_labels(tmp_path / "raw.parquet", tmp_path / "back/train", from_format="distillkit", foreign=said)
    one, other = open_store(lm[0]), open_store(tmp_path / "back")
    for name in ("content_key", "position_mask", "document", "input", "top_class", "top_logit"):
        assert np.array_equal(one.column(name), other.column(name)), name


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_a_round_trip_of_all_outputs(
    ending: str, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {"kind": rng.normal(size=(40, 3, 2, 4)), "box": rng.normal(size=(40, 3, 2, 5))}
    mask = (np.arange(3) < rng.integers(1, 4, (40, 1))).astype(np.uint8)
    labels = {"kind": np.where(mask > 0, rng.integers(0, 4, (40, 3)), -1)}
    inputs = rng.normal(size=(40, 3, 6)).astype(np.float32)
    kinds: Any = {"kind": "softmax", "box": "values"}
    write_store(tmp_path / "one/train", outputs, inputs=inputs, labels=labels, mask=mask, kind=kinds)
    file = tmp_path / f"all.{ending}"
    assert export_labels(tmp_path / "one", file, to_format=ending) == []  # type: ignore[arg-type]  # one of them
    words = [
        "--targets.kind.kind=softmax",
        "--targets.box.kind=values",
        "--members=2",
        "--positions=3",
        "--inputs=embed",
    ]
    assert imports([str(file), str(tmp_path / "back/train"), *words]) == 0
    one, other = open_store(tmp_path / "one"), open_store(tmp_path / "back")
    for name in ("content_key", "input", "position_mask", "kind.label", "box.values", "kind.shift"):
        assert np.array_equal(one.column(name), other.column(name), equal_nan=True), name
    np.testing.assert_allclose(one.column("kind.logits"), other.column("kind.logits"), atol=1e-6)


def test_what_a_format_cannot_hold(tmp_path: Path, lm: tuple[Path, str], rng: np.random.Generator) -> None:
    write_store(tmp_path / "dense/train", rng.normal(size=(40, 2, 4)), inputs=rng.normal(size=(40, 3)))
    for words, match in (
        ({"to_format": "axolotl"}, "labels no tokens, and axolotl is rows of tokens; export it as parquet or npz"),
        ({"to_format": "pickle"}, "there is no format 'pickle'; choose one of axolotl"),
        ({"to_format": "npz"}, r"does not end in \.npz"),
        (
            {"to_format": "parquet", "temperature": 2.0},
            "temperature and k are of log-probabilities; .* all outputs of all members .*; leave them out",
        ),
        ({"to_format": "parquet", "k": 2}, "temperature and k are of log-probabilities"),
    ):
        with pytest.raises(ConfigError, match=match):
            export_labels(tmp_path / "dense", tmp_path / "x.parquet", **words)
    with pytest.raises(ConfigError, match="known at temperature 1 only, not at 2"):
        export_labels(lm[0], tmp_path / "x.parquet", to_format="axolotl", temperature=2.0)
    with pytest.raises(ConfigError, match=r"k is 7, and .* keeps 6 classes; give --k from 1 to 6"):
        export_labels(lm[0], tmp_path / "x.parquet", to_format="axolotl", k=7)
    assert [each.name for each in tmp_path.iterdir()] == ["dense"]  # nothing half written
    golden = Path(__file__).parent.parent / "store/golden/v2-ragged-arrow"  # whose inputs somebody else prepared
    with pytest.raises(TransferSetError, match=r"token rows are integers \(rows, 2, tokens\)"):
        export_labels(golden, tmp_path / "x.parquet", to_format="axolotl", k=2)
    export_labels(lm[0], tmp_path / "x.parquet", to_format="parquet")
    with pytest.raises(StorageError, match="is there already"):
        export_labels(lm[0], tmp_path / "x.parquet", to_format="parquet")
    row = pq.read_table(tmp_path / "x.parquet").to_pylist()[1]
    total = np.exp(row["log_probs"][2]).sum() + row["rest"][2]
    assert total == pytest.approx(1, abs=1e-5)


def test_ensembles_give_their_mean(rng: np.random.Generator) -> None:
    z = rng.normal(size=(20, 2, 9)).astype(np.float32) * 3
    encoding = TopkEncoding(k=4, tail="uniform")
    columns, _ = encoding.encode(torch.from_numpy(z))
    known: dict[str, Any] = {"temperature": 2.0, "mean": "arithmetic", "weights": [0.5, 0.5]}
    ids, log_p = encoding.largest_log_probs(columns, 9, None, k=3, **known)
    exact = encoding.log_probs(columns, 9, None, **known)
    assert np.array_equal(ids, np.argsort(-exact, axis=-1)[:, :3])
    np.testing.assert_allclose(log_p, -np.sort(-exact, axis=-1)[:, :3])
    one = {name: values[:, :1] for name, values in columns.items()}
    alone = {**known, "weights": [1.0]}
    for k in (2, 4):  # by its own columns, and by all classes
        found = encoding.largest_log_probs(one, 9, None, k=k, **alone)
        wide = super(TopkEncoding, encoding).largest_log_probs(one, 9, None, k=k, **alone)
        assert np.array_equal(found[0], wide[0])
        np.testing.assert_allclose(found[1], wide[1])


def test_a_store_that_is_damaged_in_its_middle(tmp_path: Path, rng: np.random.Generator) -> None:
    """An error, and no file; a writer that is given up says nothing, or the test would fail of what it says when it goes."""
    write_store(tmp_path / "store", rng.normal(size=(40, 2, 3)), inputs=np.eye(40), split="train", rows_per_shard=16)
    last = sorted((tmp_path / "store/logits").glob("c*"))[-1]
    last.write_bytes(bytes(last.stat().st_size))
    with pytest.raises(DamagedShard, match="differs from its digest"):
        export_labels(tmp_path / "store", tmp_path / "labels.parquet", to_format="parquet")
    gc.collect()
    assert not [*tmp_path.glob("labels*")]
