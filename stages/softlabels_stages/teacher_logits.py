"""Run the teacher once over every split of the transfer set and store its logits, one store a split: STORE/train, ...

The same command goes on where it was stopped, however it was stopped; a store that was begun with another recipe is
refused. When it is done, neither the teacher nor its weights are needed again. With labels.encoding=topk the k largest
logits and the tail are kept, which serve any temperature from labels.min_temperature up.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from softlabels.jobs.label import label
from softlabels.jobs.watch import Watch
from softlabels.teacher.ensemble import load_ensemble
from softlabels_stages.recipe import parse, store_flag, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn
from softlabels_stages.teacher_arguments import TeacherLogits


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Label every split."""
    args = parse(argv, TeacherLogits, stage="teacher-logits", doc=__doc__, positional=("store",))
    config = texts(argv, TeacherLogits, positional=("store",)).get("config")
    recipe = () if config is None else (f"--config={config}",)  # of a command about the same recipe
    teacher = load_ensemble(args.teacher, train=suggested("train-teacher", *recipe))
    label(args.transfer_set, teacher, args.labels, args.store, watch=Watch(say, warn, should_stop))
    train = suggested("train-student", *recipe, store_flag([args.store]))
    print(f"sealed: {args.store} (look: {suggested('info', args.store)}; train: {train})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
