"""Whether a GPU stores what a CPU does: the same logits encoded on both, column by column, and the fidelity table of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.gpu.asking import asked
from benchmarks.gpu.encode import LOWRANK
from softlabels.labels.encoding import DenseEncoding
from softlabels.labels.lost import LostTable


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print a section."""
    device, small = asked(__doc__ or "", argv)
    classes, count = (500, 32) if small else (50_257, 512)
    logits = torch.randn(count, 1, classes) * 3
    basis = torch.randn(1 + LOWRANK.rank, classes).half()
    print(
        f"\n## The same labels\n\n{count} positions of {classes:,} classes, encoded on {device.type} and on the CPU.\n"
    )
    lines = [
        "| labels | T | KL, CPU | device | largest KL, CPU | device |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, encoding, own in (("dense", DenseEncoding(), None), ("topk, lowrank", LOWRANK, basis)):
        here, lost_here = encoding.encode(logits, basis=own)
        there, lost_there = encoding.encode(logits.to(device), basis=None if own is None else own.to(device))
        shares = []
        for column, values in here.items():
            one, another = torch.as_tensor(values), torch.as_tensor(there[column]).cpu()
            differing = (
                (one.contiguous().view(torch.uint8) != another.contiguous().view(torch.uint8)).double().mean().item()
            )
            shares.append(f"{column} {differing:.1e}")
        print(f"- {name}, bytes that differ: {', '.join(shares)}")
        tables = [LostTable.of([each]).fidelity for each in (lost_here, lost_there)]
        for temperature, found in tables[0].items():
            other = tables[1][temperature]
            cells = [f"{each:.3g}" for each in (found.kl_mean, other.kl_mean, found.kl_max, other.kl_max)]
            lines.append(f"| {name} | {temperature} | {' | '.join(cells)} |")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
