"""What a recipe says of several targets: how each is kept, under its name (`labels.targets`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from softlabels.errors import ConfigError, require_keys, some
from softlabels.labels.decoder import Inputs, Reduce
from softlabels.labels.encoding import Encoding
from softlabels.labels.settings import EncodingSettings
from softlabels.labels.targets import require_distinct, require_names

_SECTION = "labels.targets"


@dataclass(frozen=True)
class TargetSettings(EncodingSettings):
    """How one of several targets is kept.

    Attributes:
        reduce: none keeps every member; geometric keeps only the members' mean logits, arithmetic (kind: values) their mean.
        classes: ordered names of its classes, or of a vector's numbers; by default those of its hard labels.
    """

    reduce: Reduce = "none"
    classes: tuple[str, ...] | None = None

    def of_target(self, name: str, members: int, inputs: Inputs) -> Encoding:
        """`made` for the target of this name, which errors name."""
        try:
            return self.made(members, reduce=self.reduce, inputs=inputs)
        except ConfigError as error:
            raise ConfigError(f"{_SECTION}.{name}: {error.what}", remedy=error.remedy) from error


def target_settings(given: Mapping[str, Any] | None) -> dict[str, TargetSettings]:
    """The targets that `labels.targets` names.

    Raises:
        ConfigError: a name, a key or a value that cannot be meant.
    """
    if given is None:
        return {}
    require_names(given, _SECTION, "leave it out")
    return {name: _target(name, entry) for name, entry in given.items()}


def _target(name: str, entry: object) -> TargetSettings:
    where, known = f"{_SECTION}.{name}", [field.name for field in fields(TargetSettings)]
    if isinstance(entry, TargetSettings):
        return entry
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is {entry!r}, expected a mapping of keys", remedy=f"known keys: {', '.join(known)}")
    require_keys(entry, known, where)
    try:
        found = msgspec.convert(dict(entry), TargetSettings)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{at[:-1]}: {said}", remedy="correct it there; a list is written [a,b]") from None
    require_distinct(found.classes, where)
    return found


def require_defaults(settings: EncodingSettings, reduce: Reduce, names: Iterable[str]) -> None:
    """Raise `ConfigError` where settings of one target are given beside several."""
    given = [each.name for each in fields(EncodingSettings) if getattr(settings, each.name) != each.default]
    given += ["reduce"] if reduce != "none" else []
    if given:
        raise ConfigError(
            f"labels.{given[0]} is given, and {_SECTION} names {some(names)}",
            remedy=f"say {', '.join(given)} of each target",
        )
