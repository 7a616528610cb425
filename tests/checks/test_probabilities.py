"""Outputs that are no logits, at every door; log-probabilities and logits pass."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from softlabels.checks.probabilities import are_probabilities, require_logits
from softlabels.errors import LogitsError
from softlabels.labels.encoding import TopkEncoding
from softlabels.models import weights_digest
from softlabels.store import StoreWriter, open_store
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer
from softlabels.teacher.label import label_rows
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import array_keys
from softlabels_stages import encode, evaluate, teacher_logits, train_student, verify
from tests.checks import samples
from tests.checks.recipes import write_recipe
from tests.checks.samples import CLASSES, exact, live, rows_of, softmax, some_rows
from tests.student.runs import MemoryBatches, examples

WHAT = "are >= 0 and sum to 1, as probabilities do and logits hardly ever"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_what_looks_so(rng: np.random.Generator, dtype: type, classes: int) -> None:
    z = rng.normal(size=(40, 2, classes)) * 5
    p = softmax(z)
    assert are_probabilities(p.astype(dtype)).all()
    assert not are_probabilities(z.astype(dtype)).any()
    assert not are_probabilities(np.log(p).astype(dtype)).any()
    assert not are_probabilities((p - 1 / classes).astype(dtype)).any()  # they sum to 0
    impossible = np.where(p < 0.01, -np.inf, 1 / classes)
    assert not are_probabilities(impossible[(p < 0.01).any(axis=-1)].astype(dtype)).any()


def test_bfloat16_looks_so_too(rng: np.random.Generator) -> None:
    p = torch.tensor(softmax(rng.normal(size=(64, 1000)))).bfloat16()
    assert are_probabilities(p.float().numpy()).all()


@pytest.mark.parametrize("cut", [16, 32, 48, 96])
def test_the_answer_does_not_depend_on_the_cut(rng: np.random.Generator, cut: int) -> None:
    """Some of rows 32 to 47 alone are probabilities: with 12 of them, rows of another kind hide no others."""
    z = rng.normal(size=(96, 1, 5))
    for count, refused in ((16, True), (12, True), (11, False)):
        mixed = z.copy()
        mixed[32 : 32 + count] = softmax(z[32 : 32 + count])

        def ask(values: np.ndarray) -> None:
            found = are_probabilities(values)
            for start in range(0, 96, cut):
                require_logits(found[start : start + cut], total=96, first_row=start)

        if refused:
            with pytest.raises(LogitsError, match=f"{'' if count == 16 else f'{count} of '}rows 32 to 47 {WHAT}"):
                ask(mixed)
        else:
            ask(mixed)


def test_few_rows_decide_only_where_there_are_no_more() -> None:
    found = np.ones((7, 1), np.bool_)
    require_logits(found, total=39, first_row=32)
    require_logits(np.ones((3, 1), np.bool_), total=100)
    with pytest.raises(LogitsError, match="rows 0 to 6 are"):
        require_logits(found, total=7)
    with pytest.raises(LogitsError, match="it: rows 32 to 39, member 1, are"):
        require_logits(np.array([[False, True]] * 8), total=40, first_row=32, who="it")


def test_live_teacher(rng: np.random.Generator) -> None:
    inputs = some_rows(rng)
    assert check_sentinels(live(samples.Model()), inputs) == {"": CLASSES}
    assert check_sentinels(live(samples.Model("log_softmax")), inputs) == {"": CLASSES}
    with pytest.raises(LogitsError, match=rf"the teacher \(live\): 16 of rows 0 to 22 {WHAT}; leave out the softmax"):
        check_sentinels(live(samples.Model("softmax")), inputs)


class _Late(samples.Model):
    """Probabilities for rows whose first feature is large."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        z = super().forward(inputs)
        return torch.where(inputs[:, :1] > 100, z.softmax(-1), z)


@pytest.mark.parametrize("encoding", ["dense", "topk"])
def test_live_teacher_after_the_first_rows(rng: np.random.Generator, work: Path, encoding: str) -> None:
    """Of 16 rows together, four are sentinels, which stand among others; the shard is not committed."""
    inputs = some_rows(rng, 256)
    inputs[64:80, 0] = 1000
    rows, ensemble = rows_of(inputs), live(_Late())
    kind = TopkEncoding(k=3, tail="uniform", nodes=4)
    options = {"teacher": ensemble.spec, "name": "rows", "keys": rows.keys, "classes": CLASSES}
    spec = store_spec(kind, **options, rows_per_shard=32, rows_per_chunk=16, teacher_batch=16)  # type: ignore[arg-type]
    writer = (
        samples.writer_of(work / "s", rows.keys, teacher_batch=16)
        if encoding == "dense"
        else StoreWriter(work / "s", spec)
    )
    assert check_sentinels(ensemble, inputs) == {"": CLASSES}
    with writer, pytest.raises(LogitsError, match=f"rows 64 to 79 {WHAT}"):
        label_rows(rows, ensemble, writer)
    assert writer.pending == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("last", ["softmax", "log_softmax"])
def test_teacher_logits_from_the_outside(work: Path, last: str, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = write_recipe(work / "r.yaml", teacher=last)["train"]
    code = teacher_logits.main(["--config=r.yaml", "--store=s"])
    if last == "softmax":
        assert code == 2
        assert WHAT in capsys.readouterr().err
        assert not (work / "s").exists()
        return
    assert code == 0
    for temperature in (1.0, 4.0):
        found = np.exp(open_store("s/train").log_probs(range(96), temperature=temperature))
        assert np.abs(found - softmax(exact(inputs) / temperature)).max() < 2e-3


@pytest.mark.parametrize("rows_per_shard", [16, 32, 96])
def test_store_writer(rng: np.random.Generator, work: Path, rows_per_shard: int) -> None:
    inputs = some_rows(rng)
    keys, p = array_keys(inputs), softmax(exact(inputs))
    with samples.writer_of(work / "s", keys, rows_per_shard=rows_per_shard) as writer:
        with pytest.raises(LogitsError, match=f"rows 0 to 15 {WHAT}; give what the softmax is taken of"):
            samples.fill(writer, p, keys)
        assert not list((work / "s").glob("commits/*"))
        samples.fill(writer, np.log(p), keys)
        writer.seal()
    found = np.exp(open_store(work / "s").log_probs(range(96), temperature=2.0))
    assert np.abs(found - softmax(exact(inputs) / 2)).max() < 2e-3


def test_store_writer_believes_who_says_so(rng: np.random.Generator, work: Path) -> None:
    inputs = some_rows(rng)
    keys, p = array_keys(inputs), softmax(exact(inputs))
    with samples.writer_of(work / "s", keys) as writer:
        samples.fill(writer, p, keys, are_logits=True)
        writer.seal()
    assert np.abs(np.exp(open_store(work / "s").log_probs(range(96), temperature=1.0)) - softmax(p)).max() < 1e-3


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv"])
def test_import(rng: np.random.Generator, work: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    inputs = some_rows(rng, 40)
    p, path = softmax(exact(inputs)), f"f.{suffix}"
    table = {"id": np.arange(40)} | {f"logit{n}": p[:, n] for n in range(CLASSES)}
    if suffix == "npz":
        np.savez(path, logits=p, id=np.arange(40))
    elif suffix == "csv":
        pyarrow.csv.write_csv(pa.table(table), path)
    else:
        pq.write_table(pa.table(table), path)
    main = import_module("softlabels_stages.import").main
    assert main([path, "s/train", "--key=id"]) == 2
    assert WHAT in capsys.readouterr().err
    assert main([path, "s/train", "--key=id", "--kind=probabilities"]) == 0
    assert np.abs(np.exp(open_store("s/train").log_probs(range(40), temperature=1.0)) - p).max() < 1e-3


@pytest.mark.parametrize("classes", [5, 1000])
def test_encode_and_verify_of_an_earlier_store(
    rng: np.random.Generator, work: Path, classes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    z = rng.normal(size=(64, classes)) * 4
    keys = array_keys(z)
    samples.earlier(work / "wrong", softmax(z), keys)
    samples.earlier(work / "right", np.log(softmax(z)), keys)
    for name, code in (("wrong", 2), ("right", 0)):
        assert encode.main([name, f"{name}-topk", "--k=3", "--tail=uniform", "--device=cpu"]) == code
        assert (WHAT in capsys.readouterr().err) == (name == "wrong")
        for main, words in ((verify.main, [name]), (evaluate.main, [f"--store={name}", "--split=train"])):
            assert main(words) == 0  # what was sealed is not damaged
            assert (WHAT in capsys.readouterr().err) == (name == "wrong")


def test_verify_against_the_live_teacher(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = write_recipe(work / "r.yaml", teacher="softmax")
    member = MemberSpec(model="tests.checks.samples.Model", weights=weights_digest(samples.Model()))
    spec = TeacherSpec(name="it", precision="float32", members=(member,))
    for split, values in inputs.items():
        options = {"split": split, "teacher": spec, "teacher_batch": 16}
        samples.earlier(work / "s" / split, softmax(exact(values)), array_keys(values), **options)
    assert verify.main(["s", "--against_teacher=r.yaml"]) == 2
    assert "leave out the softmax at its end" in capsys.readouterr().err


@pytest.mark.parametrize("last", ["softmax", "log_softmax", "identity"])
def test_student(work: Path, last: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_recipe(work / "r.yaml", student=last)
    assert teacher_logits.main(["--config=r.yaml", "--store=s"]) == 0
    code = train_student.main(["--config=r.yaml", "--store=s", "--out=run"])
    said = capsys.readouterr().err
    assert (code, "every loss takes the softmax itself" in said) == ((2, True) if last == "softmax" else (0, False))


def test_student_of_a_python_user(work: Path) -> None:
    """The trainer asks too, whoever calls it."""
    batch = examples()
    config = TrainingConfig(epochs=1, batch_size=32, threads=1, device="cpu", validation=0.0)
    for last, refused in ((nn.Softmax(-1), True), (nn.LogSoftmax(-1), False)):
        student = Student.begin("", config, lambda last=last: nn.Sequential(nn.Linear(12, 5), last))  # type: ignore[misc]
        trainer = Trainer([student], MemoryBatches(batch, 32), None, work / str(refused), {})
        if refused:
            with pytest.raises(LogitsError, match=WHAT):
                trainer.run()
        else:
            trainer.run()


def test_rows_of_positions(rng: np.random.Generator, work: Path) -> None:
    """A row of positions looks so where all of them that count do."""
    z = rng.normal(size=(16, 4, 1, 5)).astype(np.float32)
    p, mask = softmax(z).astype(np.float32), np.ones((16, 4), np.uint8)
    mask[:, 1], document = 0, np.full((16, 4), 1, np.uint16)
    document[:, 2:] = 2
    keys = array_keys(z.reshape(16, -1))
    options = {"positions": 4, "vocabulary": "ab" * 32, "rows_per_shard": 16}
    mixed = p.copy()
    mixed[:, 1] = z[:, 1]  # does not count
    writer = samples.writer_of(work / "s", keys, **options)
    with writer, pytest.raises(LogitsError, match=f"rows 0 to 15 {WHAT}"):
        writer.write_logits(0, keys=keys, labels=np.full(16, -1), logits=mixed, mask=mask, document=document)
    mixed[:, 0] = z[:, 0]
    with samples.writer_of(work / "s", keys, **options) as writer:
        writer.write_logits(0, keys=keys, labels=np.full(16, -1), logits=mixed, mask=mask, document=document)
