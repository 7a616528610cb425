"""How the students of a run are pruned: what a command says of it. No torch at import. Neighbours: `saliency`, `deletion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import ConfigError


@dataclass(frozen=True)
class Pruning:
    """Delete, retrain, repeat.

    Attributes:
        keep: the share of each student's parameters that is left at the end, between 0 and 1.
        rounds: of deleting and retraining; each keeps the same share of what the one before has left.
        epochs: of retraining in each round; by default those of the run's recipe.
        rule: what is deleted first: saliency, whatever raises the loss least (Optimal Brain Damage), or magnitude, the smallest
            weights.
        structure: single weights, which become 0 (weight), or whole hidden units, which makes a smaller network (unit).
        retrain: with which labels: own (what each student was trained with), hard or stored (those of the store).
        saliency_rows: of the training rows, over which saliencies are taken.

    Example:
        >>> from softlabels.student.pruning import Pruning
        >>> Pruning(keep=0.5, rounds=2, structure="unit").keep
        0.5
    """

    keep: float = 0.4
    rounds: int = 4
    epochs: int | None = None
    rule: Literal["saliency", "magnitude"] = "saliency"
    structure: Literal["weight", "unit"] = "weight"
    retrain: Literal["own", "hard", "stored"] = "own"
    saliency_rows: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ConfigError(f"keep must lie between 0 and 1, not {self.keep}", remedy="give a share, as --keep=0.4")
        for name in ("rounds", "epochs", "saliency_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", remedy=f"give {name} >= 1")

    def share(self, number: int, begun: float = 1.0) -> float:
        """The share that is left after round `number`, from 1, if a share `begun` was left before."""
        return float(begun * (self.keep / begun) ** (number / self.rounds))
