"""Results as a table: one line a model, one column a measure, mean ± spread where there are several seeds.

Scores come as plain mappings with the names of `metrics.jsonl` (`errors`, `nll`, `kl`: {"1": ..}, ..); a measure that
was not taken stays empty, one that is infinite (null in JSON, which has no infinity) says so.
The same table is laid out for a terminal (`as_text`) and as Markdown (`as_markdown`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from softlabels.errors import one_line
from softlabels.labels.fidelity import Fidelity, by_temperature, nats
from softlabels.labels.targets import Target
from softlabels.report.measures import SHOWN, Measure, Scores, kl_at
from softlabels.report.spread import spread
from softlabels.store.markdown import escaped


@dataclass(frozen=True)
class Table:
    """Titles of the columns, and one list of cells a line; the first column is the name of what was measured."""

    titles: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def with_column(self, title: str, cells: Sequence[str], *, after: str) -> Table:
        """The table with one more column, to the right of the one titled `after`."""
        place = self.titles.index(after) + 1
        lines = zip(self.lines, cells, strict=True)
        return Table(
            (*self.titles[:place], title, *self.titles[place:]),
            tuple((*line[:place], cell, *line[place:]) for line, cell in lines),
        )

    def without(self, *titles: str) -> Table:
        """The table without these columns."""
        kept = [place for place, title in enumerate(self.titles) if title not in titles]
        return Table(
            tuple(self.titles[place] for place in kept),
            tuple(tuple(line[place] for place in kept) for line in self.lines),
        )


def results_table(
    lines: Sequence[tuple[str, Sequence[Scores]]], *, temperatures: Sequence[float], target: Target = "softmax"
) -> Table:
    """Names with the scores of each of their runs (one a seed) on a target of this kind; where it has temperatures, a column
    of KL for each, and for 1 where none is given.
    """
    shown = SHOWN[target]
    columns = [*shown.columns, *(kl_at(t) for t in sorted({*temperatures} or {1.0}) if shown.has_temperature)]
    titles = ("", *(measure.title for measure in columns))
    return Table(titles, tuple((name, *(cell(runs, measure) for measure in columns)) for name, runs in lines))


def fidelity_table(fidelity: Mapping[str, Fidelity], *, up_to: float = math.inf) -> Table:
    """What storing lost, a line a temperature up to `up_to`."""
    lines = (
        (t, nats(f.kl_mean), nats(f.kl_max), f"{f.tail_mass_error:.1e}", f"{f.top1_agreement:.2%}")
        for t, f in by_temperature(fidelity)
        if float(t) <= up_to
    )
    return Table(("T", "mean KL", "largest KL", "tail mass error", "same top class"), tuple(lines))


def cell(runs: Sequence[Scores], measure: Measure) -> str:
    """Mean and spread of a measure; empty where it was not taken."""
    values = measure.found(runs)
    if not values:
        return ""
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    if len(numbers) < len(values):
        return "inf"
    found = spread(numbers)
    if found.deviation is None:
        return str(numbers[0]) if isinstance(numbers[0], int) else f"{found.mean:{measure.form}}"
    return f"{found.mean:{measure.form}} ± {found.deviation:{measure.form}}"


def as_text(table: Table) -> str:
    """Aligned columns for a terminal: names to the left, numbers to the right."""
    rows = [tuple(map(one_line, line)) for line in (table.titles, *table.lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.titles))]
    lines = []
    for name, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([lines[0], rule, *lines[1:]])


def as_markdown(table: Table) -> str:
    """A Markdown table; names are escaped, so that one from a stranger's store stays in its cell."""
    rows = [tuple(map(escaped, table.titles)), ("---", *["---:"] * (len(table.titles) - 1))]
    rows += [(escaped(name), *numbers) for name, *numbers in table.lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
