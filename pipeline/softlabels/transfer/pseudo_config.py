"""What a recipe says of pseudo-data, rows that are made and have no hard labels. Neighbour: `pseudo` makes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec

_SECTION = "transfer_set.pseudo_data"


@dataclass(frozen=True)
class PseudoDataConfig:
    """Rows that follow a split's own: made of these by MUNGE (`softlabels.transfer.munge`), or by a function.

    Attributes:
        rows: how many at least, 0 for none; MUNGE makes whole passes, each as many as the split has rows.
        passes: or how many passes.
        probability: with which an attribute of a row and of its nearest neighbour is changed; p of the paper.
        spread: the deviation of what is drawn is the distance of both values divided by this; s of the paper.
        nominal: input columns whose values are names, or numbers that only name: they are exchanged, and none is drawn.
        seed: of all draws.
        split: the split, by its name in the store, that gets them.
        factory: instead of MUNGE a function: factory(rows, **init_args) takes the split's own rows, a `datasets.Dataset` of
            numpy values, and returns others with the same input columns, a dataset or a dict of numpy arrays.
    """

    rows: int | None = None
    passes: int | None = None
    probability: float = 0.2
    spread: float = 1.0
    nominal: tuple[str, ...] = ()
    seed: int = 0
    split: str = "train"
    factory: ObjectSpec | None = None

    def __post_init__(self) -> None:
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        if self.factory is not None:
            if others := [name for name in given if name not in ("factory", "split")]:
                raise ConfigError(
                    f"{_SECTION} gives a factory and {', '.join(others)}",
                    remedy="put what the factory needs into its init_args, or drop it and have MUNGE make the rows",
                )
            return
        if (self.rows is None) == (self.passes is None):
            raise ConfigError(
                f"{_SECTION} gives {'neither' if self.rows is None else 'both'} of rows and passes",
                remedy="give rows (at least so many) or passes, or a factory",
            )
        if self.rows is not None and self.rows < 0:
            raise ConfigError(f"{_SECTION}.rows is {self.rows}", remedy="give a whole number >= 0")
        if self.passes is not None and self.passes < 1:
            raise ConfigError(f"{_SECTION}.passes is {self.passes}", remedy="give 1 or more")
        if not 0 < self.probability <= 1:
            raise ConfigError(
                f"{_SECTION}.probability is {self.probability}", remedy="give a number above 0, at most 1"
            )
        if not 0 < self.spread < math.inf:
            raise ConfigError(f"{_SECTION}.spread is {self.spread}", remedy="give a number above 0, such as 1")
        if self.seed < 0:
            raise ConfigError(f"{_SECTION}.seed is {self.seed}", remedy="give a whole number >= 0")

    def passes_of(self, rows: int) -> int:
        """How often MUNGE passes over so many rows."""
        return self.passes if self.passes is not None else -(-(self.rows or 0) // rows)
