"""Scores of a model, or of the stored teacher and its members, over the batches of a loader: of each target by itself.

`metrics` says what the scores are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from softlabels.errors import ConfigError
from softlabels.labels.targets import Target
from softlabels.student.heads import naming_target
from softlabels.student.metrics import Accumulator, Batches, Scores, metrics_of, together
from softlabels.student.outputs import answers_of, blocks, counted_blocks, naming_row


@dataclass(frozen=True)
class Asked:
    """What is asked of a target.

    Attributes:
        temperatures: T of the KLs; 1, or the temperature next to it at which the teacher is known, is always one of them.
        mean: how the teacher's members are averaged.
        target: its kind.
        output: the student's output that meets it, "" of a student that gives one tensor.
    """

    temperatures: Sequence[float]
    mean: str = "arithmetic"
    target: Target = "softmax"
    output: str = ""

    def metrics(self) -> Accumulator:
        """What adds up predictions."""
        return metrics_of(self.target, self.temperatures, self.mean, by_class=True)


def evaluate_student(model: nn.Module, batches: Batches, asked: Mapping[str, Asked], *, device: torch.device) -> Scores:
    """Scores of a model, put into evaluation mode, over every batch; what is `asked` of each target, by its name."""
    metrics = {name: each.metrics() for name, each in asked.items()}
    outputs = {name: each.output for name, each in asked.items()}
    model.eval()
    with torch.inference_mode():
        for batch in batches.epoch(0):
            batch = batch.to(device)
            answers = answers_of(model, batch, outputs)
            for name, each in asked.items():
                one = batch.only(name)
                with naming_target(name), naming_row(one, each.mean):
                    for logits, labels, soft in blocks(answers[name], one):
                        metrics[name].update(logits, labels, soft)
    return together({name: each.result() for name, each in metrics.items()})


def evaluate_teacher(
    batches: Batches, asked: Mapping[str, Asked], *, device: torch.device
) -> tuple[Scores, list[Scores]]:
    """Scores of the stored teacher, and of each of its members against it, from the store alone; of none where a part of the
    targets keeps its members and another only their mean.

    Raises:
        ConfigError: a batch without soft labels.
        NoPossibleClass: a row whose members have no geometric mean, which is asked for.
    """
    ensemble = {name: each.metrics() for name, each in asked.items()}
    members: dict[str, list[Accumulator]] = {name: [] for name in asked}
    for batch in batches.epoch(0):
        batch = batch.to(device)
        for name, each in asked.items():
            one = batch.only(name)
            soft = one.soft
            if soft is None:
                raise ConfigError("these batches have no soft labels", remedy="give the loader a store")
            members[name] = members[name] or [each.metrics() for _ in range(soft.stored_members)]
            with naming_target(name), naming_row(one, each.mean):
                for _, part in counted_blocks(one, soft.classes, whole=one.mask is None):
                    assert part.soft is not None
                    ensemble[name].update_teacher(part.labels, part.soft)
                    for number, member in enumerate(members[name]):
                        member.update_teacher(part.labels, part.soft, number)
    alike = len({len(each) for each in members.values()}) == 1
    of_members = zip(*members.values(), strict=True) if alike else ()
    return (
        together({name: each.result() for name, each in ensemble.items()}),
        [together({name: each.result() for name, each in zip(members, found, strict=True)}) for found in of_members],
    )
