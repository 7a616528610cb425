"""The kinds of targets: softmax (one distribution over the classes), sigmoid (a Bernoulli a class), values (a real vector); the
error for a question that a kind has no answer to; and what targets may be called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from softlabels.errors import ConfigError

Target = Literal["softmax", "sigmoid", "values"]
MOST_TARGETS = 32
NAME = "[a-z][a-z0-9_]{0,31}"  # as a regular expression
_WHAT = {
    "softmax": ("distributions over the classes (softmax)", "ask for log_probs"),
    "sigmoid": ("a Bernoulli a class (sigmoid)", "ask for its logits or probabilities"),
    "values": (
        "real vectors (values)",
        "ask for values, which have no temperature and one mean of members, the weighted one",
    ),
}


def require_target(target: Target, what: str, *targets: Target) -> None:
    """Raise `ConfigError` unless labels of the kind `target`, which are asked for `what`, are of one of these kinds."""
    if target not in targets:
        are, instead = _WHAT[target]
        raise ConfigError(f"the labels are {are} and have no {what}", remedy=instead)


def titled(name: str) -> str:
    """What messages put before what is said of a target: nothing where it has no name."""
    return f"target {name}: " if name else ""


def require_name(name: object) -> None:
    """Raise `ConfigError` unless a target may have this name."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{name!r} is no name of a target", remedy="use a-z, 0-9 and '_', a letter first, at most 32 characters"
        )


def require_names(given: Iterable[object], section: str, otherwise: str) -> None:
    """Raise `ConfigError` unless a section of a recipe names 1 to `MOST_TARGETS` targets; `otherwise`: what else to do."""
    names = list(given)
    if not 1 <= len(names) <= MOST_TARGETS:
        raise ConfigError(f"{section} names {len(names)} targets", remedy=f"name 1 to {MOST_TARGETS}, or {otherwise}")
    for name in names:
        require_name(name)


def require_distinct(classes: Sequence[str] | None, where: str) -> None:
    """Raise `ConfigError` where two classes of an entry of a recipe have one name."""
    if classes is not None and len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: class names repeat in classes", remedy="give every class a name of its own")
