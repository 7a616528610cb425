"""Pull a sealed store, or a folder of them, from an object store (s3://, gs://, az://), the Hugging Face Hub
(hf://datasets/TEAM/NAME), a web server or another folder.

Only what is missing is fetched, and every byte is verified. Damaged or missing shards of a local store are fetched again. If it
is stopped, run it again and it resumes. --rows makes a store of some rows and fetches only what they need. With --digest or
--signed_by nothing is fetched from another store, or from one that somebody else signed. Credentials are taken from the
environment: docs/places.md.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.share import pull
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Pull
from softlabels_stages.run import say, should_stop, stage, suggested, warn


@stage("pull", resumable=True, settings="")
def main(args: Pull) -> int:
    """Pull it."""
    if not args.url or not args.store:
        raise ConfigError("an address and a folder are needed", remedy="write softlabels pull s3://BUCKET/FOLDER STORE")
    watch = Watch(say, warn, should_stop)
    pull(
        args.url,
        args.store,
        split=args.split,
        rows=args.rows,
        digest=args.digest,
        signed_by=args.signed_by,
        watch=watch,
    )
    say(f"pulled: {args.store} (look: {suggested('info', args.store)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
