"""Run the teacher once over every split of the transfer set and store its logits, one store per split: STORE/train, ...

If it is stopped or killed, run it again and it resumes. A store that was begun with another recipe is refused. When it is done,
neither the teacher nor its weights are needed again. With labels.encoding=topk the k largest logits and the tail are stored;
they are right at any temperature from labels.min_temperature up.

Workers on any machines that run this command on one store share its shards: each claims one after the other, and takes over
those of a worker without progress for --lapse seconds. With --shards=i/n each does its own part and does not wait for others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.jobs.label import label, seal
from softlabels.jobs.shards import Shards
from softlabels.jobs.watch import Watch
from softlabels.teacher.served import load_teacher
from softlabels_stages.recipe import parse, store_flag, texts
from softlabels_stages.run import command, say, should_stop, suggested, warn
from softlabels_stages.teacher_arguments import TeacherLogits

_OF_RAY = ("address", "workers", "gpus")


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Label every split."""
    args = parse(argv, TeacherLogits, stage="teacher-logits", doc=__doc__, positional=("store",))
    config = texts(argv, TeacherLogits, positional=("store",)).get("config")
    recipe = () if config is None else (f"--config={config}",)  # of a command about the same recipe
    watch, splits = Watch(say, warn, should_stop), tuple(args.transfer_set.splits)
    if len(given := [name for name in ("seal", "shards", "engine") if getattr(args, name)]) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} exclude each other", remedy="give one")
    if args.engine is None and (given := [name for name in _OF_RAY if getattr(args, name) is not None]):
        raise ConfigError(f"--{given[0]} without --engine=ray", remedy="give both, or neither")
    if args.seal:
        made = seal(args.store, splits, watch=watch)
    elif args.engine == "ray":
        from softlabels.jobs.on_ray import Pass, label_on_ray

        named = Shards(named={}, lapse=args.lapse)
        what = Pass(args.transfer_set, args.teacher, args.labels, args.store, str(Path.cwd()), named)
        made = label_on_ray(what, address=args.address, workers=args.workers, gpus=args.gpus, watch=watch)
    else:
        shards = Shards.of(args.shards, lapse=args.lapse)
        teacher = load_teacher(args.teacher, train=suggested("train-teacher", *recipe))
        made = label(args.transfer_set, teacher, args.labels, args.store, shards=shards, watch=watch)
    if len(made) < len(splits):
        own = suggested("teacher-logits", *recipe, store_flag([args.store]), "--seal")
        print(f"not sealed yet: {args.store} (other parts are missing; the last one seals the store, or: {own})")
        return 0
    train = suggested("train-student", *recipe, store_flag([args.store]))
    print(f"sealed: {args.store} (look: {suggested('info', args.store)}; train: {train})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
