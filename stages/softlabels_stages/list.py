"""List the stores at an address, one per line: teacher, transfer set, split, rows, encoding, bytes and digest.

With --teacher_digest and --data it says whether a pass is done already: the exit code is 0 if there is a finished store of this
teacher and these rows, else 2. `info --json` has both digests: a member's `weights` and the transfer set's `content_keys`.
No labels are read.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from softlabels.errors import ConfigError, SoftLabelsError, StorePathError, one_line, some
from softlabels.jobs.listing import LEAST, Found, stores_at
from softlabels.jobs.watch import counted
from softlabels_stages.arguments import List
from softlabels_stages.run import say, stage, warn


@stage("list")
def main(args: List) -> int:
    """List them."""
    if not args.url:
        raise ConfigError("no address is named", remedy="write softlabels list s3://BUCKET/FOLDER")
    wanted, digest = (args.teacher_digest, args.data), args.teacher_digest
    if digest is not None and (len(digest) < LEAST or {*digest} - {*"0123456789abcdef"}):
        raise ConfigError(f"--teacher_digest={one_line(digest)}", remedy=f"give {LEAST} hexadecimal digits or more")
    seen, done = 0, 0
    for found in stores_at(args.url):
        seen += 1
        if isinstance(found, SoftLabelsError):
            warn(f"{type(found).__name__}: {found}")
        elif found.is_of(*wanted):
            done += found.manifest is not None
            say(json.dumps(facts(found)) if args.json else line(found))
    if wanted != (None, None) and not done:
        raise StorePathError(
            f"there is no finished store of this teacher and these rows at {args.url} ({counted(seen, 'store')} looked at)",
            remedy="label them, or wait for the worker that does",
        )
    return 0


def facts(found: Found) -> dict[str, Any]:
    """What `--json` prints of a store."""
    spec, manifest = found.spec, found.manifest
    return {
        "where": found.where,
        "teacher": spec.teacher.name,
        "members": len(spec.teacher.members),
        "transfer_set": spec.transfer_set.name,
        "split": spec.transfer_set.split,
        "rows": spec.rows,
        "encoding": "+".join(dict.fromkeys(target.encoding.kind for target in spec.targets)),
        "layout": spec.layout,
        "bytes": None if manifest is None else manifest.bytes,
        "digest": None if manifest is None else manifest.digest,
        "signed_by": found.signed_by,  # or so it says
        "weights": [member.weights for member in spec.teacher.members],
        "content_keys": spec.transfer_set.content_keys,
    }


def line(found: Found) -> str:
    """A store in a line."""
    of = facts(found)
    state = "UNFINISHED" if of["digest"] is None else f"{of['bytes']:,} bytes, digest {of['digest']}"
    signed = f", signed (not checked) by {some(of['signed_by'])}" if of["signed_by"] else ""
    text = (
        f"{of['where']}: {of['teacher']} ({counted(of['members'], 'member')}), {of['transfer_set']}, {of['split']}, "
        f"{counted(of['rows'], 'row')}, {of['encoding']}, {of['layout']}, {state}{signed}"
    )
    return one_line(text, None)


if __name__ == "__main__":
    sys.exit(main())
