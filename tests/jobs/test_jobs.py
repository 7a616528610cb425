"""Labelling, encoding, training and judging as a Python user calls them: values back, resumption, and what commands make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from softlabels import (
    Ensemble,
    LabelsConfig,
    ModelConfig,
    StudentTraining,
    TransferSetConfig,
    encode,
    errors,
    judge,
    load_transfer_set,
    open_store,
    train,
)
from softlabels import label as label_job
from softlabels.jobs import splits
from softlabels.jobs.train import say_how_labels_are_read
from softlabels.jobs.watch import Watch
from softlabels.models import build_model, save_weights
from softlabels.objects import ObjectSpec
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.store.verify import verify
from softlabels.stream import Loader
from softlabels_stages import teacher_logits
from tests.stages import toy
from tests.stream.samples import rows_of, write_store

ROWS = TransferSetConfig(
    name="points",
    factory=ObjectSpec("tests.stages.toy.points"),
    inputs=("x",),
    label="label",
    prepare=ObjectSpec("softlabels.transfer.vector"),
    splits={"train": "train", "test": "test"},
)
MLP = {"inputs": toy.FEATURES, "hidden": [8], "classes": toy.CLASSES}
STUDENT = ModelConfig("softlabels.models.MLP", MLP)
LABELS = LabelsConfig(inputs="embed", rows_per_shard=32)
TRAINING = StudentTraining(
    epochs=2, batch_size=32, temperature=(1.0, 4.0), seeds=(1,), threads=1, device="cpu", checkpoint_every=1
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with its own cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def models() -> list[torch.nn.Module]:
    torch.manual_seed(3)
    return [build_model(STUDENT) for _ in range(2)]


def ensemble() -> Ensemble:
    return Ensemble.of(models(), name="two", device="cpu", batch_size=16)


def label(store: str = "store", labels: LabelsConfig = LABELS, watch: Watch | None = None) -> dict[str, str]:
    """Digest by split."""
    made = label_job(ROWS, ensemble(), labels, store, watch=watch or Watch())
    return {split: manifest.digest for split, manifest in made.items()}


def stopping(after: int) -> Callable[[], bool]:
    asked: Iterator[int] = count()
    return lambda: next(asked) >= after


def test_labels_are_what_the_teacher_says_of_the_rows() -> None:
    made = label_job(ROWS, ensemble(), LABELS, "store")
    assert list(made) == ["train", "test"]
    inputs = load_transfer_set(ROWS, "test").inputs
    store = open_store("store", split="test")
    with torch.inference_mode():
        z = torch.stack([model.eval()(torch.tensor(inputs)) for model in models()], dim=1).double().numpy()
    p = np.exp(z / 2 - np.log(np.exp(z / 2).sum(-1, keepdims=True))).mean(axis=1)
    np.testing.assert_allclose(np.exp(store.log_probs(range(store.rows), temperature=2.0)), p, atol=1e-3)
    np.testing.assert_array_equal(store.column("input"), inputs)
    assert (made["test"].digest, made["test"].spec.teacher.name) == (store.digest, "two")
    assert all(verify(f"store/{split}") == [] for split in made)


def test_the_command_makes_the_same_store() -> None:
    members = []
    for number, model in enumerate(models()):
        save_weights(model, Path(f"{number}.safetensors"))
        members.append({"class_path": "softlabels.models.MLP", "init_args": MLP, "weights": f"{number}.safetensors"})
    recipe: dict[str, Any] = toy.recipe() | {
        "teacher": {"name": "two", "members": members, "batch_size": 16, "device": "cpu"},
        "labels": {"inputs": "embed", "rows_per_shard": 32},
    }
    recipe["transfer_set"] |= {"splits": {"train": "train", "test": "test"}, "label": "label"}
    del recipe["transfer_set"]["classes"]
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert teacher_logits.main(["--config=recipe.yaml", "--store=by-command"]) == 0
    digests = {split: open_store("by-command", split=split).digest for split in ("train", "test")}
    assert label() == digests


def test_rows_that_are_prepared_already_are_labelled_one_split_or_several() -> None:
    rows = [load_transfer_set(ROWS, split) for split in ROWS.splits]
    made = label_job(rows, ensemble(), LABELS, "rows")
    one = label_job(rows[1], ensemble(), LABELS, "one")
    assert {split: manifest.digest for split, manifest in made.items()} == label()
    assert one["test"].digest == made["test"].digest
    for wrong, words in (([], "none"), ([rows[1], rows[1]], "test, test")):
        with pytest.raises(errors.UserError, match=f"the splits to label are {words}; give"):
            label_job(wrong, ensemble(), LABELS, "wrong")


def test_what_is_stopped_goes_on_to_the_same_digest() -> None:
    whole, lines = label("whole"), list[str]()
    for after in (5, 4):
        with pytest.raises(errors.Interrupted, match="shards left in"):
            label(watch=Watch(should_stop=stopping(after)))
    assert label(watch=Watch(say=lines.append)) == whole == label()
    assert any(line.startswith("train: 160 rows, ") for line in lines)
    sparse = LabelsConfig(encoding="topk", k=2, rank=1)
    whole = {split: made.digest for split, made in encode("whole", "all", sparse).items()}
    with pytest.raises(errors.Interrupted, match="shards left in"):
        encode("store", "sparse", sparse, watch=Watch(should_stop=stopping(2)))
    assert {split: made.digest for split, made in encode("store", "sparse", sparse).items()} == whole


def test_a_store_that_was_begun_otherwise_says_in_which_fields() -> None:
    label()
    with pytest.raises(errors.SpecMismatch, match=r"cut\.rows_per_shard: 32 here, 64 in this run; layout") as caught:
        label(labels=replace(LABELS, rows_per_shard=64, layout="arrow"))
    found = {leaf.path: (leaf.theirs, leaf.ours) for leaf in caught.value.differences}
    assert found["layout"] == ("zarr", "arrow")
    assert caught.value.spec.cut.rows_per_shard == 64


def test_topk_labels_of_a_dense_store_are_close_to_it() -> None:
    label()
    made = encode("store", "sparse", LabelsConfig(encoding="topk", k=3, rank=1), layout="arrow")
    for split, manifest in made.items():
        dense, sparse = open_store("store", split=split), open_store("sparse", split=split)
        assert (sparse.digest, sparse.layout, sparse.encoding.k) == (manifest.digest, "arrow", 3)
        assert max(lost.kl_max for lost in manifest.fidelity.values()) < 0.05
        one, two = (each.log_probs(range(dense.rows), temperature=2.0) for each in (dense, sparse))
        assert (np.exp(one) * (one - two)).sum(-1).max() < 0.05
        np.testing.assert_array_equal(dense.column("input"), sparse.column("input"))
    with pytest.raises(errors.ConfigError, match='the labels are dense already; give encoding="topk"'):
        encode("store", "again", LabelsConfig(k=2, rank=1))
    with pytest.raises(errors.ConfigError, match="holds topk labels already"):
        encode("sparse", "again", LabelsConfig(encoding="topk", k=2, rank=1))


def test_students_are_trained_judged_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    label()
    counted: list[int] = []
    leaks = splits.leaks
    monkeypatch.setattr(splits, "leaks", lambda keys: counted.append(len(keys)) or leaks(keys))
    with pytest.raises(errors.Interrupted):
        train(STUDENT, "store", TRAINING, watch=Watch(should_stop=stopping(7)))
    counted.clear()
    run = train(STUDENT, "store", TRAINING)
    assert counted == [2]  # once: rows that splits share are not counted again when students are judged
    assert [student["label"] for student in run.results["students"]] == ["hard", "distilled, T=1", "distilled, T=4"]
    for student in run.results["students"]:
        folder = "-".join([*student["label"].split(", "), "seed1"])
        weights = replace(STUDENT, weights=str(run.path / folder / "weights.safetensors"))
        assert judge("store", weights, training=TRAINING, temperature=4.0)["student"] == student["scores"][0]
    teacher = judge("store", training=TRAINING)
    assert list(teacher) == ["teacher 0: MLP", "teacher 1: MLP", "ensemble"]
    assert teacher["ensemble"] == run.results["teacher"]["ensemble"][0]
    assert yaml.safe_load((run.path / "config.yaml").read_text())["training"]["temperature"] == [1.0, 4.0]

    never = Watch(should_stop=lambda: True)
    again = train(STUDENT, "store", TRAINING, watch=never)  # finished: nothing is trained
    assert (again.path, again.results["students"]) == (run.path, run.results["students"])
    whole = train(STUDENT, "store", TRAINING, out="elsewhere")
    assert whole.results["students"] == run.results["students"]


def test_a_student_of_another_shape_is_refused_before_anything_is_written(work: Path) -> None:
    label()
    with pytest.raises(errors.ClassMismatch, match=r"gives outputs of shape \[2, 7\]"):
        train(ModelConfig("softlabels.models.MLP", MLP | {"classes": 7}), "store", TRAINING)
    assert not Path("runs").exists()


def many(split: str) -> dict[str, np.ndarray]:
    """The factory of a transfer set whose rows take several windows of small blocks."""
    rng = np.random.default_rng(len(split))
    return {"x": rng.normal(size=({"train": 1216, "test": 64}[split], toy.FEATURES)).astype(np.float32)}


def test_a_store_in_another_row_order_teaches_the_same_and_a_line_says_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", 256)
    config = replace(ROWS, factory=ObjectSpec("tests.jobs.test_jobs.many"), label=None)
    lines, weights = list[str](), []
    for name in ("as it stands", "shuffled"):
        for split in config.splits:
            rows = load_transfer_set(config, split)
            order = np.random.default_rng(1).permutation(len(rows.keys)) if name == "shuffled" else slice(None)
            spec = store_spec(
                teacher="one", name="points", split=split, keys=rows.keys[order], classes=toy.CLASSES,
                rows_per_shard=len(rows.keys), rows_per_chunk=16,
            )  # fmt: skip
            with StoreWriter(f"{name}/{split}", spec) as writer:
                logits = np.asarray(rows.inputs)[order][:, None, : toy.CLASSES]
                writer.write_logits(0, keys=rows.keys[order], labels=rows.labels[order], logits=logits)
                writer.seal()
        training = replace(TRAINING, epochs=1, temperature=2.0, block=16)
        run = train(STUDENT, name, training, transfer_set=config, watch=Watch(say=lines.append))
        weights.append((run.path / "distilled-seed1" / "weights.safetensors").read_bytes())
        assert run.results["order"] == {"by": "keys", "block": 16}
    assert weights[0] == weights[1]
    [line] = [line for line in lines if "a different order" in line]
    assert line.startswith(
        "the rows of shuffled/train are in a different order from those of the transfer set: every epoch reads"
    )
    # 256 of 1,094 rows a window, which lie in about 74 of 76 chunks.
    assert 4 < float(line.partition("about ")[2].partition(" times")[0]) < 6


@pytest.mark.parametrize("rest", [range(299, 99, -1), range(100, 300)], ids=["another order", "the same"])
def test_rows_that_repeat_are_no_other_order(
    rest: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Seen to fail: of the rows of a store itself it said that they stand in another order than those of the transfer set."""
    monkeypatch.setattr("softlabels.stream.loader.READ_ROWS", 1)
    numbers = np.concatenate([np.arange(300), rng.integers(0, 300, 300)])
    store, lines = write_store(tmp_path / "repeats", numbers), list[str]()
    rows = rows_of(np.concatenate([np.arange(100), [*rest], numbers[300:]]))
    batches = Loader(rows, store, batch_size=8, seed=0, block=4, window=2)
    say_how_labels_are_read(batches, store, Watch(say=lines.append))
    [line] = lines
    repeat = "300 of 600 training rows repeat the key of an earlier row, and have its labels"
    assert line.startswith("the rows of" if rest.step < 0 else repeat)
    assert "times its labels; to read them once, label" in line
