"""Make the teachers of several stores the members of one, without a teacher: softlabels merge A B --out=C.

Each store is one split, or a folder of the same splits. Rows are matched by content key and are in the order of the first
store; classes are matched by name. Labels are copied as they are stored, never encoded again. The same command resumes where it
stopped.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.combine import merge
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Merge
from softlabels_stages.run import say, should_stop, stage, suggested, warn


@stage("merge", resumable=True, settings="--")
def main(args: Merge) -> int:
    """Merge every split."""
    if not args.stores or not args.out:
        raise ConfigError("stores and a target are needed", remedy="write softlabels merge A B --out=STORE")
    merge(**vars(args), watch=Watch(say, warn, should_stop))
    say(f"sealed: {args.out} (look: {suggested('info', args.out)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
