"""Errors of a student of a partial transfer set: as it is, corrected without labels, and tuned on the test set.

    python -m benchmarks.missing_classes RUN [RUN/corrected ...]

RUN is a run of `train-student --only_classes=...`, RUN/corrected what `softlabels correct` made of it. For each folder and
student: errors on the test split, how many of them on rows of the classes that were left out, and, as Hinton, Vinyals, Dean
2015 did, the fewest errors that any single number added to the missing classes' logits gives on the very rows that judge it.
The tuned figure uses the test labels: it is a bound to compare with, not a result.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch
import yaml

from softlabels.jobs.splits import all_batches, open_splits
from softlabels.models import ModelConfig, build_model
from softlabels.recipes.prior import predictions
from softlabels.student.trainer import WEIGHTS
from softlabels.transfer import TransferSetConfig
from softlabels_stages.schema import typed

GRID = np.arange(-2, 15.01, 0.1)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | seeds | errors | of them on missing classes | tuned on test | number added |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for run in parser.parse_args().runs:
        found = np.array(judged(run))
        cells = [f"{column.mean():.1f} ± {spread(column):.1f}" for column in found.T]
        print(f"| {run} | {len(found)} | {' | '.join(cells)} |")


def judged(run: Path) -> list[tuple[float, float, float, float]]:
    """(errors, errors on missing classes, fewest errors of any number added to them, that number) of each distilled student."""
    recipe = yaml.safe_load((run / "config.yaml").read_text())
    store = json.loads((run / "results.json").read_text())["store"]
    section = recipe.get("transfer_set")
    rows = None if section is None else typed(TransferSetConfig, section, where="transfer_set")
    split = open_splits(store, rows, only="test")["test"]
    labels = torch.from_numpy(np.array(split.rows.labels))
    kept = torch.tensor(recipe["training"]["only_classes"])
    missing = ~torch.isin(torch.arange(split.store.classes), kept)
    found = []
    for weights in sorted(run.glob(f"distilled*/{WEIGHTS}")):
        model = build_model(typed(ModelConfig, recipe["student"] | {"weights": str(weights)}, where="student"))
        logits = predictions(model, all_batches(split, 500), torch.device("cpu"))

        def errors(added: float, logits: torch.Tensor = logits) -> torch.Tensor:
            return (logits + added * missing).argmax(dim=1) != labels

        tuned, number = min((int(errors(added).sum()), abs(added)) for added in GRID.tolist())
        plain = errors(0.0)
        found.append((float(plain.sum()), float(plain[missing[labels]].sum()), float(tuned), number))
    return found


def spread(values: np.ndarray) -> float:
    """Sample standard deviation; 0 of a single value."""
    return statistics.stdev(values.tolist()) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
