"""What a recipe says of each target of a store that has several: `training.targets`. No torch at import; `heads` makes of it
how a student meets each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from softlabels.errors import ConfigError

SECTION = "training.targets"
WEIGHTS = ("alpha", "hard_weight", "soft_weight")  # of the two terms: given in one place
Setting = float | str


class TargetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a student is taught one target; what is not given is as in `training`, as far as that means something for its kind.

    Attributes:
        weight: of the target's loss in the sum over the targets; 0 leaves the target out.
        output: the student's output that meets it, by default that of the target's name.
        others: as in `training`, one value each.
    """

    weight: float = 1.0
    output: str | None = None
    loss: str | UnsetType = UNSET
    loss_args: dict[str, float] | UnsetType = UNSET
    temperature: Setting | UnsetType = UNSET
    alpha: Setting | UnsetType | None = UNSET
    hard_weight: Setting | UnsetType | None = UNSET
    soft_weight: Setting | UnsetType | None = UNSET
    mean: str | UnsetType = UNSET
    logit_standardization: bool | UnsetType = UNSET
    class_weights: Literal["balanced"] | tuple[float, ...] | UnsetType | None = UNSET

    @property
    def given(self) -> dict[str, Any]:
        """The settings of `training` that it has of its own."""
        return {
            name: value
            for name in self.__struct_fields__
            if name not in ("weight", "output") and (value := getattr(self, name)) is not UNSET
        }


def target_configs(targets: Mapping[str, Any]) -> dict[str, TargetConfig]:
    """The entries of `training.targets`, by target. Raises ConfigError for what cannot be meant."""
    found = {}
    for name, entry in targets.items():
        where = f"{SECTION}.{name}"
        try:
            found[name] = msgspec.convert({} if entry is None else entry, TargetConfig)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"{where}: {error}", remedy=f"give one value each of {', '.join(TargetConfig.__struct_fields__)}"
            ) from None
        if not 0 <= found[name].weight < math.inf:
            raise ConfigError(
                f"{where}.weight is {found[name].weight}",
                remedy="give a finite number >= 0; 0 leaves the target out",
            )
    return found
