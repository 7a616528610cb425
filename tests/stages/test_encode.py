"""encode: a dense store's labels as topk, from the outside and against the definition."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels import array_keys
from softlabels.labels.encoding import TopkEncoding
from softlabels.store import Store, StoreWriter, new_spec, open_store
from softlabels.store.shard_writer import ShardWriter
from softlabels.store.verify import verify
from softlabels_stages import convert, encode
from tests.stages import toy
from tests.store.samples import Sample, make_spec, sample, write_store


def encoded(*words: str, source: str = "store", target: str = "sparse") -> int:
    return encode.main([f"--from={source}", f"--store={target}", *words])


def test_every_split_of_a_root(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoded("--encoding=topk", "--k=2", "--rank=1", "--nodes=9") == 0
    said = capsys.readouterr().out
    before, after = (open_store(path, split="train") for path in (store, "sparse"))
    each = 2 * (2 * 2 + 2 * 2 + (2 + 8) * 2 + 1 + 2 + 2)
    assert f"{before.manifest.bytes_per_position:.1f} -> {each}.0 bytes a position" in said
    assert after.encoding == TopkEncoding(k=2, rank=1, fine=1, nodes=9, basis=after.spec.encoding.basis)  # type: ignore[union-attr]
    assert open_store("sparse", split="test").spec.encoding == after.encoding  # one basis for all splits
    for split in ("train", "test"):
        one, two = (open_store(path, split=split) for path in (store, "sparse"))
        assert verify(two.path) == []
        for name in ("content_key", "label"):
            assert two.column(name).tobytes() == one.column(name).tobytes()
        assert_faithful(one, two)
    assert Path("sparse/zarr.json").exists()
    made_of = f"encoded from the dense labels {before.content_digest[:16]}"
    assert after.manifest.about.source == made_of


@pytest.mark.parametrize("sealed", [True, False])
def test_labels_of_two_dense_stores_are_not_mixed(
    store: Path, sealed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What specifications do not tell: the same teacher by name, and other logits."""
    toy.write_store(Path("other/store"), impossible=True)
    words = ("--k=2", "--tail=uniform")
    assert encoded(*words) == 0
    if not sealed:
        Path("sparse/test/manifest.json").unlink()
    before = open_store("sparse", split="train").digest
    assert encoded(*words, source="other/store") == 2
    assert (
        "SpecMismatch: sparse/test was begun from other values (encoded from the dense labels "
        in capsys.readouterr().err
    )
    assert convert.main([f"--from={store}", "--store=arrow"]) == 0  # the same labels in another layout
    assert encoded(*words, "--layout=zarr", source="arrow") == 0
    assert open_store("sparse", split="train").digest == before


def test_the_lowest_temperature_has_its_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoded("--k=2", "--rank=1", "--min_temperature=0.5", source="store/train") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[5:-1]] == ["0.5", "1", "2", "4", "8", "20"]
    dense, sparse = open_store("store/train"), open_store("sparse")
    assert sorted(map(float, sparse.manifest.fidelity)) == [0.5, 1, 2, 4, 8, 20]
    rows, kl = range(dense.rows), []
    for weights in np.eye(dense.members):
        p, q = (one.log_probs(rows, temperature=0.5, weights=weights) for one in (dense, sparse))
        kl.append((np.exp(p) * (p - q)).sum(axis=-1))
    line = sparse.manifest.fidelity["0.5"]
    assert line.kl_max == pytest.approx(np.max(kl), rel=1e-4, abs=1e-6)
    assert line.kl_mean == pytest.approx(np.mean(kl), rel=1e-4, abs=1e-6)
    assert "| 0.5 | " in Path("sparse/README.md").read_text()
    assert verify(sparse.path) == []


@pytest.mark.parametrize("kind", ["zarr", "tokens-zarr", "ragtokens-arrow"])
@pytest.mark.parametrize("tail", ["lowrank", "uniform"])
def test_trying_writes_nothing_and_shows_what_encoding_would(
    work: Path, rng: np.random.Generator, kind: str, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of few distributions all are tried, so that the figures are those of the encoded store."""
    data = tokens(rng, 70, kind) if "tokens" in kind else sample(rng, 70, kind)
    write_store(work / "store", data, make_spec(data, kind, rows_per_shard=32))
    before = sorted(work.rglob("*"))
    words = ["--k=2", "--rank=2", f"--tail={tail}", "--device=cpu"]
    assert encode.main(["--try", "--from=store", *words]) == 0
    title, *tried, last = capsys.readouterr().out.splitlines()
    assert sorted(work.rglob("*")) == before
    assert title.startswith("train: ")
    assert "nothing was written" in last
    assert encoded(*words) == 0
    made, *lines, _ = capsys.readouterr().out.splitlines()[-len(tried) - 2 :]
    assert lines == tried
    assert title.partition("-> ")[2] == made.rpartition("-> ")[2]


@pytest.mark.parametrize("mark", [-1e4, -np.inf])
def test_impossible_classes_that_are_marked_by_a_number_are_worth_a_word(
    work: Path, rng: np.random.Generator, mark: float, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, logits = np.arange(64)[:, None], rng.normal(0, 3, (64, 1, 500))
    logits[..., 20:] = mark
    keys = array_keys(inputs)
    with StoreWriter("dense", new_spec.store_spec(teacher="mine", name="rows", keys=keys, classes=500)) as writer:
        writer.write_logits(0, keys=keys, labels=np.full(64, -1), logits=logits)
        writer.seal()
    for words in (["--try"], ["--store=sparse"]):
        assert encode.main(["--from=dense", "--k=8", "--tail=uniform", *words]) == 0
        said = capsys.readouterr().out
        assert ("the tail's mass is off by up to 0." in said) == (mark == -1e4)
        assert ("impossible classes with -inf" in said) == (mark == -1e4)


def assert_faithful(dense: Store, sparse: Store) -> None:
    """Each member's largest class keeps its probability at any temperature, and the table says what was lost."""
    rows = np.arange(dense.rows)
    real = np.ones(dense.rows, bool) if dense.positions is None else dense.column("position_mask") == 1
    for weights in np.eye(dense.members):
        for temperature in (1.0, 2.0, 8.0):
            exact, stored = (
                np.exp(one.log_probs(rows, temperature=temperature, weights=weights))[real] for one in (dense, sparse)
            )
            top = exact.argmax(axis=-1)[:, None]
            assert np.abs(np.take_along_axis(exact - stored, top, axis=-1)).max() < 0.02
            assert np.abs(stored.sum(axis=-1) - 1).max() < 1e-9
    fidelity = sparse.manifest.fidelity
    assert 0 < fidelity["1"].kl_mean < 0.1  # type: ignore[operator]
    assert fidelity["1"].tail_mass_error < 0.01


@pytest.mark.parametrize("tail", ["lowrank", "prior", "uniform", "renormalised"])
def test_every_tail(store: Path, tail: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoded(f"--tail={tail}", "--k=3", "--rank=2", "--layout=arrow", source="store/test") == 0
    made = open_store("sparse")
    assert (made.layout, made.soft_columns[-1], verify(made.path)) == ("arrow", "label_logit", [])
    assert (made.basis is None) == (tail in ("uniform", "renormalised"))
    assert ("infinite" in capsys.readouterr().out) == (tail == "renormalised")


def test_label_logits_are_those_of_the_labels(store: Path) -> None:
    assert encoded("--tail=uniform", "--k=1") == 0
    dense, made = open_store(store, split="train"), open_store("sparse", split="train")
    label, logits, found = dense.column("label"), dense.column("logits"), made.column("label_logit")
    assert (label >= 0).any()
    assert np.isnan(found[label < 0]).all()
    rows = np.flatnonzero(label >= 0)
    assert np.array_equal(found[rows], logits[rows, :, label[rows]])


def tokens(rng: np.random.Generator, rows: int, kind: str) -> Sample:
    """Dense sequences whose inputs are their tokens."""
    data = sample(rng, rows, kind)
    assert data.document is not None
    assert data.mask is not None
    last = np.where(data.mask[:, -1:] == 1, data.document[:, -1:], 0)
    inputs = np.stack([rng.integers(0, 7, (rows, 6)), np.concatenate([data.document, last], axis=1)], axis=1)
    return replace(data, inputs=inputs.astype(np.int32))


@pytest.mark.parametrize("kind", ["tokens-zarr", "ragtokens-arrow"])
def test_sequences(work: Path, rng: np.random.Generator, kind: str) -> None:
    data = tokens(rng, 70, kind)
    dense = write_store(work / "store", data, make_spec(data, kind))
    assert encoded("--k=2", "--rank=3", "--nodes=9") == 0
    made = open_store("sparse")
    assert verify(made.path) == []
    assert (made.positions, made.spec.ragged, made.spec.label_space) == (5, data.ragged, dense.spec.label_space)
    assert_faithful(dense, made)
    mask = data.mask == 1  # type: ignore[comparison-overlap]
    rows, places = np.nonzero(mask)
    own = dense.column("logits")[rows, places, :, data.inputs[rows, 0, places + 1]]
    assert np.array_equal(made.column("label_logit")[mask], own)
    assert np.isnan(made.column("label_logit")[~mask]).all()
    assert made.manifest.fidelity["1"].kl_max is not None


def test_sequences_without_tokens(work: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    data = sample(rng, 70, "tokens-zarr")
    write_store(work / "store", data, make_spec(data, "tokens-zarr", embed=False))
    assert encoded("--k=2", "--rank=3") == 0
    assert "the exact logit of the next token is lost" in capsys.readouterr().out
    assert np.isnan(open_store("sparse").column("label_logit")).all()


def test_going_on_keeps_basis_and_digest(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--k=2", "--rank=1")
    assert encoded(*words, target="whole") == 0
    monkeypatch.setattr("softlabels.store.new_spec.CHUNKS_PER_SHARD", 1)
    monkeypatch.setattr("softlabels.store.new_spec.MAX_CHUNK_ROWS", 16)
    write = ShardWriter.commit

    def stopping(self: ShardWriter, *args: object) -> None:
        write(self, *args)  # type: ignore[arg-type]
        if self._shard == 0:  # a second signal would end the process at once
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "commit", stopping)
        assert encoded(*words) == 75
    assert "shards left in sparse/test; run the same command again" in capsys.readouterr().err

    def refuse(*_: object) -> None:
        raise AssertionError("the basis was computed anew")

    with monkeypatch.context() as patch:
        patch.setattr("softlabels.jobs.stores.find_basis", refuse)
        assert encoded("--k=2", "--rank=2") == 2
        said = capsys.readouterr().err
        assert "SpecMismatch: sparse/test was begun with another specification (--rank: 1 here, 2 in this run)" in said
        assert "go on with the settings that began it, or give another store path" in said
        assert encoded("--k=3", "--rank=1") == 2
        assert "(--k: 2 here, 3 in this run)" in capsys.readouterr().err
        assert encoded(*words) == 0
        assert encoded(*words) == 0
    for split in ("train", "test"):
        one, two = (open_store(path, split=split) for path in ("whole", "sparse"))
        assert two.spec.shards > one.spec.shards
        assert (two.content_digest, two.encoding) == (one.content_digest, one.encoding)


def _child(words: list[str]) -> None:
    torch.set_num_threads(1)
    new_spec.CHUNKS_PER_SHARD, new_spec.MAX_CHUNK_ROWS = 1, 16
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(encode.main(words))


@pytest.mark.parametrize("kind", ["tokens-zarr", pytest.param("ragtokens-arrow", marks=pytest.mark.slow)])
def test_kills_lose_nothing(work: Path, rng: np.random.Generator, kind: str) -> None:
    """SIGKILLs at random moments: what is committed stays, and the digest is that of an unbroken run."""
    data = tokens(rng, 300, kind)
    write_store(work / "store", data, make_spec(data, kind, rows_per_shard=64))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.stages.test_encode"])
    words = ["--from=store", "--store=sparse", "--k=2", "--rank=3", "--fine=1", "--device=cpu"]

    def run(seconds: float | None) -> int | None:
        child = processes.Process(target=_child, args=(words,))
        child.start()
        child.join(seconds)
        child.kill()
        child.join()
        return child.exitcode

    assert run(None) == 0
    whole = open_store("sparse")
    shutil.rmtree("sparse")
    kills, committed = 0, {}
    while kills < 8:
        if run(rng.uniform(0.05, 0.8)) == 0:  # it was quicker than the kill: begin anew
            assert open_store("sparse").digest == whole.digest
            shutil.rmtree("sparse")
            committed = {}
            continue
        kills += 1
        for file, inode in committed.items():
            assert file.stat().st_ino == inode, f"{file} was written again"
        committed = {file: file.stat().st_ino for file in Path("sparse").glob("commits/*.json")}
    assert run(None) == 0
    assert {file: file.stat().st_ino for file in committed} == committed
    assert open_store("sparse").digest == whole.digest
    assert verify("sparse") == []


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--k=6",), "k is 6, and there are 5 classes; give at most 5"),
    (("--k=2", "--tail=bucket"), "a bucket is one outcome of one model, and there are 2 members"),
    (("--k=2", "--rank=9"), "cannot give a basis of rank 9"),
    (("--k=2", "--rank=0"), "'lowrank' cannot have rank 0"),
    (("--k=2", "--rank=1", "--fine=-1"), "fine is -1"),
    (
        ("--k=2", "--rank=3", "--fine=4"),
        "fine is 4, and there are 3 coefficients (rank); give at most 3, or leave fine out",
    ),
    (("--k=2", "--rank=1", "--nodes=1"), "nodes is 1"),
    (("--k=2", "--min_temperature=0"), "min_temperature is 0"),
    (("--k=2", "--tail=prior", "--layout=arrow", "--compression=zstd"), "zstd needs layout: zarr"),
    (("--k=2", "--tail=prior", "--store=store/inside"), "one is inside the other"),
    (("--k=2", "--encoding=dense"), "encoding"),
]


@pytest.mark.parametrize(("words", "what"), REFUSED, ids=lambda value: str(value)[:50])
def test_refusals(store: Path, words: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoded(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert what in line
    assert not Path("sparse").exists()


def test_a_topk_store_is_not_encoded_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encoded("--k=2", "--rank=1") == 0
    assert encoded("--k=1", "--rank=1", source="sparse", target="again") == 2
    assert "holds topk labels already" in capsys.readouterr().err
    assert encode.main([]) == 2


def test_as_a_user_types_it(store: Path, softlabels: Callable[..., object]) -> None:
    done = softlabels("encode", "--from", "store/train", "--store", "sparse", "--k", "2", "--rank", "1")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    assert done.stdout.splitlines()[-1].startswith("sealed: sparse (look: ")  # type: ignore[attr-defined]
    assert softlabels("info", "sparse").returncode == 0  # type: ignore[attr-defined]
