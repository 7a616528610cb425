"""The examples of docs/loops.md that the tests of code blocks leave out, with a look at the rows that they teach. Lightning has
an environment of its own: `make lightning`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from softlabels import SoftLabelBatches, SoftLabelDataset
from tests.docs.test_code_blocks import ROOT, blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of the trainers
]
CODE = [code for kind, code, _ in blocks((ROOT / "docs" / "loops.md").read_text()) if kind == "python"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows whose soft labels were asked for, one after the other."""
    rows: list[int] = []
    for kind in (SoftLabelBatches, SoftLabelDataset):
        asked = kind.soft_labels

        def soft_labels(self, batch, target="", asked=asked):
            rows.extend(batch["row"].tolist())
            return asked(self, batch, target)

        monkeypatch.setattr(kind, "soft_labels", soft_labels)
    return rows


@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
def test_trainers_teach_every_row_once_an_epoch(trainer: str, seen, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(trainer)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    parts = [code for code in CODE if f"import {trainer}" in code or f"from {trainer}" in code]
    if trainer == "transformers":
        parts.append(next(code for code in CODE if "DistilledRows" in code))
    for code in (CODE[0], next(code for code in CODE if "data = SoftLabelDataset" in code)):
        exec(compile(code, "loops.md", "exec"), namespace)
    for code in parts:
        seen.clear()
        exec(compile(code, "loops.md", "exec"), namespace)
        first, second = seen[:200], seen[200:]
        assert sorted(first) == sorted(second) == list(range(200))
        assert first != second
