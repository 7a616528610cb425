"""Train students from stored labels, without the teacher: distilled, and the same student with hard labels only.

One student of each kind is trained for every seed, and for every value if temperature, alpha or loss are lists. All of them are
trained side by side, in one pass over the rows. The best epoch is chosen on validation rows, and the test split is used once,
when all are trained. The run folder holds one folder per student, config.yaml (a recipe that repeats the run), results.json,
results.md and report.html, a page to look at. If it is stopped, run it again and it resumes; a finished run is shown again.

With --processes=N, or started by torchrun, N processes train together: they divide the rows of each batch, or the students.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from softlabels.jobs.run_files import RECIPE
from softlabels.jobs.run_report import is_wanted
from softlabels.jobs.train import Run, train
from softlabels.jobs.watch import Watch
from softlabels.objects import call_with
from softlabels.report.comparison import best_seed, best_student, comparison_text
from softlabels.report.views import views
from softlabels.student.distributed import processes_here, ranks_here
from softlabels.student.ranks import Ranks
from softlabels.student.sweep import HARD
from softlabels_stages.arguments import TrainStudent
from softlabels_stages.processes import end_with_launcher, launch, require_processes
from softlabels_stages.recipe import recipe_of, store_flag
from softlabels_stages.run import say, should_stop, stage, suggested, warn
from softlabels_stages.student_folder import options_of, record_own


@stage("train-student", resumable=True, takes_words=True)
def main(args: TrainStudent, words: Sequence[str]) -> int:
    """Train, judge, print."""
    if args.processes > 1 and processes_here() == 1:
        return launch("train_student", words, args.processes)
    end_with_launcher()
    with ranks_here(args.training.device) as ranks:
        require_processes(args.processes, ranks.world)
        return _run(args, ranks)


def _run(args: TrainStudent, ranks: Ranks) -> int:
    recipe, told = recipe_of(args), set[str]()

    def tell(line: str) -> None:
        told.add(line)
        say(line)

    run = train(
        args.student,
        args.source,
        args.training,
        transfer_set=args.transfer_set,
        missing=args.missing,
        name=args.name,
        out=args.out,
        recipe=recipe,
        begun=lambda folder: record_own(folder, recipe),
        watch=Watch(tell, warn, should_stop, None if args.tracker is None else call_with(args.tracker)),
        ranks=ranks,
    )
    if ranks.rank > 0:
        return 0
    # What splits share was said before training; where a finished run is shown again it is said here.
    lines = [line for line in comparison_text(run.results).splitlines() if line not in told]
    print("", *lines, "", sep="\n")
    named = f"store{'s' * (len(args.store) > 1)} {', '.join(args.store)}"
    print(f"{named}, run {run.path}; try next: {_next(args, run)}")
    if is_wanted():
        _report(args, run)
    return 0


def _report(args: TrainStudent, run: Run) -> None:
    """Write the run's page, and name it."""
    from softlabels.jobs.report_runs import GivenRun  # which a run without a page does not need
    from softlabels.jobs.run_page import run_page

    given = GivenRun(run.path, args.student, args.training, args.transfer_set)
    page = run_page(given, run.results, args.source, watch=Watch(say, warn))
    if page is not None:
        say(f"report: {page}")


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
    return suggested(
        "train-student",
        recipe,
        store_flag(args.store),
        *options_of(args.source.several(args.missing)),
        swept,
    )


def _knows_others(args: TrainStudent) -> bool:
    """Whether the store's labels are known at other temperatures than one."""
    if args.training.tail_bound:
        return True
    store = args.source.open(only="train", missing=args.missing)["train"]
    return all(each.encoding.only_at is None for each in store.spec.targets)


if __name__ == "__main__":
    sys.exit(main())
