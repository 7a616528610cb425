"""A recipe over the rows of `samples` as a file, with the teacher and the student that a test asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from softlabels.models import save_weights
from tests.checks.samples import Model, exact, some_rows

ROWS = {"train": 96, "test": 48}


def write_recipe(
    path: Path, *, teacher: str = "identity", student: str = "identity", labels: Any = None, **changes: Any
) -> dict[str, np.ndarray]:
    """Write recipe, weights and Parquet files; returns the inputs by split. Hard labels are the teacher's own, renumbered by
    `labels` (C,) where it is given.
    """
    weights, found = path.parent / "teacher.safetensors", {}
    save_weights(Model(), weights)
    data = path.parent / "data"
    data.mkdir(exist_ok=True)
    for split, count in ROWS.items():
        inputs = found[split] = some_rows(np.random.default_rng(count), count)
        own = exact(inputs).argmax(-1)
        own = own if labels is None else np.asarray(labels)[own]
        pq.write_table(pa.table({"x": list(inputs), "label": own}), data / f"{split}.parquet")
    model = {"class_path": "tests.checks.samples.Model"}
    recipe = {
        "name": "checks",
        "transfer_set": {"source": str(data), "inputs": ["x"], "prepare": {"class_path": "softlabels.transfer.vector"}},
        "teacher": {
            "name": "it", "batch_size": 16, "device": "cpu",
            "members": [{**model, "init_args": {"last": teacher}, "weights": str(weights)}],
        },
        "student": {**model, "init_args": {"last": student}},
        "training": {"epochs": 1, "threads": 1, "device": "cpu", "seeds": [0], "baseline": False},
        "labels": {"rows_per_shard": 32, "rows_per_chunk": 16},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(recipe | changes))
    return found
