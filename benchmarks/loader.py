"""How many rows of soft labels a shuffled reader gives for a second of the processor.

Ours beside what one would use without it, each in its own format and in an interpreter of its own: dense labels of 1,000
classes, top-k labels, dense labels with their inputs, and dense labels behind torch's `DataLoader` with two worker processes,
as other training loops want them. Everyone gives batches of 512 rows as tensors, all columns, and hard labels with them; how
well the rows are mixed stands beside each.

    python -m benchmarks.loader --output benchmarks/results/loader.md       four minutes of two idle cores
    python -m benchmarks.loader --rows 1000000                              larger
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.harness import keep, options_of, session, table, ways
from benchmarks.peers.reader import BATCH, CHUNK

PARTS = {
    "dense": ("dense", "Dense labels", "float16, 1,000 classes, 2,016 bytes a row"),
    "topk": ("topk", "Top-k labels", "ids and logits of 31 of 50,257 classes, 140 bytes a row"),
    "inputs": ("inputs", "Dense labels with their inputs", "images of 3,072 bytes beside them, 5,088 bytes a row"),
    "workers": (
        "dense",
        "Dense labels in a DataLoader with two worker processes",
        "those readers that are a `DataLoader`",
    ),
}
HEAD = (
    "peer", "reader", "rows are shuffled among", "blocks in a batch", "krows a CPU-second", "first epoch", "krows a second",
    "MB of memory",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Write and read each kind of rows by each peer, print the tables."""
    options = options_of(__doc__ or "", argv, parts=list(PARTS), rows=16_384)
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        asked = session(folder, options)
        written = set()
        for part in options.parts:
            kind = PARTS[part][0]
            modes, workers = "read" if kind in written else "write,read", ["--workers=2"] if part == "workers" else []
            written.add(kind)
            answers[part] = asked.ask(modes, kind, options.rows, *workers)["read"]
    runs = options.rows / CHUNK
    most = runs * (1 - (1 - 1 / runs) ** BATCH)
    lines = [
        "# How many rows of soft labels a shuffled reader gives for a second of the processor",
        "",
        f"`python -m benchmarks.loader --rows {options.rows} --parts {' '.join(options.parts)}`: "
        "the page cache is warm, batches have 512 rows. Each reader "
        "gives two to five whole epochs: the first, which starts with opening the files, and the best of the others. Processor "
        "time is that of all threads and worker processes. Memory is what the process held at most, above what it held "
        "before, mapped files included.",
        "",
        "Blocks in a batch: from how many runs of 512 rows, as they were written, the rows of a batch come (median of eight "
        f"batches). A shuffle of all rows gives {most:.0f}; the fewer, the more alike are neighbours of a file and of a batch.",
        "",
        *asked.notes(),
    ]
    for part in options.parts:
        _, title, what = PARTS[part]
        lines += [
            "",
            f"## {title}",
            "",
            f"{what[0].upper()}{what[1:]}.",
            "",
            *table(HEAD, ways(answers[part], show), words=3),
        ]
    keep(lines, answers, options.output)


def show(found: dict[str, Any]) -> list[str]:
    """A reader's cells."""
    first = rate(found["epochs"][0], "cpu_s")
    wall = max(rate(each, "wall_s") for each in found["epochs"][1:])
    return [
        found["shuffle"],
        f"{found['mixed']:,.0f}",
        f"{best(found):,.1f}",
        f"{first:,.1f}",
        f"{wall:,.1f}",
        f"{found['peak_mb']:,.0f}",
    ]


def best(found: dict[str, Any]) -> float:
    """Thousands of rows a CPU-second, of the best epoch but the first."""
    return max(rate(each, "cpu_s") for each in found["epochs"][1:])


def rate(epoch: dict[str, float], clock: str) -> float:
    """Thousands of rows a second."""
    return epoch["rows"] / epoch[clock] / 1e3


if __name__ == "__main__":
    main()
