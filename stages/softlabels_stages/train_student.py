"""Train students from stored labels, no teacher in sight: distilled, and the same student with hard labels as well.

One student of each kind is trained for every seed, and for every value where temperature, alpha or loss are lists; all of
them side by side over one pass of the rows. The best epoch is chosen on validation rows, and when all are trained the test
split is looked at once. The run folder holds a folder a student, config.yaml (a recipe that repeats the run), results.json
and results.md. The same command goes on where it was stopped, and shows a finished run again.
"""

from __future__ import annotations

import sys

from softlabels.jobs.run_files import RECIPE
from softlabels.jobs.train import Run, train
from softlabels.jobs.watch import Watch
from softlabels.report.comparison import best_seed, best_student, comparison_text
from softlabels.report.views import views
from softlabels.store import open_store
from softlabels.student.sweep import HARD
from softlabels_stages.arguments import TrainStudent
from softlabels_stages.recipe import recipe_of
from softlabels_stages.run import say, should_stop, stage, suggested, warn
from softlabels_stages.student_folder import record_own


@stage("train-student", resumable=True)
def main(args: TrainStudent) -> int:
    """Train, judge, print."""
    recipe = recipe_of(args)
    run = train(
        args.student,
        args.store,
        args.training,
        transfer_set=args.transfer_set,
        missing=args.missing,
        pinned=args.pinned,
        name=args.name,
        out=args.out,
        recipe=recipe,
        begun=lambda folder: record_own(folder, recipe),
        watch=Watch(say, warn, should_stop),
    )
    print(f"\n{comparison_text(run.results)}\n")
    print(f"store {args.store}, run {run.path}; try next: {_next(args, run)}")
    return 0


def _next(args: TrainStudent, run: Run) -> str:
    """A command for whoever has just trained: a sweep; after a sweep, its best distilled student for others, by validation
    errors (the first of all where they were not counted).
    """
    if args.training.swept:
        best = best_student(run.results)
        variant = next(variant for variant in (*args.training.variants, HARD) if variant.label == best["label"])
        return suggested("export", run.path / variant.folder(args.training.seeds[best_seed(run.results, best)]))
    recipe, swept = f"--config={run.path / RECIPE}", "--temperature=1,2,4,8,20"
    if all(view.get("target") == "values" for view in views(run.results).values()) or not _knows_others(args):
        swept = "--alpha=0.5,0.9"  # values have no temperature
    return suggested("train-student", recipe, f"--store={args.store}", swept)


def _knows_others(args: TrainStudent) -> bool:
    """Whether the store's labels are known at other temperatures than one."""
    stored = open_store(args.store, split="train").spec.targets
    return args.training.tail_bound or all(each.encoding.only_at is None for each in stored)


if __name__ == "__main__":
    sys.exit(main())
