"""Join the rows of several stores of one teacher: softlabels concat A B --out=C.

Each store is one split, or a folder of the same splits. Labels are copied as they are stored, never encoded again. The same
command resumes where it stopped.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.combine import concat
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Concat
from softlabels_stages.run import say, should_stop, stage, suggested, warn


@stage("concat", resumable=True, settings="--")
def main(args: Concat) -> int:
    """Concatenate every split."""
    if not args.stores or not args.out:
        raise ConfigError("stores and a target are needed", remedy="write softlabels concat A B --out=STORE")
    concat(**vars(args), watch=Watch(say, warn, should_stop))
    say(f"sealed: {args.out} (look: {suggested('info', args.out)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
