"""The recipe for tables on a small one: what was learnt of the columns is in the store, for students and for more rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from softlabels import open_store
from softlabels_stages import extend, teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load


def people(rng: np.random.Generator, rows: int, *cities: str) -> pd.DataFrame:
    """A table with empty fields, dates and names."""
    age, city = rng.integers(18, 90, rows), rng.choice(cities, rows)
    since = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 3000, rows), unit="D")
    frame = pd.DataFrame({"age": age, "income": rng.lognormal(10, 1, rows).round(2), "city": city})
    frame["since"] = since.strftime("%Y-%m-%d")
    frame["label"] = np.where(age + 20 * (city == cities[0]) + rng.normal(0, 10, rows) > 60, "yes", "no")
    return frame.mask(rng.random(frame.shape) < [0, 0.1, 0.1, 0, 0])


def test_a_table_from_its_files_to_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, data = np.random.default_rng(0), tmp_path / "data"
    data.mkdir()
    train = people(rng, 200, "Ulm", "Bonn", "Köln")
    train.to_csv(data / "train.csv", index=False)
    people(rng, 60, "Ulm", "Rom").to_csv(data / "test.csv", index=False)
    recipe = load("table")
    recipe["transfer_set"] |= {"source": "./data", "splits": {"train": "train", "test": "test"}}
    recipe["teacher"]["members"] = recipe["teacher"]["members"][:1]
    recipe["teacher"]["members"][0]["init_args"]["n_estimators"] = 5
    recipe["teacher"]["folds"], recipe["labels"]["inputs"] = None, "reference"
    recipe["student"]["init_args"] |= {"inputs": 9, "hidden": [4]}
    recipe["training"] |= {"epochs": 1, "seeds": [0], "baseline": False}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    words = ["--config=mine.yaml", "--store=store"]
    assert train_teacher.main(words[:1]) == 0
    said = capsys.readouterr()
    assert "train: 4 columns make 9 numbers a row (softlabels.transfer.table)" in said.err
    assert "softlabels teacher-logits --config=mine.yaml (" in said.out.splitlines()[-1]
    assert teacher_logits.main(words) == 0
    known = open_store("store/train").spec.preprocessing.arguments
    assert [each["kind"] for each in known["columns"]] == ["number", "number", "category", "date"]
    assert open_store("store/test").spec.preprocessing.arguments == known
    # more training rows, of which one alone would change what is known of incomes: the store's knowledge holds
    pd.concat([train, people(rng, 20, "Rom", "Ulm").assign(income=1e7)]).to_csv(data / "train.csv", index=False)
    assert extend.main(["store", "--config=mine.yaml", "--out=more"]) == 0
    assert open_store("more/train").rows == 220
    assert open_store("more/train").spec.preprocessing.arguments == known
    assert train_student.main(["--config=mine.yaml", "--store=more", "--out=run"]) == 0
    said = capsys.readouterr()
    assert "otherwise" not in said.err
    assert "'mean': " in (tmp_path / "run" / "README.md").read_text()
