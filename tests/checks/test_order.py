"""Classes in another order than the hard labels: a line and a card where labels are at hand, a refusal only where another
numbering is far better.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.checks.dependence import spread
from softlabels.checks.order import agreement, require_order
from softlabels.errors import OtherClassOrder
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, TopkEncoding
from softlabels.labels.ensemble import largest_class, log_probs
from softlabels.store import open_store
from softlabels.store.findings import Own, stored_agreement
from softlabels.teacher.label import label_rows
from softlabels.teacher.sentinels import check_sentinels
from softlabels.transfer import array_keys
from softlabels_stages import encode, teacher_logits, train_student
from softlabels_stages import verify as verify_stage
from tests.checks import samples
from tests.checks.recipes import write_recipe
from tests.checks.samples import CLASSES, exact, live, rows_of, some_rows

ROWS = 96
REVERSED = (
    "with the classes reversed: output 0 is class 4, output 1 is class 3, output 3 is class 1, output 4 is class 0;"
)


def test_the_line_is_what_plain_counting_gives(rng: np.random.Generator) -> None:
    labels = rng.choice(4, 500, p=[0.7, 0.1, 0.1, 0.1])
    outputs = np.where(rng.random(500) < 0.8, labels, rng.integers(0, 4, 500))
    labels[::7] = -1
    pairs = [(o, y) for o, y in zip(outputs.tolist(), labels.tolist(), strict=True) if y >= 0]
    share = sum(o == y for o, y in pairs) / len(pairs)
    chance = sum(
        sum(o == c for o, _ in pairs) / len(pairs) * sum(y == c for _, y in pairs) / len(pairs) for c in range(4)
    )
    found = agreement(outputs, labels, 4)
    assert found is not None
    assert found.line == f"the largest output is the hard label in {share:.1%} of rows; by chance {chance:.0%}"
    assert agreement(outputs, np.full(500, -1), 4) is None


TEXT = np.array(sorted(range(12), key=str))  # what each column of a forest that was fitted on '0' .. '11' means


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda y: np.argsort(TEXT)[y], r"14\.\d%.* 100.0% with the classes sorted as text: output 2 is class 10, "),
        (lambda y: TEXT[y], r"classes that were sorted as text: output 2 is class 4, "),
        (lambda y: 11 - y, r"0\.0% .* 100.0% with the classes reversed: output 0 is class 11, "),
        (lambda y: (y * 5 + 3) % 12, r"100.0% with the classes in another order: output 0 is class 9, "),
        (
            lambda y: np.roll(y, -1),
            r"100.0% with the label of row n \+ 1 for row n; give outputs and labels of the same",
        ),
        (lambda y: np.roll(y, 2), r"100.0% with the label of row n - 2 for row n"),
    ],
)
def test_numberings_that_are_found(rng: np.random.Generator, wrong: object, message: str) -> None:
    labels = rng.integers(0, 12, 2000)
    while not 0.143 < (np.argsort(TEXT)[labels] == labels).mean() < 0.15:
        labels = rng.integers(0, 12, 2000)
    with pytest.raises(OtherClassOrder, match=message):
        require_order(wrong(labels), labels, 12)  # type: ignore[operator]
    half = np.where(rng.random(2000) < 0.3, rng.integers(0, 12, 2000), wrong(labels))  # type: ignore[operator]
    with pytest.raises(OtherClassOrder):
        require_order(half, labels, 12)


def test_labels_that_come_in_turn() -> None:
    """Every other row is every other class: a permutation is not chosen by such."""
    labels = np.arange(600) % 12
    with pytest.raises(OtherClassOrder, match=r"100.0% with the classes in another order: output 0 is class 9, "):
        require_order((labels * 5 + 3) % 12, labels, 12)


def test_names_in_order(rng: np.random.Generator) -> None:
    names = ["dog", "cat", "ape"]
    labels = rng.integers(0, 3, 300)
    outputs = np.array([2, 1, 0])[labels]
    names_sorted = np.array([2, 1, 0])
    assert sorted(names) == [names[n] for n in names_sorted]
    with pytest.raises(OtherClassOrder, match="output 0 is class 'ape', output 2 is class 'dog'"):
        require_order(outputs, labels, 3, names=names)


def test_a_weak_teacher_is_no_fault(rng: np.random.Generator) -> None:
    """Random outputs, worse than random, permuted rows, one class only, few rows, two classes: never a refusal."""
    for _ in range(300):
        classes, rows = int(rng.integers(2, 15)), int(rng.integers(1, 200))
        labels = rng.integers(0, classes, rows)
        assert require_order(rng.integers(0, classes, rows), labels, classes) is not None
        assert require_order(rng.permutation(labels), labels, classes) is not None
        assert require_order(np.full(rows, 1), labels, classes) is not None
        assert require_order(rng.integers(0, classes, rows), np.zeros(rows, int), classes) is not None
        weak = np.where(rng.random(rows) < 0.3, labels, rng.integers(0, classes, rows))
        assert require_order(weak, labels, classes) is not None
    ordered = np.sort(rng.integers(0, 5, 400))
    assert require_order(ordered, ordered, 5) is not None
    worse = np.where(rng.random(400) < 0.45, ordered % 2, 1 - ordered % 2)  # right in 45%
    assert require_order(worse, ordered % 2, 2) is not None


@pytest.mark.parametrize("members", [1, 3])
def test_the_largest_output_of_an_ensemble(rng: np.random.Generator, members: int) -> None:
    z, weights = rng.normal(size=(200, members, 9)) * 3, np.arange(1.0, members + 1)
    weights /= weights.sum()
    assert (largest_class(z, weights) == log_probs(z, 1.0, "arithmetic", weights).argmax(-1)).all()
    few = TopkEncoding(k=3, tail="uniform", nodes=8)
    for encoding in (
        DenseEncoding(),
        few,
        DenseEncoding(known_at=8.0),
        TopkEncoding(k=3, tail="uniform", known_at=8.0),
    ):
        columns, _ = encoding.encode(torch.tensor(z).float())
        known = {"temperature": encoding.near_1, "mean": "arithmetic", "weights": weights}
        expected = encoding.probabilities(columns, 9, None, **known).argmax(-1)  # type: ignore[arg-type]
        assert (encoding.largest(columns, 9, weights) == expected).all()


@pytest.mark.parametrize("encoding", [DenseEncoding(known_at=8.0), SigmoidEncoding(known_at=8.0)])
def test_probabilities_are_apart_by_what_they_are_where_they_are_known(
    encoding: Encoding, rng: np.random.Generator
) -> None:
    one, other = (encoding.encode(torch.tensor(rng.normal(size=(20, 2, 5)) * 30).float())[0] for _ in range(2))
    p, p_other = (
        encoding.probabilities(each, 5, None, temperature=8.0, mean="arithmetic", weights=[1.0, 0.0])
        for each in (one, other)
    )
    assert np.allclose(encoding.gaps(one, other, 5)[0].p[:, 0], np.abs(p - p_other), atol=1e-6)


def test_live_teacher(rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = write_recipe(work / "r.yaml")["train"]
    assert teacher_logits.main(["--config=r.yaml", "--store=s"]) == 0
    found = agreement(exact(inputs).argmax(-1), exact(inputs).argmax(-1), CLASSES)
    assert found is not None
    assert found.line.startswith("the largest output is the hard label in 100.0% of rows; by chance")
    assert f"train: {found.line}\n" in capsys.readouterr().out
    assert f"- Checks: {found.line}\n" in Path("s/train/README.md").read_text()

    write_recipe(work / "r.yaml", labels=range(CLASSES)[::-1])
    assert teacher_logits.main(["--config=r.yaml", "--store=other"]) == 2
    said = capsys.readouterr().err
    assert "64 rows of the teacher: the largest output is the hard label in" in said
    assert REVERSED in said
    assert not Path("other").exists()


def test_live_teacher_after_the_first_rows(rng: np.random.Generator, work: Path) -> None:
    """The rows that are asked first have no hard labels."""
    inputs = some_rows(rng, 300)
    labels = CLASSES - 1 - exact(inputs).argmax(-1)
    labels[spread(300, 64)] = -1
    rows, ensemble = rows_of(inputs, labels=labels), live(samples.Model())
    assert check_sentinels(ensemble, inputs, labels={"": labels}) == {"": CLASSES}
    with (
        samples.writer_of(work / "s", rows.keys, teacher_batch=16) as writer,
        pytest.raises(OtherClassOrder, match=REVERSED),
    ):
        label_rows(rows, ensemble, writer)


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
@pytest.mark.parametrize("members", [1, 2])
def test_store_writer(rng: np.random.Generator, work: Path, layout: str, members: int) -> None:
    inputs = some_rows(rng, ROWS)
    z, keys = exact(inputs), array_keys(inputs)
    labels = z.argmax(-1)
    labels[:20] = rng.integers(-1, CLASSES, 20)
    z = np.stack([z] * members, axis=1)
    with samples.writer_of(work / "right", keys, members=members, layout=layout) as writer:
        samples.fill(writer, z, keys, labels)
        writer.seal()
        found = agreement(z[:, 0].argmax(-1), labels, CLASSES)
        assert found is not None
        assert writer.said == (found.line,)
    with samples.writer_of(work / "none", keys, members=members) as writer:
        samples.fill(writer, z, keys)
        writer.seal()
        assert writer.said == ()
    with samples.writer_of(work / "wrong", keys, members=members, layout=layout) as writer:
        samples.fill(writer, z[..., ::-1], keys, labels)
        with pytest.raises(OtherClassOrder, match=REVERSED):
            writer.seal()


@pytest.mark.parametrize("names", [(), ("--classes=a,b,c,d,e",)])
def test_import(
    rng: np.random.Generator, work: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    main = import_module("softlabels_stages.import").main
    inputs = some_rows(rng, ROWS)
    z = exact(inputs)
    np.savez("right.npz", logits=z, inputs=inputs, labels=z.argmax(-1))
    np.savez("wrong.npz", logits=z[:, ::-1], inputs=inputs, labels=z.argmax(-1))
    np.savez("shift.npz", logits=z, inputs=inputs, labels=np.roll(z.argmax(-1), 1))
    np.savez("rows.npz", logits=rng.permutation(z), inputs=inputs, labels=z.argmax(-1))
    assert main(["right.npz", "right/train", *names]) == 0
    assert "train: the largest output is the hard label in 100.0% of rows; by chance" in capsys.readouterr().out
    for name in ("wrong", "shift"):
        assert main([f"{name}.npz", f"{name}/train", *names]) == 2
        said = capsys.readouterr().err
        assert ("output 0 is class 'e'" if names else REVERSED) in said or name == "shift"
        assert "the label of row n + 1 for row n" in said or name == "wrong"
        assert not Path(name).exists()
    assert main(["rows.npz", "rows/train", *names]) == 0  # what no numbering mends is a line
    assert "by chance" in capsys.readouterr().out


def test_encode_verify_and_student_of_an_earlier_store(
    rng: np.random.Generator, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(work / "r.yaml")
    inputs = some_rows(rng, ROWS)
    z = exact(inputs)
    for name, logits in (("right", z), ("wrong", z[:, ::-1])):
        for split in ("train", "test"):
            path = work / name / split
            samples.earlier(path, logits, array_keys(inputs), z.argmax(-1), split=split, embed=inputs)
        right = name == "right"
        assert verify_stage.main([name]) == 0
        said = capsys.readouterr()
        assert ("train: the largest output is the hard label in 100.0% of rows" in said.out) == right
        assert ("train: warning: OtherClassOrder: " in said.err) != right
        words = [name, f"{name}-topk", "--k=2", "--tail=uniform", "--device=cpu"]
        assert encode.main(words) == (0 if right else 2)
        said = capsys.readouterr()
        assert (REVERSED in said.err) != right
        assert ("train: the largest output is the hard label in 100.0% of rows" in said.out) == right
        assert train_student.main(["--config=r.yaml", f"--store={name}", f"--out=run-{name}"]) == (0 if right else 2)
        said = capsys.readouterr()
        assert (REVERSED in said.err) != right
        assert ("train: the largest output is the hard label in 100.0% of rows" in said.out) == right


def test_a_student_whose_own_labels_are_numbered_otherwise(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store holds no hard labels; the transfer set's are held against it."""
    inputs = write_recipe(work / "r.yaml", labels=range(CLASSES)[::-1])
    for split, values in inputs.items():
        samples.earlier(work / "s" / split, exact(values), array_keys(values), split=split)
    assert train_student.main(["--config=r.yaml", "--store=s", "--out=run"]) == 2
    assert REVERSED in capsys.readouterr().err


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_of_one_key_keep_their_own_labels(rng: np.random.Generator, work: Path, *, shuffled: bool) -> None:
    """Equal inputs, equal outputs, other hard labels: each row counts with its own, as the table of errors does."""
    inputs = some_rows(rng, 40)[rng.integers(0, 40, ROWS)]
    z, keys = exact(inputs), array_keys(inputs)
    labels = np.where(rng.random(ROWS) < 0.6, z.argmax(-1), rng.integers(-1, CLASSES, ROWS))
    samples.earlier(work / "s", z, keys, labels)
    order = rng.permutation(ROWS)[:80] if shuffled else np.arange(ROWS)
    stranger = array_keys(some_rows(rng, 3))
    own = Own(keys, np.vstack([keys[order], stranger]), np.append(labels[order], [0, 1, 2]))
    found = stored_agreement(open_store(work / "s"), own=own)
    given = labels[order] >= 0
    assert found is not None
    assert found.share == np.mean((z[order].argmax(-1) == labels[order])[given])


def test_many_rows_are_looked_at_in_part(rng: np.random.Generator, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabels.store.findings.MOST_ROWS", 48)
    inputs = some_rows(rng, 320)
    z, keys = exact(inputs), array_keys(inputs)
    labels = np.where(np.arange(320) // 16 % 2, z.argmax(-1), -1)
    with samples.writer_of(work / "s", keys) as writer:
        samples.fill(writer, z, keys, labels)
        writer.seal()
        assert writer.said[0].startswith("the largest output is the hard label in 100.0% of rows")
    assert open_store(work / "s").rows == 320
