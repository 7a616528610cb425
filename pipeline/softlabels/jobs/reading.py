"""How a file of outputs is read; `outputs` reads it. Light, for the commands' help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["auto", "logits", "probabilities"]


@dataclass(frozen=True)
class Reading:
    """What a file of outputs does not say itself."""

    column: str | None = None  # the array or column of outputs, when it is not called logits or probabilities
    kind: Kind = "auto"  # logits or probabilities; auto goes by the array's name, and refuses logits that sum to 1
    members: int | None = None  # how many there are, which outputs of three axes need (or weights)
    floor: str | None = None  # least probability of a class: a number, or laplace:N for a forest of N trees
    key: str | None = None  # the array or column of ids that says which row is which, in place of its inputs
    classes: tuple[str, ...] | None = None  # names of the classes in order


AS_IT_IS = Reading()
