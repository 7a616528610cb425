"""The benchmarks run from end to end; what they measure is not looked at, but that every table has its rows. What others
keep is a distribution, and the right one at T = 1.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import sampled_tail
from benchmarks.any_temperature import __main__ as any_temperature
from benchmarks.any_temperature import frontier, logits


def rows(page: str, title: str) -> list[str]:
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


@pytest.mark.slow
def test_it_runs_on_made_up_logits(tmp_path: Path) -> None:
    any_temperature.main(
        ["--quick", "--positions=16", f"--output={tmp_path / 'page.md'}", f"--plot={tmp_path / 'plot.png'}"]
    )
    page = (tmp_path / "page.md").read_text()
    assert "none were given" in page
    assert len(rows(page, "Tail mass and stored classes")) == 3 * 5
    assert len(rows(page, "Speed")) == 3
    assert [row.split(" | ")[0] for row in rows(page, "Spectra")] == [
        "| made up, variance j^-1.5", "| made up, variance j^-1",
    ]  # fmt: skip
    assert len(rows(page, "Settings")) == 3 + 2 * 5
    assert len(rows(page, "Frontier")) == 2 * len(frontier.SHAPES)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("page.png", "plot.png"))


def test_the_recommended_settings_fit() -> None:
    assert frontier.LARGE.bytes() == 128
    assert frontier.SMALL.bytes() == 48
    assert frontier.LARGE.bytes(50_257) == 126


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_others_keep_is_right_at_one_temperature(
    ghost: bool, temperature: float, rng: np.random.Generator
) -> None:
    z = logits.below_peak(torch.tensor(rng.normal(size=(5, 40)) * 3))
    found = frontier.others_log_probs(z, 4, temperature, ghost=ghost).exp()
    assert torch.allclose(found.sum(dim=-1), torch.ones(5, dtype=torch.float64), atol=1e-6)
    top = z.topk(4, dim=-1).indices
    close = torch.isclose(found.gather(1, top), torch.softmax(z / temperature, dim=-1).gather(1, top), rtol=2e-2)
    assert close.all() if temperature == 1 else not close.all()


@pytest.mark.slow
def test_sampled_tails_are_unbiased_and_the_page_has_every_way(tmp_path: Path) -> None:
    z = logits.below_peak(torch.tensor(np.random.default_rng(0).normal(size=(1, 12)), dtype=torch.float32) * 2).repeat(
        40_000, 1
    )
    estimate = sampled_tail.sampled(z, z / 2, 4)(torch.arange(len(z)), 1.3).mean(dim=0)
    assert torch.allclose(estimate, torch.softmax(z[0] / 1.3, dim=-1), atol=5e-3)
    sampled_tail.main(["--positions=64", "--steps=2", f"--output={tmp_path / 'page.md'}"])
    page = (tmp_path / "page.md").read_text()
    for temperature in sampled_tail.TEMPERATURES:
        found = rows(page, f"T = {temperature:g}")
        assert len(found) == 1 + 5 * len(sampled_tail.TAIL_BYTES)
        assert all(re.fullmatch(r"\| [^|]+ \| (?:[\d.]+ / [\d.]+ \| ){3}[\d.]+ \|", row) for row in found)
