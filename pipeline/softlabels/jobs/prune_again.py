"""What is gone already of a run that was pruned itself: which weights, by its last round, so that none of them comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from softlabels.errors import ConfigError, DamagedRun
from softlabels.jobs.run_files import RESULTS, read_object
from softlabels.student.deletion import count_of
from softlabels.student.masks import Masks, read_masks
from softlabels.student.pruning import Pruning
from softlabels.system.local import LocalFolder


@dataclass(frozen=True)
class Before:
    """What a run of pruned students begins with.

    Attributes:
        masks: of each student, by its name; none where whole units went, which the network does not have any more.
        left: the share of each student's parameters that they leave.
    """

    masks: dict[str, Masks]
    left: float


def pruned_before(run: Path, names: Sequence[str], model: nn.Module, how: Pruning) -> Before | None:
    """Of the students `names` of a finished run, models like `model`; None where it is no run of `prune`.

    Raises:
        ConfigError: as little is left as `how` keeps, or units are to go of what was pruned weight by weight. DamagedRun.
    """
    home, remedy = LocalFolder(run), "prune the run that it was made from"
    pruned = read_object(home, RESULTS, remedy).get("pruned") if home.exists(RESULTS) else None
    if pruned is None:
        return None
    if not (isinstance(pruned, dict) and isinstance(rounds := pruned.get("rounds"), list)):
        raise DamagedRun(f"{home.at(RESULTS)} does not say how often its students were pruned", remedy=remedy)
    if pruned.get("structure") == "unit":
        return Before({}, 1.0)
    if how.structure == "unit":
        raise ConfigError(f"{run} was pruned weight by weight, and its units are not whole", remedy=remedy)
    last = home.within("rounds").within(str(len(rounds)))
    try:
        masks = {name: read_masks(last.within(name), model) for name in names}
    except (OSError, ValueError) as error:
        raise DamagedRun(f"{run} does not hold what its last round left: {error}", remedy=remedy) from None
    left = 1 - max(each.count() for each in masks.values()) / count_of(model)
    if how.keep >= left:
        raise ConfigError(
            f"keep={how.keep:g}, and {left:.1%} of the parameters of {run} are left: what is deleted does not come back",
            remedy="keep less, or prune the run that it was made from",
        )
    return Before(masks, left)
