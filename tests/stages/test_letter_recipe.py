"""The recipes of letters as they ship, from teacher to table, on a few letters of our own with small members and one epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import datasets
import numpy as np
import pytest

from benchmarks import letter
from softlabels import open_store
from softlabels.errors import TransferSetError
from softlabels.recipes.letter_rows import FEATURES, letter_rows
from softlabels_stages import teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load

NAMES = [chr(65 + number) for number in range(26)]


@pytest.fixture
def letters(work: Path, rng: np.random.Generator) -> Path:
    """90 letters, of which each has numbers around a mean of its own."""
    (work / "letters").mkdir()
    labels, means = rng.integers(12, 17, 90), rng.integers(3, 13, (26, 16))
    rows = np.clip(means[labels] + rng.integers(-2, 3, (90, 16)), 0, 15)
    kinds = {name: datasets.Value("int8") for name in FEATURES} | {"label": datasets.ClassLabel(names=NAMES)}
    data = dict(zip(FEATURES, rows.T.tolist(), strict=True)) | {"label": labels.tolist()}
    for split, part in {"train": slice(0, 70), "test": slice(70, 90)}.items():
        table = datasets.Dataset.from_dict({n: v[part] for n, v in data.items()}, features=datasets.Features(kinds))
        table.to_parquet(work / "letters" / f"{split}.parquet")
    return work / "letters"


def test_from_letters_to_a_table(letters: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = load("letter")["teacher"]["members"][:5]
    small = {"max_iter": 3, "n_neighbors": 3}
    for member in members:
        member["init_args"] |= {name: value for name, value in small.items() if name in member["init_args"]}
    words = [
        "--config=letter",
        "--transfer_set.factory.init_args.source=./letters",
        "--transfer_set.splits={train: 'train[:50]', validation: 'train[50:]', test: test}",
        "--transfer_set.pseudo_data.rows=60",
        f"--teacher.members={json.dumps(members)}",
    ]
    assert train_teacher.main([*words, "--teacher_training.epochs=1"]) == 0
    assert "100 of 150 training rows have no hard label and are left out" in capsys.readouterr().out
    assert teacher_logits.main([*words, "--store=s"]) == 0
    store = open_store("s", split="train")
    assert "; 100 pseudo rows (munge: passes 2, probability" in store.manifest.about.source
    labels = store.column("label")
    assert ((labels >= 0) == (np.arange(150) < 50)).all()
    quick = ["--epochs=1", "--seeds=0,1", "--weights=[5,3,2,0,1]", "--loss=forward_kl,logit_mse"]
    assert train_student.main([*words, "--store=s", *quick, "--out=run"]) == 0
    capsys.readouterr()
    letter.main(["run"])
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[1] for line in table][3:5] == ["networks alone", "ensemble"]
    own = open_store("s", split="test")
    wrong = own.probabilities(range(20), temperature=1.0, weights=[5, 3, 2, 0, 1])[:, 1] - own.column("label")
    assert float(table[4][2]) == pytest.approx(math.sqrt(np.mean(wrong**2)), abs=1e-4)
    assert [line[1] for line in table][5:7] == ["student, forward_kl", "student, logit_mse"]


def test_the_other_task_differs_in_its_letters_and_its_members() -> None:
    one, other = load("letter"), load("letter_p2")
    assert other["transfer_set"]["factory"]["init_args"].pop("positive") == "ABCDEFGHIJKLM"
    assert one["transfer_set"]["factory"]["init_args"].pop("positive") == "O"
    for recipe in (one, other):
        recipe["name"] = recipe["transfer_set"]["name"] = recipe["teacher"] = recipe["training"]["weights"] = None
    assert one == other


def test_letters_that_a_source_does_not_name(letters: Path) -> None:
    with pytest.raises(TransferSetError, match="has no letter 'o' in label"):
        letter_rows(split="train", source=str(letters), positive="o")
