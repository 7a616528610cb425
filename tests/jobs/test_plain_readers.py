"""A store that was pushed, opened by what other people have, in an environment of its own without softlabels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from softlabels.jobs.share import pull, push
from softlabels.jobs.write_store import write_store
from tests.jobs.hub import FakeHub

ROOT = Path(__file__).parents[2]
PACKAGES = ("datasets", "duckdb", "polars", "tensorstore", "zarr")
NAMES = ["cat", "no: dog", "owl \N{OWL}", "'"]


def environment(folder: Path) -> Path:
    """A Python with the packages, from the index. Skips where that gives none."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python, words = folder / "bin" / "python", ["-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    found = subprocess.run([python, *words, *PACKAGES], check=False, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"the index gives no packages: {found.stderr[-300:]}")
    return python


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:.*content=:DeprecationWarning")
def test_values_and_class_names_without_softlabels(hub: FakeHub, tmp_path: Path, rng: np.random.Generator) -> None:
    truth = {}
    for split, rows in (("train", 230), ("test", 70)):
        logits, labels = rng.normal(size=(rows, 2, 4), scale=3), rng.integers(0, 4, rows)
        truth |= {f"{split}_logits": logits.astype(np.float32), f"{split}_labels": labels}
        for layout in ("arrow", "zarr"):
            write_store(
                tmp_path / layout / split, truth[f"{split}_logits"], inputs=np.arange(rows)[:, None], labels=labels,
                classes=NAMES, rows_per_shard=64, layout=layout,
            )  # fmt: skip
    for layout in ("arrow", "zarr"):
        push(tmp_path / layout, f"hf://datasets/team/{layout}")
        pull(f"hf://datasets/team/{layout}", tmp_path / f"pulled-{layout}")
    np.savez(tmp_path / "truth.npz", **truth)
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
    plain |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": os.environ["HF_TOKEN"], "HF_HOME": str(tmp_path / "home")}
    found = subprocess.run(
        [environment(tmp_path / "venv"), Path(__file__).with_name("read_plainly.py"), tmp_path],
        env=plain | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    print(found.stdout)
    assert found.returncode == 0, found.stderr
    assert found.stdout.endswith("all as it was put in\n")
