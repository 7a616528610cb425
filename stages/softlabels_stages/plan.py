"""Go or no-go before the teacher runs: softlabels plan RECIPE.

A pilot asks the teacher about some rows of each split, by default 1% and at least 800, chosen by content key. It says what the
whole pass would take (bytes by encoding and layout, hours on this machine, room where the store would go), how good the teacher
is, what its labels say beyond a class, what small students gain, what cannot be known, and a verdict. What teacher-logits would
refuse is refused here as well. Nothing is written but prepared rows, which teacher-logits uses, and the file of --page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from softlabels.jobs.plan import plan
from softlabels.jobs.plan_page import require_page, write_page
from softlabels.jobs.watch import Watch
from softlabels.objects import plain
from softlabels.report.plan_text import lines
from softlabels.teacher.served import load_teacher
from softlabels_stages.recipe import parse, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn
from softlabels_stages.teacher_arguments import Plan


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Run the pilot, and say what it found."""
    args = parse(argv, Plan, stage="plan", doc=__doc__, positional=("config",))
    config = texts(argv, Plan, positional=("config",)).get("config")
    recipe = () if config is None else (f"--config={config}",)
    if args.page is not None:
        require_page(args.page)
    watch = Watch(warn if args.json else say, warn, should_stop)
    found = plan(
        args.transfer_set,
        load_teacher(args.teacher, train=suggested("train-teacher", *recipe)),
        args.labels,
        args.store,
        student=args.student,
        training=args.training,
        rows=args.rows,
        seconds=args.seconds,
        seed=args.seed,
        watch=watch,
    )
    if args.page is not None:
        write_page(found, args.page)
        watch.say(f"page: {args.page}")
    if args.json:
        print(json.dumps(plain(found), indent=1))
        return 0
    say("")
    for line in lines(found):
        say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
