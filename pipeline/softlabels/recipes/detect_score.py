"""AP50 of the teacher and all students of a run of the recipe `detect`: `python -m softlabels.recipes.detect_score RUN`.

Objects are those of the source, not those that cells can tell, and images meet the teacher's labels by their content keys.
Everyone is judged by the same threshold and the same suppression of overlapping boxes (`detect_grid.from_cells`).

R images, P cells, C classes, background among them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from softlabels.errors import ConfigError, SoftLabelsError, UnlabelledRows
from softlabels.jobs.run_files import RECIPE, RESULTS, read_object
from softlabels.jobs.sources import store_of_run
from softlabels.models.weights import load_weights
from softlabels.recipes.detect_ap import average_precisions
from softlabels.recipes.detect_grid import Floats, Objects, centres, from_cells
from softlabels.recipes.detect_model import Detector
from softlabels.recipes.detect_rows import CLASSES, images_and_objects
from softlabels.report.spread import paired_difference, spread
from softlabels.report.table import Table, as_text
from softlabels.store import Store
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels.transfer import array_keys

DETECTOR = "softlabels.models.Detector"
_BATCH = 64
Precisions = NDArray[np.float64]  # (C - 1,) of an own class each


@dataclass(frozen=True)
class Judge:
    """The images of a split, and the objects in them.

    Attributes:
        images: (R, 3, H, W) uint8.
        objects: of each image.
        classes: their names.
    """

    images: NDArray[np.uint8]
    objects: Sequence[Objects]
    classes: Sequence[str]

    def of_outputs(self, probabilities: Floats, boxes: Floats) -> Precisions:
        """AP50 a class of probabilities (R, P, C) and boxes (R, P, 4)."""
        cells = centres(*self.images.shape[2:])
        found = [from_cells(own, box, cells) for own, box in zip(probabilities, boxes, strict=True)]
        return average_precisions(found, self.objects, classes=len(self.classes))

    def of_model(self, model: torch.nn.Module) -> Precisions:
        """AP50 a class of a detector."""
        outputs: dict[str, list[Floats]] = {"class": [], "box": []}
        with torch.inference_mode():
            for start in range(0, len(self.images), _BATCH):
                found = model.eval()(torch.from_numpy(self.images[start : start + _BATCH]))
                outputs["class"].append(found["class"].softmax(dim=-1).numpy())
                outputs["box"].append(found["box"].numpy())
        return self.of_outputs(np.concatenate(outputs["class"]), np.concatenate(outputs["box"]))

    def of_store(self, store: Store) -> Iterator[Precisions]:
        """AP50 a class of each member of the stored teacher, where there are several, and of all. Raises UnlabelledRows."""
        rows, members = store.find(array_keys(self.images)), store.only("class").members
        if (rows < 0).any():
            raise UnlabelledRows(
                f"{store.path} has no labels for image {int(rows.argmin())} of {len(rows)}",
                remedy="give the source that the store was made of",
            )
        chosen = [np.eye(members)[member] for member in range(members)] if members > 1 else []
        for weights in [*chosen, None]:
            probabilities = store.only("class").probabilities(rows, temperature=1.0, weights=weights)
            boxes = store.only("box").values(rows, weights=weights)
            yield self.of_outputs(probabilities.astype(np.float32), boxes.astype(np.float32))


def judge_of(arguments: Mapping[str, Any], split: str) -> Judge:
    """The judge of a split of the source, from the arguments of `detect_rows.cell_rows`."""
    images, objects = images_and_objects(split, **arguments)
    return Judge(images, objects, arguments.get("classes", CLASSES))


def scores(run: Path, split: str) -> tuple[Sequence[str], dict[str, list[Precisions]]]:
    """Names of the classes; and of each teacher and kind of student the AP50 of each class, seed by seed.

    Raises:
        ConfigError: no finished run of this recipe, or no such split. UnlabelledRows: the source has other images by now.
    """
    if not (run / RESULTS).is_file():
        raise ConfigError(f"{run} is no finished run", remedy="name the folder that train-student printed")
    results = read_object(LocalFolder(run), RESULTS, "give the train-student command again")
    recipe = yaml.safe_load((run / RECIPE).read_text())
    student, factory = recipe["student"], (recipe.get("transfer_set") or {}).get("factory")
    if student["class_path"] != DETECTOR or factory is None:
        raise ConfigError(f"{run} holds {student['class_path']}", remedy=f"name a run of a {DETECTOR} from images")
    store = store_of_run(results, split)
    judge = judge_of(factory["init_args"], recipe["transfer_set"]["splits"].get(split, split))
    *members, teacher = judge.of_store(store)
    found = {f"teacher {number}": [each] for number, each in enumerate(members)} | {"ensemble": [teacher]}
    students = sorted(run.glob(f"*-seed*/{WEIGHTS}"), key=lambda each: (not each.parent.name.startswith("hard"), each))
    for weights in students:
        model = Detector(**student["init_args"])
        load_weights(model, weights)
        found.setdefault(f"student, {weights.parent.name.rpartition('-seed')[0]}", []).append(judge.of_model(model))
    return judge.classes, found


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, and by how much each kind of student leads the one with hard labels only."""
    parser = argparse.ArgumentParser(prog="detect_score", description="AP50 of a finished run of the recipe detect")
    parser.add_argument("run", type=Path, help="the folder that train-student printed")
    parser.add_argument("--split", default="test", help="a split of the store")
    given = parser.parse_args(words)
    try:
        classes, found = scores(given.run, given.split)
    except SoftLabelsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    print(as_text(Table((f"AP50, {given.split}", "mean", *classes), tuple(map(_line, found, found.values())))))
    hard = found.get("student, hard")
    for name, seeds in found.items():
        if hard is not None and name.startswith("student") and seeds is not hard and len(seeds) == len(hard) > 1:
            lead = paired_difference([*map(mean_of, seeds)], [*map(mean_of, hard)])
            width = lead.standard_error or 0.0
            print(
                f"{name} - student, hard: {lead.mean:+.3f}, standard error {width:.3f} (paired over {lead.count} seeds)"
            )
    return 0


def mean_of(precisions: Precisions) -> float:
    """Over the classes that have objects."""
    return float(np.nanmean(precisions))


def _line(name: str, seeds: Sequence[Precisions]) -> tuple[str, ...]:
    columns = [[*map(mean_of, seeds)], *np.stack(seeds, axis=1).tolist()]  # of each class one number a seed
    spreads = [spread(column) for column in columns]
    cells = [f"{s.mean:.3f}" + ("" if s.deviation is None else f" ± {s.deviation:.3f}") for s in spreads]
    return (name, *cells)


if __name__ == "__main__":
    sys.exit(main())
