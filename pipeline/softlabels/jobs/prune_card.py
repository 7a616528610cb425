"""The card of a run of pruned students, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from softlabels.errors import MissingExtra
from softlabels.jobs.run_report import in_order
from softlabels.jobs.splits import Split
from softlabels.jobs.train import CARD
from softlabels.jobs.watch import Watch
from softlabels.report.model_card import model_card
from softlabels.report.pruned import pruned_png
from softlabels.student.deletion import count_of
from softlabels.system.local import LocalFolder

PICTURE = "pruned.png"


def write_card(
    run: LocalFolder,
    results: Mapping[str, Any],
    recipe: Mapping[str, Any],
    splits: Mapping[str, Split],
    models: Mapping[str, nn.Module],
    watch: Watch,
) -> None:
    """Write README.md and pruned.png; without the extra `[report]` a line says that there is no picture."""
    pictures = [PICTURE]
    try:
        pruned_png(results, run.at(PICTURE))
    except MissingExtra as error:
        watch.warn(f"no pictures: {error}")
        pictures = []
    card = model_card(
        results,
        recipe,
        stores={split: each.store.manifest for split, each in splits.items()},
        parameters=count_of(next(iter(models.values()))),
        prepare=splits["train"].prepare,
        folders=in_order(models),
        pictures=pictures,
        inputs=splits["train"].input_shape,
    )
    run.put(CARD, card.encode())
