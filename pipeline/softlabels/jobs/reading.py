"""How a file of outputs is read; `outputs` reads it. Light, for the commands' help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from softlabels.errors import ConfigError, require_keys
from softlabels.labels.target_settings import TargetSettings, target_settings
from softlabels.labels.targets import Target

Kind = Literal["auto", "logits", "probabilities"]
KEYS = ("kind", "dtype", "classes", "column")  # of an entry of targets


@dataclass(frozen=True)
class Reading:
    """What a file of outputs does not say itself."""

    column: str | None = None  # the array or column of outputs, when it is not called logits, probabilities or values
    kind: Kind = (
        "auto"  # logits or probabilities; auto goes by the array's name, and refuses logits that look like the other
    )
    target: Target = (
        "softmax"  # softmax: one distribution over the classes; sigmoid: each class by itself; values: real numbers
    )
    dtype: Literal["float16", "float32"] | None = None  # of sigmoid and values, as in a recipe's labels
    targets: dict[str, Any] | None = (
        None  # of several, as in a recipe's labels; the array NAME.logits, .values or NAME is of one
    )
    members: int | None = None  # how many there are, which outputs of three axes need (or weights)
    weights: tuple[float, ...] | None = None  # the members' shares in the mean; all alike by default
    positions: int | None = None  # how many a row has (the most), of outputs (rows, positions, [members,] classes)
    floor: str | None = None  # least probability of a class: a number, or laplace:N for a forest of N trees
    key: str | None = None  # the array or column of ids that says which row is which, in place of its inputs
    classes: tuple[str, ...] | None = None  # names of the classes in order

    @property
    def wanted(self) -> dict[str, TargetSettings]:
        """The targets, by name; "" is the one without.

        Raises:
            ConfigError: settings that do not go together.
        """
        if self.targets is None:
            return {"": TargetSettings(kind=self.target, dtype=self.dtype, classes=self.classes)}
        for name, given in (("target", self.target != "softmax"), ("dtype", self.dtype), ("column", self.column)):
            if given:
                raise ConfigError(
                    f"--{name} is given beside --targets", remedy="say it of each target: --targets.NAME.KEY"
                )
        if self.classes is not None:
            raise ConfigError(
                "--classes is given beside --targets", remedy="say it of each: --targets.NAME.classes=[a,b]"
            )
        return target_settings({name: _settings(name, entry) for name, entry in self.targets.items()})

    def column_of(self, target: str) -> str | None:
        """The array or column of a target's outputs, where it is said."""
        if not target or self.targets is None:
            return self.column
        entry = self.targets[target]
        return entry.get("column") if isinstance(entry, Mapping) else None

    @property
    def count(self) -> int | None:
        """How many members there are, where it is said. Raises `ConfigError` where it is said in two ways."""
        members = self.members if self.weights is None else len(self.weights)
        if self.members not in (None, members):
            raise ConfigError(f"--members={self.members}, and {members} weights", remedy="give one weight a member")
        return members


def _settings(name: str, entry: Any) -> Any:
    """What an entry says of how a target is kept. Raises `ConfigError` for what an import has no use for."""
    if not isinstance(entry, Mapping):
        return entry
    require_keys(entry, KEYS, f"--targets.{name}", "every output is kept (topk: softlabels encode)")
    return {key: value for key, value in entry.items() if key != "column"}
