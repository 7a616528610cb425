"""What the pages of results share: the machine that they were taken on, and where they go."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def machine(*packages: str, device: torch.device | None = None) -> str:
    """A line on the processor (the GPU where that is the device), torch's threads, the packages' versions and the load."""
    name = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else processor()
    threads = torch.get_num_threads()
    return (
        f"Machine: {name}, {os.cpu_count()} CPUs, {'one thread' if threads == 1 else f'{threads} threads'}, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; "
        f"{', '.join(f'{package} {version(package)}' for package in packages)}; load average {os.getloadavg()[0]:.1f}."
    )


def processor() -> str:
    """Its name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def publish(text: str, output: Path | None) -> None:
    """Print a page, and write it to `output` where that is given."""
    print(text, end="")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
