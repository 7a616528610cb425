"""A student's step with stored labels against the same with hard labels alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.asking import asked
from benchmarks.student import BATCH, MEMBERS, WALL, label, made_up, named, teacher, trained
from softlabels.models.device import warm_up


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a section."""
    device, small = asked(__doc__ or "", argv)
    warm_up()
    rows, rounds = made_up(512 if small else 12_800), 1 if small else 5
    steps = -(-len(rows.keys) // BATCH)
    print(f"\n## A student's step\n\nBatches of {BATCH}, labels of {MEMBERS} members; medians of {rounds} epochs.\n")
    print("| student | hard labels, ms | stored labels, ms | ratio |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as name:
        folder = Path(name)
        store = label(folder / "store", rows, teacher(MEMBERS))
        for hidden in ((30, 30), (800, 800)) if small else ((30, 30), (800, 800), (8192, 8192)):
            of = {"device": str(device), "threads": None}
            pairs = [
                (
                    trained(folder, rows, None, [{**of, "hard_weight": 1.0, "soft_weight": 0.0}], hidden)[WALL],
                    trained(folder, rows, store, [of], hidden)[WALL],
                )
                for _ in range(rounds + 1)
            ][1:]
            hard, soft = torch.tensor(pairs).median(dim=0).values.tolist()
            ratio = torch.tensor([b / a for a, b in pairs]).median().item()
            print(f"| {named(hidden)} | {hard / steps * 1e3:.3f} | {soft / steps * 1e3:.3f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
