"""The page's head: on what it was taken, and whether that was a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.gpu.asking import asked
from benchmarks.page import machine


def main(argv: Sequence[str] | None = None) -> None:
    """Print it."""
    device, small = asked(__doc__ or "", argv)
    print("# On a GPU\n\nTaken by `sh benchmarks/gpu.sh`; times are wall times, medians of some rounds.")
    if device.type != "cuda":
        print(
            "\n**No GPU was at hand: this is a rehearsal on a CPU. It shows that the script runs; its times say nothing.**"
        )
    print(f"\nSizes: {'small' if small else 'full'}. {machine('torch', device=device)}")


if __name__ == "__main__":
    main()
