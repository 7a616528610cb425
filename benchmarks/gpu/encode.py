"""How many positions a second become columns, beside torch.topk alone of the same logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.gpu.asking import asked, seconds
from softlabels.labels.encoding import DenseEncoding, TopkEncoding

LOWRANK = TopkEncoding(k=16, tail="lowrank", rank=64, fine=16)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a section."""
    device, small = asked(__doc__ or "", argv)
    print("\n## Encoding\n\nLogits on the device to columns, with every check and what was lost measured.\n")
    print("| labels | classes | positions a call | positions/s | MB/s of columns | torch.topk alone, positions/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, encoding, classes, count in (
        ("dense", DenseEncoding(), 1_000, 256 if small else 65_536),
        ("topk, lowrank", LOWRANK, 2_000 if small else 151_936, 64 if small else 2_048),
    ):
        logits = torch.randn(count, 1, classes, device=device) * 3
        basis = torch.randn(1 + LOWRANK.rank, classes).half().to(device) if encoding is LOWRANK else None
        columns, _ = encoding.encode(logits, basis=basis)
        size = sum(torch.as_tensor(each).nbytes for each in columns.values())
        took = seconds(lambda e=encoding, z=logits, b=basis: e.encode(z, basis=b), device)  # type: ignore[misc]
        alone = seconds(lambda z=logits: z.topk(LOWRANK.k), device)  # type: ignore[misc]
        cells = [f"{count / took:,.0f}", f"{size / took / 1e6:,.0f}", f"{count / alone:,.0f}"]
        print(f"| {name} | {classes:,} | {count:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
