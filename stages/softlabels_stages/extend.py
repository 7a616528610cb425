"""Label the rows of a transfer set that a store lacks: softlabels extend STORE --config=RECIPE --out=NEW.

The recipe is that of the store, with a transfer set of more rows. The new store has all of them in their order: those that the
store has are copied bit for bit, and the teacher is asked about the others. STORE itself is not touched. Before anything is
written, teacher, settings and hard labels are compared, and some of the store's rows are asked of the teacher again. The same
command goes on where it was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from softlabels.errors import ConfigError
from softlabels.jobs.extend import extend
from softlabels.jobs.watch import Watch
from softlabels.teacher.ensemble import load_ensemble
from softlabels_stages.recipe import asks_help, parse, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn
from softlabels_stages.teacher_arguments import Extend


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Extend every split."""
    named = texts(argv, Extend, positional=("store",))
    if not asks_help(sys.argv[1:] if argv is None else argv) and not (named.get("store") and named.get("out")):
        raise ConfigError(
            "a store and a target are needed", remedy="write softlabels extend STORE --config=RECIPE --out=NEW"
        )
    args = parse(argv, Extend, stage="extend", doc=__doc__, positional=("store",))
    recipe = [f"--config={named['config']}"] if "config" in named else []
    teacher = load_ensemble(args.teacher, train=suggested("train-teacher", *recipe))
    watch = Watch(say, warn, should_stop)
    if extend(args.store, args.transfer_set, teacher, args.labels, args.out, missing=args.missing, watch=watch):
        say(f"sealed: {args.out} (look: {suggested('info', args.out)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
