"""How long a training will take, said on the way: after the first epoch, and then once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 60.0  # seconds between two lines


class TimeLeft:
    """Called with each epoch's number and seconds, says how many epochs are done and how long the rest will take."""

    def __init__(self, epochs: int, say: Callable[[str], object]) -> None:
        self._epochs, self._say, self._said = epochs, say, float("-inf")

    def __call__(self, epoch: int, seconds: float) -> None:
        """Say it, unless it was said a moment ago or nothing is left."""
        if time.monotonic() - self._said < INTERVAL or epoch == self._epochs:
            return
        self._said = time.monotonic()
        left = (self._epochs - epoch) * seconds
        shown = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        self._say(f"epoch {epoch} of {self._epochs}, {seconds:.1f} s an epoch, about {shown} left")
