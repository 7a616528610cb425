"""Compare two stores: softlabels diff A B.

It compares the specifications, field by field, lists rows that only one store has, and compares the hard labels and
distributions of the rows that both have: how often the largest class is the same, KL(A || B) and KL(B || A) in nats by
temperature and by class, and the rows that differ most. Rows are matched by content key, in any order; classes with names are
matched by name. The exit code is 0 if nothing differs, else 4.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from softlabels.errors import ConfigError, one_line, some
from softlabels.jobs.diff import diff
from softlabels.jobs.watch import counted
from softlabels.labels.fidelity import nats
from softlabels.objects import plain
from softlabels.report.table import Table, as_text
from softlabels.store.apart import StoreDiff
from softlabels.store.apart_target import Moved, TargetDiff
from softlabels_stages.arguments import Diff
from softlabels_stages.run import say, stage

DIFFERENT = 4  # the exit code
_CLASSES = 10  # that are shown


@stage("diff")
def main(args: Diff) -> int:
    """Compare them."""
    if not args.a or not args.b:
        raise ConfigError("two stores are needed", remedy="write softlabels diff A B")
    found = diff(args.a, args.b, temperatures=args.temperatures, most=args.most, rename=args.rename, splits=args.splits)
    if args.json:
        described = {split: facts(each) for split, each in found.items()}
        print(json.dumps(next(iter(described.values())) if len(described) == 1 else described, indent=1))
    else:
        say(f"A is {one_line(args.a, None)}, B is {one_line(args.b, None)}")
        for split, each in found.items():
            for line in lines(each):
                say(f"{one_line(split)}: {line}" if line and not line.startswith(" ") else line)
    return 0 if all(each.equal for each in found.values()) else DIFFERENT


def facts(found: StoreDiff) -> dict[str, Any]:
    """What `--json` prints of a split."""
    fields = [{"field": leaf.path, "a": leaf.theirs, "b": leaf.ours} for leaf in found.specification]
    targets = {}
    for name, each in found.targets.items():
        rows = {part: [line._asdict() for line in getattr(each, part)] for part in ("lines", "classes", "moved")}
        errors = None if each.errors is None else {"rmse": each.errors.rmse, "largest": each.errors.largest}
        targets[name] = plain(each) | rows | {"errors": errors, "equal": each.equal}
    said: dict[str, Any] = plain(found)
    return said | {"equal": found.equal, "specification": fields, "targets": targets}


def lines(found: StoreDiff) -> Iterator[str]:
    """The same for people."""
    if found.equal:
        yield f"no differences in {counted(found.rows, 'row')}"
        return
    yield f"{counted(len(found.specification), 'field')} of the specification {_verb(len(found.specification), 'differ')}"
    yield from (f"  {one_line(leaf.said('in A', 'in B'), None)}" for leaf in found.specification)
    yield f"{counted(found.rows, 'row')} in both, {found.only[0]:,} only in A, {found.only[1]:,} only in B"
    for name, count, rows in zip("AB", found.only, found.only_rows, strict=True):
        if rows:
            yield f"  only in {name}: row {_first(rows, count)}"
    if found.other_inputs:
        rows_of = [f"{a} / {b}" for a, b in found.other_input_rows]
        yield f"  {counted(found.other_inputs, 'row')} (A / B: {_first(rows_of, found.other_inputs)}) with other inputs"
    for name, why in found.left_out.items():
        yield f"target {name or 'without a name'} is not compared: {one_line(why, None)}"
    for name, each in found.targets.items():
        yield from (f"{f'target {name}, ' * bool(name and i == 0)}{line}" for i, line in enumerate(_target(each)))
    if not found.same_content and not found.specification and all(each.equal for each in found.targets.values()):
        yield "the stored bytes differ (for example those of single members), but everything compared here is equal"


def _target(each: TargetDiff) -> Iterator[str]:
    if each.errors is not None:
        yield f"values: RMSE {each.errors.rmse:.3g}, largest difference {each.errors.largest:.3g}"
    elif each.lines:
        yield f"{each.lines[0].positions:,} distributions of both"
        heads = ("", "same largest", "KL(A || B)", "largest", "KL(B || A)", "largest")
        rows = [(f"T = {line.temperature:g}", f"{line.agreement:.4f}", *map(nats, line[3:])) for line in each.lines]
        yield from _table(Table(heads, tuple(rows)))
    if each.other_labels:
        rows_of = [f"{a} / {b}" for a, b in each.other_label_rows]
        yield f"  {counted(each.other_labels, 'row')} (A / B: {_first(rows_of, each.other_labels)}) with another hard label"
    if each.labels_of_one:
        yield f"  {counted(each.labels_of_one, 'row')} whose hard label only one store has"
    if each.counted_by_one:
        yield f"  {counted(each.counted_by_one, 'position')} that only one store counts"
    if each.moved:
        worst = sorted(each.classes, key=lambda one: -(float("inf") if one.forward is None else one.forward))
        apart = "RMSE" if each.errors is not None else "KL(A || B)"
        yield f"  classes that changed most, of {len(each.classes):,}:"
        rows = [(c.name, f"{c.positions:,}", f"{c.agreement:.4f}", nats(c.forward)) for c in worst[:_CLASSES]]
        yield from _table(Table(("", "count", "same", apart), tuple(rows)))
        last = "a number and its value" if each.errors is not None else "a class and its probability"
        yield f"  rows that changed most, A / B; at the end {last}, A -> B:"
        yield from (f"    {_moved(one, apart)}" for one in each.moved)


def _moved(one: Moved, apart: str) -> str:
    at = "" if one.position is None else f", position {one.position}"
    before, after = (one_line(name) for name in one.classes)
    numbers = f"{before} {one.numbers[0]:.4g} -> {after if after != before else ''} {one.numbers[1]:.4g}".replace(
        "  ", " "
    )
    back = "" if apart == "RMSE" else f", KL(B || A) {nats(one.backward)}"
    return f"row {one.rows[0]} / {one.rows[1]}{at}, key {one.key}: {apart} {nats(one.forward)}{back}; {numbers}"


def _table(table: Table) -> list[str]:
    return [f"    {line}" for line in as_text(table).splitlines()]


def _first(rows: Sequence[object], count: int) -> str:
    shown = [str(row) for row in rows]
    return some(shown, len(shown)) + (f" and {count - len(shown):,} more" if count > len(shown) else "")


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb


if __name__ == "__main__":
    sys.exit(main())
