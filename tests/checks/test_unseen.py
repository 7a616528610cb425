"""Classes of another split that no training row has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels.checks.unseen import unseen_lines
from softlabels_stages import teacher_logits, train_student
from tests.checks.recipes import write_recipe

MORE = " (a file whose rows are sorted by class is shuffled before it is cut into splits)"


def lines(names: list[str] | None = None, **labels: list[int]) -> list[str]:
    return list(unseen_lines({split: np.array(each, np.int64) for split, each in labels.items()}, names))


def test_one_line_a_split() -> None:
    labels = {"train": [0, 2, -1, 2], "validation": [2, 0, -1], "test": [3, 1, 0, 1]}
    assert lines(**labels) == [f"2 of 3 classes of test have no row in train: 1, 3{MORE}"]
    assert lines(["a", "b", "c", "d"], **labels) == [f"2 of 3 classes of test have no row in train: b, d{MORE}"]
    assert lines(train=[0], test=list(range(12)))[0].endswith(
        " have no row in train: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..." + MORE
    )
    assert lines(train=[-1, -1], test=[0, 1]) == lines(test=[0]) == lines(train=[], test=[0]) == []


def test_teacher_logits_and_train_student_say_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    write_recipe(work / "r.yaml")
    file = work / "data" / "train.parquet"
    table = pq.read_table(file)
    pq.write_table(table.filter(pc.field("label") != 3), file)
    expected = f"1 of 5 classes of test have no row in train: 3{MORE}\n"
    assert teacher_logits.main(["--config=r.yaml", "--store=s"]) == 0
    assert expected in capsys.readouterr().out
    assert train_student.main(["--config=r.yaml", "--store=s", "--out=run"]) == 0
    assert expected in capsys.readouterr().out
