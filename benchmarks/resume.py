"""Whether a reader that was stopped in mid-epoch goes on with the right rows, and how soon the first batch comes.

Each peer gives an epoch of shuffled dense labels, then 60% of it by another reader, which keeps its place; another process goes
on from there. Counted: rows of the epoch that come twice, or never, and whether the rest comes in the order of the epoch that
was not stopped. First batches are timed from the opening of the files, in a process that has imported all it takes.

    python -m benchmarks.resume --output benchmarks/results/resume.md       two minutes of two idle cores
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.harness import Answers, Session, keep, options_of, session, table, ways

HEAD = (
    "peer", "reader", "rows are shuffled among", "keeps a place", "rows lost", "rows repeated", "same order",
    "first batch, ms", "of a resumed epoch, ms",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Stop and resume each peer, print the table."""
    options = options_of(__doc__ or "", argv, rows=16_384)
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        asked = session(folder, options)
        resumed = stopped_and_resumed(asked, "dense", options.rows)
    lines = [
        "# Whether a stopped reader goes on with the right rows",
        "",
        f"`python -m benchmarks.resume --rows {options.rows}`: dense labels of 1,000 classes, batches of 512 rows, stopped "
        "after 60% of an epoch, without worker processes. A loop by hand over arrays (NumPy, zarr-python, tensorstore, "
        "`datasets` map-style, `take` of Lance) keeps its place as the number of the batch: that is our script's, not the "
        "peer's. A reader without a place begins the epoch again.",
        "",
        "First batches: seconds of the processor, from opening the files; the wall clock stands in brackets.",
        "",
        *asked.notes(),
        "",
        *table(HEAD, ways(resumed, show), words=3),
    ]
    keep(lines, resumed, options.output)


def stopped_and_resumed(asked: Session, kind: str, rows: int) -> Answers:
    """What `show` shows of each peer that answered."""
    asked.ask("write,stop", kind, rows)
    fresh = asked.ask("first", kind, rows)["first"]
    resumed = asked.ask("resume", kind, rows)["resume"]
    for name, answer in resumed.items():
        for way, found in answer.items():
            found["fresh"] = fresh[name][way]
    return resumed


def show(found: dict[str, Any]) -> list[str]:
    """A reader's cells."""
    firsts = [f"{1e3 * each['cpu_s']:,.0f} ({1e3 * each['wall_s']:,.0f})" for each in (found["fresh"], found["first"])]
    place = ["yes" if found["keeps"] else "no", f"{found['lost']:,}", f"{found['repeated']:,}"]
    return [found["shuffle"], *place, "yes" if found["same_order"] else "no", *firsts]


if __name__ == "__main__":
    main()
