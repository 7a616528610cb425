"""What a job tells whoever called it, and how it is told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("softlabels")


@dataclass(frozen=True)
class Watch:
    """Who watches a job.

    Attributes:
        say: is given lines on what is done; by default the log "softlabels", at level INFO.
        warn: is given lines on what may be wrong; by default the same log, at level WARNING.
        should_stop: is asked at each batch; when true, the job saves what it has and raises `Interrupted`. The same call goes
            on from there.
    """

    say: Callable[[str], object] = _log.info
    warn: Callable[[str], object] = _log.warning
    should_stop: Callable[[], bool] = lambda: False


LOGGED = Watch()
