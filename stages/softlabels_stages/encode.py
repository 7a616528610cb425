"""Encode a dense store's labels as topk, without a teacher. STORE then holds the k largest logits of each distribution and its
tail. Bytes per position and fidelity are printed before and after, to help you choose the settings.

The dense store may be one split or a folder of splits. The basis of the tails is computed once, from a sample of the first
split (train, if there is one), and shared by all. Of several targets one is encoded, and the others are copied. If it is
stopped, run it again and it resumes. --try writes nothing: it shows what the settings would cost and lose on a sample of that
split.
"""

from __future__ import annotations

import sys
from typing import Any

from softlabels.errors import ConfigError
from softlabels.jobs.encode import encode, try_encoding
from softlabels.jobs.watch import Watch
from softlabels_stages.arguments import Encode
from softlabels_stages.run import say, should_stop, stage, suggested, warn


@stage("encode", resumable=True, settings="--")
def main(args: Encode) -> int:
    """Encode every split."""
    if not args.from_ or not (args.store or args.try_):
        raise ConfigError(
            "a dense store and a target are needed", remedy="write softlabels encode --from=DENSE --store=STORE"
        )
    options: dict[str, Any] = {name: getattr(args, name) for name in ("target", "layout", "compression", "device")}
    if args.try_:
        print(try_encoding(args.from_, args, **options))
        print(f"nothing was written; to encode: {suggested('encode')} with --store=STORE instead of --try")
        return 0
    encode(args.from_, args.store, args, **options, watch=Watch(say, warn, should_stop))
    print(f"sealed: {args.store} (look: {suggested('info', args.store)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
