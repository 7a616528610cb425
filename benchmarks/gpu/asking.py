"""What the questions share: their options, and how long something takes on a device."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def asked(purpose: str, argv: Sequence[str] | None) -> tuple[torch.device, bool]:
    """The device, and whether sizes are small, as a rehearsal has them."""
    parser = argparse.ArgumentParser(description=purpose.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1 or cpu")
    parser.add_argument("--size", choices=["small", "full"], default="full", help="small: shows that it runs")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    if options.size == "small":
        torch.set_num_threads(1)
    return torch.device(options.device), options.size == "small"


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(act: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    """Median wall time of some rounds, after one that does not count."""
    took = []
    for _ in range(rounds + 1):
        finish(device)
        began = time.perf_counter()
        act()
        finish(device)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])
