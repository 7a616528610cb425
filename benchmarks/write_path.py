"""How many bytes of labels go into a store for a second of the processor, where the teacher answers at once.

Every peer is given the same float16 logits of 1,000 classes, in blocks of 512 rows (row by row where its format takes rows),
and writes them in its own format, without compression. Ours also checks every value, hashes every chunk, measures what float16
lost and seals the store. The teacher stage is `label` as a whole, from float32 outputs of a model that only looks them up.

    python -m benchmarks.write_path --output benchmarks/results/write_path.md       one minute of two idle cores
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.harness import Answers, Peer, keep, options_of, session, table

ROUNDS = 2
STAGE = Peer("softlabels, teacher stage", "with_stage")
HEAD = ("peer", "MB a CPU-second", "MB a second", "bytes stored for one given", "MB of memory")


def main(argv: Sequence[str] | None = None) -> None:
    """Write by each peer in turn, print the table."""
    options = options_of(__doc__ or "", argv, rows=16_384)
    rounds: list[Answers] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
            asked = session(folder, options)
            asked.peers = [STAGE, *asked.peers]
            rounds.append(asked.ask("write", "dense", options.rows)["write"])
    best = {
        name: min((each[name] for each in rounds if name in each), key=lambda found: found["cpu_s"])
        for name in rounds[-1]
    }
    size = options.rows * 2016 / 1e6
    lines = [
        "# How many bytes of labels are written for a second of the processor",
        "",
        f"`python -m benchmarks.write_path --rows {options.rows}`: dense labels of 1,000 classes in float16, {size:,.0f} MB, "
        f"given in blocks of 512 rows; the better of {ROUNDS} rounds. softlabels checks every value, hashes every chunk, "
        "measures what float16 costs and seals the store; no peer does any of these. Its teacher stage is `label` from float32 "
        "outputs.",
        "",
        *asked.notes(),
        "",
        *table(HEAD, [[name, *show(found)] for name, found in best.items()]),
    ]
    keep(lines, best, options.output)


def show(found: dict[str, Any]) -> list[str]:
    """A peer's cells."""
    speed = [f"{found['bytes'] / found[clock] / 1e6:,.0f}" for clock in ("cpu_s", "wall_s")]
    return [*speed, f"{found['stored'] / found['bytes']:.3f}", f"{found['peak_mb']:,.0f}"]


if __name__ == "__main__":
    main()
