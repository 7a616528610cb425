"""Outputs that contradict: one content key twice with other outputs, at every door and however rows are cut."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.checks.contradictions import apart, repeats, require_consistent
from softlabels.errors import ContradictingOutputs, UnsealedStore
from softlabels.labels.encoding import DenseEncoding, TopkEncoding
from softlabels.store import StoreWriter, open_store
from softlabels.store.convert import convert
from softlabels.store.new_spec import store_spec
from softlabels.store.repair import repair
from softlabels.store.verify import verify
from softlabels.teacher.label import label_rows
from softlabels.transfer import array_keys
from softlabels_stages import encode, train_student
from softlabels_stages import verify as verify_stage
from tests.checks import samples
from tests.checks.samples import CLASSES, exact, live, rows_of, softmax, some_rows
from tests.labels.dense_reference import dense_columns

ROWS = 96
WHAT = "rows of .* whose content key an earlier row has, too, have other outputs"


@pytest.fixture
def keys(rng: np.random.Generator) -> np.ndarray:
    """Rows 48 on repeat rows 0 on: keys repeat across shards."""
    own = array_keys(some_rows(rng, ROWS // 2))
    return np.concatenate([own, own])


def logits(rng: np.random.Generator, *, wrong: int = 0, noise: float = 1e-6) -> np.ndarray:
    """Logits (R, C) of which the second half repeats the first but for rounding, and `wrong` rows contradict it."""
    half = rng.normal(size=(ROWS // 2, CLASSES)) * 4
    again = half * (1 + noise * rng.normal(size=half.shape))
    again[:wrong] = half[:wrong][:, ::-1]
    return np.concatenate([half, again]).astype(np.float32)


def test_repeats(rng: np.random.Generator) -> None:
    keys = rng.integers(0, 256, (300, 16), np.uint8)
    keys[:, 8:] = keys[0, 8:]  # that share one half
    keys[200:] = keys[rng.integers(0, 50, 100)]
    first: dict[bytes, int] = {}
    expected = sorted(
        (first[key.tobytes()], row) for row, key in enumerate(keys) if first.setdefault(key.tobytes(), row) != row
    )
    rows, firsts = repeats(keys)
    assert list(zip(firsts.tolist(), rows.tolist(), strict=True)) == expected
    assert repeats(keys[:200])[0].size == 0


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_rounding_is_no_contradiction(rng: np.random.Generator, precision: str) -> None:
    """Against float64: what the teacher's arithmetic rounds passes, and what moves a probability by 5% does not."""
    z = rng.normal(size=(200, 1, 10)) * 8 + rng.normal(size=(200, 1, 1)) * 20
    rounded = torch.tensor(z).to(getattr(torch, precision)).double().numpy()
    assert dense_apart(_columns(z), _columns(rounded), precision=precision).max() == 0
    moved = z.copy()
    moved[:, 0, 0] += 20
    gap = np.abs(softmax(z) - softmax(moved)).max(axis=(1, 2))
    found = dense_apart(_columns(z), _columns(moved), precision=precision)
    if precision != "bfloat16":  # where logits of 80 may be off by 16
        assert (found[gap > 5e-3] > 0).all()
    assert (found <= gap + 2e-3).all()
    assert np.abs(found - gap)[found > 0].max() < 2e-3


def test_classes_that_are_impossible(rng: np.random.Generator) -> None:
    z = rng.normal(size=(3, 1, 4))
    z[:, :, 0] = -np.inf
    assert dense_apart(_columns(z), _columns(z), precision="float32").max() == 0
    tiny = np.where(np.isneginf(z), -110.0, z)  # a probability of 1e-48, which float32 does not hold
    assert dense_apart(_columns(z), _columns(tiny), precision="float32").max() == 0
    votes = np.where(np.isneginf(z), z.max(axis=-1, keepdims=True) - 3, z)
    assert dense_apart(_columns(z), _columns(votes), precision="float32").min() > 0.01


@pytest.mark.parametrize("members", [1, 2])
def test_topk_as_dense(rng: np.random.Generator, members: int) -> None:
    """What the stored classes show of two distributions is no more than is true, and large differences show."""
    encoding = TopkEncoding(k=8, tail="uniform", nodes=4)
    one = rng.normal(size=(100, members, 30)) * 3
    other = one + np.where(np.arange(100)[:, None, None] % 2, rng.normal(size=one.shape) * 2, 1e-6)
    columns = [encoding.encode(torch.tensor(z, dtype=torch.float32))[0] for z in (one, other)]
    found = apart(*columns, precision="float32", encoding=encoding, classes=30)
    gap = np.abs(softmax(one) - softmax(other)).max(axis=(1, 2))
    assert (found[::2] == 0).all()
    assert (found <= gap + 5e-3).all()
    assert (found[gap > 0.3] > 0.1).all()


def _columns(z: np.ndarray) -> dict[str, np.ndarray]:
    return dense_columns(z)._asdict()


def dense_apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray], precision: str) -> np.ndarray:
    return apart(one, other, encoding=DenseEncoding(), classes=one["logits"].shape[-1], precision=precision)


@pytest.mark.parametrize("rows_per_shard", [16, 32, 96])
def test_store_writer(rng: np.random.Generator, work: Path, keys: np.ndarray, rows_per_shard: int) -> None:
    for name, wrong in (("honest", 0), ("wrong", 7)):
        with samples.writer_of(work / name, keys, rows_per_shard=rows_per_shard) as writer:
            samples.fill(writer, logits(rng, wrong=wrong), keys)
            if not wrong:
                writer.seal()
                continue
            with pytest.raises(
                ContradictingOutputs, match=rf"7 of the 48 {WHAT}: row 48 \(as row 0, .*key: node"
            ) as error:
                writer.seal()
            assert "row 52 (as row 4" in str(error.value)
            assert "and 2 more" in str(error.value)
    assert open_store(work / "honest").rows == ROWS
    with pytest.raises(UnsealedStore):
        open_store(work / "wrong")


def test_a_writer_that_resumes_reads_what_stands_there(rng: np.random.Generator, work: Path, keys: np.ndarray) -> None:
    z = logits(rng, wrong=3)
    for shard in range(3):
        with samples.writer_of(work / "s", keys) as writer:
            at = slice(*writer.rows_of(shard))
            writer.write_logits(shard, keys=keys[at], labels=np.full(32, -1), logits=z[at, None])
    with (
        samples.writer_of(work / "s", keys) as writer,
        pytest.raises(ContradictingOutputs, match=f"3 of the 48 {WHAT}"),
    ):
        writer.seal()


def test_topk_columns(rng: np.random.Generator, work: Path, keys: np.ndarray) -> None:
    encoding = TopkEncoding(k=2, tail="uniform", nodes=4)
    spec = store_spec(encoding, teacher="it", name="rows", keys=keys, classes=CLASSES)
    for name, wrong in (("honest", 0), ("wrong", 7)):
        columns, lost = encoding.encode(torch.tensor(logits(rng, wrong=wrong))[:, None])
        with StoreWriter(work / name, spec) as writer:
            writer.write_columns(0, keys=keys, labels=np.full(ROWS, -1), columns=columns, fidelity=lost)
            if not wrong:
                writer.seal()
                continue
            with pytest.raises(ContradictingOutputs, match=rf"\d of the 48 {WHAT}"):
                writer.seal()


def test_hard_labels_may_contradict(rng: np.random.Generator, work: Path, keys: np.ndarray) -> None:
    with samples.writer_of(work / "s", keys) as writer:
        samples.fill(writer, logits(rng), keys, np.arange(ROWS) % CLASSES)
        writer.seal()


def test_live_teacher(rng: np.random.Generator, work: Path) -> None:
    """Equal keys with other inputs, as of a graph's nodes or of inputs that are prepared at random."""
    inputs = some_rows(rng, ROWS)
    same = np.concatenate([inputs[:48], inputs[:48]])
    ensemble = live(samples.Model(), batch_size=7)  # equal rows stand in other batches
    rows = rows_of(same)
    with samples.writer_of(work / "honest", rows.keys, teacher_batch=7) as writer:
        label_rows(rows, ensemble, writer)
    expected = softmax(exact(same))
    assert np.abs(np.exp(open_store(work / "honest").log_probs(range(ROWS), temperature=1.0)) - expected).max() < 2e-3
    other = replace(rows, inputs=inputs)
    writer = samples.writer_of(work / "wrong", rows.keys, teacher_batch=7)
    with writer, pytest.raises(ContradictingOutputs, match=f"48 {WHAT}"):
        label_rows(other, ensemble, writer)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_import_says_so_before_it_begins_a_store(
    rng: np.random.Generator, work: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = import_module("softlabels_stages.import").main
    inputs = np.concatenate([some_rows(rng, 48)] * 2)
    z = logits(rng, wrong=20)
    values = {"logits": z, "probabilities": softmax(z).astype(np.float32)}[kind]
    np.savez("f.npz", **{kind: values}, inputs=inputs, node=np.arange(ROWS))  # type: ignore[arg-type]
    assert main(["f.npz", "s/train"]) == 2
    said = capsys.readouterr().err
    assert "20 of the 48 rows of f.npz whose content key" in said
    assert "--key of import" in said
    assert not Path("s").exists()
    assert main(["f.npz", "s/train", "--key=node"]) == 0  # the remedy
    store = open_store("s/train")
    assert store.spec.transfer_set.key == "node"
    assert np.abs(np.exp(store.log_probs(range(ROWS), temperature=1.0)) - softmax(z)).max() < 2e-3
    np.savez("f.npz", **{kind: values[:48]}, inputs=inputs[:48])  # type: ignore[arg-type]
    assert main(["f.npz", "other/train"]) == 0  # the other


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_import_of_honest_repeats(rng: np.random.Generator, work: Path, dtype: str) -> None:
    """Probabilities that were rounded twice, once after the noise of another batch."""
    p = softmax(logits(rng, noise=1e-7)).astype(dtype)
    np.savez("f.npz", probabilities=p, inputs=np.concatenate([some_rows(rng, 48)] * 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_module("softlabels_stages.import").main(["f.npz", "s/train"]) == 0


def test_the_other_doors_are_no_stricter_than_import(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Probabilities of a teacher in float16, whose equal rows stood in other batches."""
    p = softmax(logits(rng, noise=2e-3)).astype(np.float16)
    np.savez("f.npz", probabilities=p, inputs=np.concatenate([some_rows(rng, 48)] * 2))
    assert import_module("softlabels_stages.import").main(["f.npz", "s/train"]) == 0
    assert verify_stage.main(["s"]) == 0
    assert encode.main(["s", "topk", "--k=2", "--tail=uniform", "--device=cpu"]) == 0
    assert "ContradictingOutputs" not in capsys.readouterr().err


def test_a_store_of_an_earlier_version(
    rng: np.random.Generator, work: Path, keys: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays readable, verifiable, convertible and repairable; a word is said; it is not encoded anew."""
    z = logits(rng, wrong=20)
    store = samples.earlier(work / "s", z, keys)
    assert np.abs(np.exp(store.log_probs(range(ROWS), temperature=1.0)) - softmax(z)).max() < 2e-3
    assert store.find(keys[48:]).tolist() == list(range(48))
    assert verify(work / "s") == []
    convert(work / "s", work / "arrow", layout="arrow")
    (work / "s" / "manifest.json").unlink()
    repair(work / "s")
    assert open_store(work / "s").digest == store.digest
    assert verify_stage.main(["s"]) == 0
    assert "train: warning: ContradictingOutputs: 20 of the 48 rows of s whose" in capsys.readouterr().err
    assert encode.main(["s", "topk", "--k=2", "--tail=uniform", "--device=cpu"]) == 2
    assert "ContradictingOutputs: 20 of the 48 rows of s" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
def test_repair_does_not_seal_what_sealing_refused(
    rng: np.random.Generator, work: Path, keys: np.ndarray, layout: str
) -> None:
    with samples.writer_of(work / "s", keys, layout=layout) as writer:
        samples.fill(writer, logits(rng, wrong=20), keys)
        for seal in (writer.seal, lambda: repair(work / "s")):
            with pytest.raises(ContradictingOutputs, match=WHAT):
                seal()
            writer.close()
    with pytest.raises(UnsealedStore):
        open_store(work / "s")


def test_a_student_of_such_a_store_is_told(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.checks.recipes import write_recipe

    write_recipe(work / "r.yaml")
    inputs = np.concatenate([some_rows(rng, 48)] * 2)
    for split in ("train", "test"):
        samples.earlier(work / "s" / split, logits(rng, wrong=20), array_keys(inputs), split=split, embed=inputs)
    assert train_student.main(["--config=r.yaml", "--store=s", "--out=run"]) == 0
    assert "train: warning: ContradictingOutputs: 20 of the 48 rows of s/train" in capsys.readouterr().err


def test_many_repeats_anywhere_do_not_read_a_store_many_times(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of each key in shuffled order, as of epochs one after the other. Seen to fail: a row was read 125 times."""
    count, read = 2000, np.zeros(4000, np.int64)
    own, order = rng.integers(0, 256, (count, 16), np.uint8), rng.permutation(count)
    z = rng.normal(size=(count, 1, CLASSES))
    columns = {name: np.concatenate([values, values[order]]) for name, values in _columns(z).items()}

    def rows(numbers: np.ndarray) -> dict[str, np.ndarray]:
        chunks = np.unique(numbers // 16)
        read[(chunks[:, None] * 16 + np.arange(16)).reshape(-1)] += 1
        return {name: values[numbers] for name, values in columns.items()}

    monkeypatch.setattr("softlabels.checks.contradictions._BYTES", 16 * 100)
    ask = partial(
        require_consistent, np.concatenate([own, own[order]]), rows, partial(dense_apart, precision="float32"), row_bytes=100,
        where="these",
    )  # fmt: skip
    ask()
    assert read.max() <= 2 * 8
    assert (read[2000:] > 0).any()
    columns["logits"][2000:] = columns["logits"][2000:][..., ::-1]
    with pytest.raises(ContradictingOutputs, match=rf"1\d\d of the 128 {WHAT}"):
        ask()
