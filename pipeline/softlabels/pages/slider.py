"""`Slider`: the one temperature of a page, and between what it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import one_line
from softlabels.pages.distributions import HIGHEST, LOWEST, span
from softlabels.pages.markup import Html, element
from softlabels.store import Store

_STEPS = 100


@dataclass(frozen=True)
class Slider:
    """A slider on a logarithmic scale.

    Attributes:
        least, most: the ends. at: where it is when the page opens.
        fixed: why it cannot be moved; "" where it can.
    """

    least: float = LOWEST
    most: float = HIGHEST
    at: float = 1.0
    fixed: str = ""

    @classmethod
    def of(cls, stores: Sequence[Store]) -> Slider | None:
        """The slider of a page on these stores, which may be of several targets: from the least temperature at which all are
        right. None where there is nothing that a temperature changes.
        """
        every = [store.only(name) for store in stores for name in store.targets]
        encodings = [each.encoding for each in every if each.encoding.target != "values"]
        free = [each for each in encodings if each.only_at is None]
        if free:
            least, most = (max(ends) for ends in zip(*map(span, free), strict=True))
            return cls(least=least, most=most, at=max(1.0, least))
        if not encodings:
            return None
        at = encodings[0].near_1
        why = f"The labels are known only at T = {at:g}: they were made from probabilities at this temperature."
        return cls(least=at, most=at, at=at, fixed=why)

    @property
    def stops(self) -> NDArray[np.float64]:
        """(S,) ascending, the temperatures that it stops at, to three digits as `static/page.js` has them."""
        if self.least == self.most:
            return np.array([self.least])
        every = self.least * (self.most / self.least) ** (np.arange(_STEPS + 1) / _STEPS)
        every = np.array([float(f"{each:.3g}") for each in every])
        return np.asarray(every.clip(self.least, self.most))

    def html(self) -> Html:
        """The controls; `static/page.js` brings them to life."""
        bounds = {"data_least": self.least, "data_most": self.most, "data_at": self.at, "disabled": bool(self.fixed)}
        step = {"min": 0, "max": _STEPS, "step": 1}
        return element(
            "form",
            element("label", "Temperature T", for_="temperature"),
            element("input", type="range", id="temperature", **step, **bounds, aria_describedby="temperature-help"),
            element(
                "input", type="number", id="temperature-number", min=self.least, max=self.most, step="any",
                value=self.at, disabled=bool(self.fixed), aria_label="Temperature T as a number",
            ),
            element(
                "span", self.fixed or "Everything on this page follows it. Keys: [ and ].", id="temperature-help",
                class_="fixed" if self.fixed else None,
            ),
            id="temperature-bar", class_="bar",
        )  # fmt: skip


def known_at(store: Store) -> str:
    """A sentence where the labels of one target are known at one temperature alone; "" else."""
    at = store.encoding.only_at
    return (
        "" if at is None else one_line(f"These labels are known only at T = {at:g}; the slider does not change them.")
    )
