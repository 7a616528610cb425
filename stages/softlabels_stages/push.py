"""Push a sealed store, or a folder of them, to an object store (s3://, gs://, az://), the Hugging Face Hub
(hf://datasets/TEAM/NAME) or another folder.

Only what is missing is sent, the manifest last. Staged files and what `repair` set aside are never sent. If it is stopped, run
it again and it resumes. A place that holds something else is refused. Credentials are taken from the environment:
docs/places.md.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.share import push
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Push
from softlabels_stages.run import say, should_stop, stage, warn


@stage("push", resumable=True, settings="")
def main(args: Push) -> int:
    """Push it."""
    if not args.url:
        raise ConfigError("no address is named", remedy="write softlabels push STORE s3://BUCKET/FOLDER")
    push(args.store, args.url, read_back=args.read_back, watch=Watch(say, warn, should_stop))
    say(f"pushed: {args.url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
