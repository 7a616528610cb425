"""The benchmark runs from end to end; what it measures is not looked at, but that every way was measured and all agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import fused_loss
from benchmarks.fused_loss import Size, own_memory


@pytest.mark.slow
def test_it_runs_on_a_small_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_process_of_its_own = fused_loss.memory

    def memory(
        way: str, size: Size, device: str
    ) -> int:  # a process of its own for one way, the others are quicker here
        return (
            in_a_process_of_its_own(way, size, device)
            if way == "fused"
            else own_memory(way, size, torch.device(device))
        )

    monkeypatch.setattr(fused_loss, "memory", memory)
    out = tmp_path / "page.md"
    sizes = ["--positions=64", "--classes=512", "--width=8", "--timed=32", "--rounds=1", "--device=cpu"]
    fused_loss.main([*sizes, f"--output={out}"])
    page = out.read_text()
    for title, _ in fused_loss.WAYS.values():
        assert page.count(f"| {title} |") == 2
    [line] = [line for line in page.splitlines() if line.startswith("Gradients of two ways")]
    assert "e-0" in line
