"""The comparison that ends a student run: teacher, students with hard labels, distilled students, on one held-out split.

Made from the mapping that `results.json` holds, and from nothing else, so that a finished run can be shown again::

    {"split": "test", "rows": 500, "temperatures": [1.0, 4.0], "seeds": [0, 1],
     "teacher": {"ensemble": [scores, ..], "members": {"name": [scores, ..]}},
     "students": {"distilled": [scores, ..], "hard": [scores, ..]}}

Scores stand one a seed (one in all for a teacher judged once), with the names of `metrics.jsonl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.spread import Spread, paired_difference, spread
from pipeline.report.table import Scores, Table, as_markdown, as_text, results_table

Results = Mapping[str, Any]


def comparison_text(results: Results) -> str:
    """For a terminal: what was judged on, the table, what the difference is."""
    return "\n".join([_title(results), "", as_text(_table(results)), "", *_statements(results)])


def comparison_markdown(results: Results, *, title: str) -> str:
    """The same as a Markdown page."""
    lines = "\n".join(f"- {line}" for line in _statements(results))
    return f"# {title}\n\n{_title(results)}\n\n{as_markdown(_table(results))}\n{lines}\n"


def _title(results: Results) -> str:
    seeds = results["seeds"]
    spread_over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"Held-out split {results['split']!r}, {results['rows']} rows; students: {spread_over}."


def _table(results: Results) -> Table:
    teacher, students = results["teacher"], results["students"]
    lines: list[tuple[str, Sequence[Scores]]] = []
    if len(teacher["members"]) > 1:
        lines += [(f"teacher {name}", runs) for name, runs in teacher["members"].items()]
    lines.append(("ensemble" if len(teacher["members"]) > 1 else "teacher", teacher["ensemble"]))
    lines += [(f"student, {kind}", students[kind]) for kind in ("hard", "distilled") if kind in students]
    return results_table(lines, temperatures=results["temperatures"])


def _statements(results: Results) -> list[str]:
    distilled, hard = results["students"]["distilled"], results["students"].get("hard")
    lines = []
    if hard and all("errors" in scores for scores in [*hard, *distilled]):
        ahead = paired_difference(_errors(hard), _errors(distilled))
        lines.append(f"hard - distilled: {_difference(ahead)}")
    if all("errors" in scores for scores in [*results["teacher"]["ensemble"], *distilled]):
        teacher = _errors(results["teacher"]["ensemble"])
        behind = paired_difference(_errors(distilled), teacher * len(distilled) if len(teacher) == 1 else teacher)
        lines.append(f"distilled - its teacher: {_difference(behind)}")
    agreement = spread([scores["agreement"] for scores in distilled]).mean
    return [*lines, f"the distilled student gives its teacher's answer on {agreement:.1%} of the rows"]


def _difference(found: Spread) -> str:
    errors = f"{found.mean:+.1f} errors"
    if found.standard_error is None:
        return f"{errors} (one seed: no standard error)"
    paired = f"{errors}, standard error {found.standard_error:.1f} (paired over {found.count} seeds)"
    return f"{paired}: {found.mean / found.standard_error:.1f} standard errors" if found.standard_error else paired


def _errors(runs: Sequence[Scores]) -> list[float]:
    return [scores["errors"] for scores in runs]
