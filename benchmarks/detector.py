"""Is a student from the store as good as one of plain torch with the teacher in the loop? AP50 of both, seed by seed.

    python -m benchmarks.detector RUN [--split=test]

RUN is a finished run of the recipe `detect`, in a folder where the teachers' weights still lie. Here its distilled students
learn anew: the same first weights, batches, labelled images, optimizer and schedule, but the three teachers look at every
batch, and the loss is written in plain torch, with nothing of ours in it. What differs is what storing loses, and rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from softlabels.jobs.run_files import RESULTS, read_object
from softlabels.jobs.splits import Split, open_splits, training_batches
from softlabels.models.weights import load_weights
from softlabels.recipes.detect_model import Detector
from softlabels.recipes.detect_score import Judge, judge_of, mean_of
from softlabels.report.spread import paired_difference, spread
from softlabels.student.split import labelled_rows
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels_stages.schema import typed


def main() -> None:
    """Print both, and how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    recipe = yaml.safe_load((given.run / "config.yaml").read_text())
    store = read_object(LocalFolder(given.run), RESULTS, "finish the run")["store"]
    training = typed(StudentTraining, recipe["training"], where="training")
    torch.set_num_threads(1)
    plain = in_the_loop(recipe, open_splits(store, None, training=training), training)
    judge = judge_of(recipe["transfer_set"]["factory"]["init_args"], recipe["transfer_set"]["splits"][given.split])
    ours = [from_run(given.run / f"distilled-seed{seed}", recipe, judge) for seed in training.seeds]
    theirs = [mean_of(judge.of_model(model)) for model in plain]
    for name, found in (("from the store", ours), ("plain torch, teacher in the loop", theirs)):
        each = spread(found)
        print(f"{name}: AP50 {each.mean:.3f} ± {each.deviation or 0:.3f}  {np.round(found, 3).tolist()}")
    apart = paired_difference(ours, theirs)
    print(f"apart: {apart.mean:+.4f}, standard error {apart.standard_error or 0:.4f} (paired over {apart.count} seeds)")


def from_run(folder: Path, recipe: Mapping[str, Any], judge: Judge) -> float:
    """AP50 of a student of the run."""
    model = Detector(**recipe["student"]["init_args"])
    load_weights(model, folder / WEIGHTS)
    return mean_of(judge.of_model(model))


def in_the_loop(recipe: Mapping[str, Any], splits: Mapping[str, Split], training: StudentTraining) -> list[nn.Module]:
    """Students of each seed, side by side: the teachers look at a batch once for all of them."""
    teachers = [Detector(**each["init_args"]).eval() for each in recipe["teacher"]["members"]]
    for teacher, each in zip(teachers, recipe["teacher"]["members"], strict=True):
        load_weights(teacher, each["weights"])
    batches, _ = training_batches(splits, training)
    keys, fraction = splits["train"].rows.keys, training.hard_label_fraction
    students, steps = [], training.epochs * batches.steps_per_epoch
    for seed in training.seeds:
        torch.manual_seed(seed)
        model = Detector(**recipe["student"]["init_args"])
        optimizer = torch.optim.AdamW(model.parameters(), **recipe["training"]["optimizer"]["init_args"])
        schedule = recipe["training"]["scheduler"]["init_args"] | {"total_steps": steps}
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, **schedule)
        students.append((model.train(), optimizer, scheduler, labelled_rows(keys, fraction, seed)))
    for epoch in range(training.epochs):
        for batch in batches.epoch(epoch):
            with torch.no_grad():
                said = [teacher(batch.inputs) for teacher in teachers]
            for model, optimizer, scheduler, labelled in students:
                kept = torch.from_numpy(labelled[batch.rows])
                classes = torch.where(kept[:, None], batch.targets["class"].labels, -1)
                boxes = torch.where(kept[:, None, None], batch.targets["box"].labels, torch.nan)
                optimizer.zero_grad()
                loss = loss_of(model(batch.inputs), said, classes, boxes, recipe["training"])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
    return [model for model, *_ in students]


def loss_of(
    student: Mapping[str, Tensor],
    teachers: list[dict[str, Tensor]],
    classes: Tensor,
    boxes: Tensor,
    training: Mapping[str, Any],
) -> Tensor:
    """The loss of a batch: what the student says, what the teachers say, and the labels that it may use."""
    temperature, alpha = training["temperature"], training["alpha"]
    weights = torch.tensor(training["targets"]["class"]["class_weights"], dtype=torch.float32)
    z, classes = student["class"].flatten(0, 1), classes.flatten()
    at_t, at_1 = (
        torch.stack([(each["class"].flatten(0, 1) / t).softmax(dim=1) for each in teachers]).mean(dim=0)
        for t in (temperature, 1.0)
    )
    kl = (at_t * (at_t.log() - (z / temperature).log_softmax(dim=1))).sum(dim=1)
    soft = temperature**2 * ((at_1 @ weights) * kl).mean()
    box, boxes = student["box"].flatten(0, 1), boxes.flatten(0, 1)
    soft_box = functional.huber_loss(box, torch.stack([each["box"].flatten(0, 1) for each in teachers]).mean(dim=0))
    hard = hard_box = z.new_zeros(())
    if bool((classes >= 0).any()):
        summed = functional.cross_entropy(z, classes, weight=weights, ignore_index=-1, reduction="sum")
        hard = summed / (classes >= 0).sum()
    if bool((known := torch.isfinite(boxes[:, 0])).any()):
        hard_box = functional.huber_loss(box[known], boxes[known])
    weight = training["targets"]["box"]["weight"]
    loss: Tensor = (1 - alpha) * (hard + weight * hard_box) + alpha * (soft + weight * soft_box)
    return loss


if __name__ == "__main__":
    main()
