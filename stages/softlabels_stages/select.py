"""Take some rows, members, targets or splits out of a store: softlabels select STORE --rows=:1000 --out=SMALL.

Labels are copied as they are stored, never encoded again. The same command resumes where it stopped.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.combine import select
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Select
from softlabels_stages.run import say, should_stop, stage, suggested, warn


@stage("select", resumable=True, settings="--")
def main(args: Select) -> int:
    """Select from every split."""
    if not args.out:
        raise ConfigError("a target is needed", remedy="write softlabels select STORE --out=STORE and what to select")
    select(**vars(args), watch=Watch(say, warn, should_stop))
    say(f"sealed: {args.out} (look: {suggested('info', args.out)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
