"""Tables hold the numbers that they were given, and the spread is the textbook's."""

from __future__ import annotations

import re

import numpy as np
import pytest

from softlabels.report.spread import paired_difference, spread
from softlabels.report.table import as_markdown, as_text, results_table


def test_spread_against_numpy(rng: np.random.Generator) -> None:
    values, others = rng.normal(size=(2, 7)).tolist()
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    difference = paired_difference(values, others)
    assert difference.mean == pytest.approx(np.mean(values) - np.mean(others))
    assert difference.standard_error == pytest.approx(np.std(np.subtract(values, others), ddof=1) / 7**0.5)


def test_one_value_has_no_spread() -> None:
    assert (spread([3.0]).deviation, spread([3.0]).standard_error) == (None, None)


def test_a_table_holds_each_measure_in_its_column(rng: np.random.Generator) -> None:
    runs = [
        {"errors": int(e), "nll": n, "ece": c, "brier": b, "agreement": g, "kl": {"1": k, "2.5": q}}
        for e, n, c, b, g, k, q in zip(rng.integers(5, 90, 3), *rng.random((6, 3)).tolist(), strict=True)
    ]
    table = results_table([("hard", runs), ("one", runs[:1]), ("unmeasured", [{}])], temperatures=[2.5, 1])
    assert table.titles == ("", "errors", "NLL", "ECE", "Brier", "agreement", "KL at T=1", "KL at T=2.5")
    hard, one, unmeasured = table.lines
    kls = [run["kl"]["2.5"] for run in runs]
    assert hard[-1] == f"{np.mean(kls):.4f} ± {np.std(kls, ddof=1):.4f}"
    assert hard[1] == f"{np.mean([r['errors'] for r in runs]):.1f} ± {np.std([r['errors'] for r in runs], ddof=1):.1f}"
    assert one[1:3] == (str(runs[0]["errors"]), f"{runs[0]['nll']:.3f}")
    assert set(unmeasured[1:]) == {""}

    text = as_text(table).splitlines()
    assert {line.index(cell) + len(cell) for line, cell in zip(text[2:4], (hard[1], one[1]), strict=True)} == {
        text[0].index("errors") + max(len("errors"), 0)
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in as_markdown(table).splitlines()]
    assert rows[2] == list(hard)
    assert all(re.fullmatch(r"-+:?", cell) for cell in rows[1])
