"""Prune the students of a run: delete the weights that the loss needs least, retrain the rest from the stored labels, and
repeat.

Every round deletes by saliency, h u^2 / 2 with the second derivative h of the run's own loss over rows of the store (Optimal
Brain Damage; LeCun, Denker, Solla 1989), or by magnitude, and retrains as the run's recipe says. --structure=unit removes whole
hidden units of consecutive linear layers and convolutions, so the network and its exports are smaller. The run folder holds one
folder per student, which can be evaluated and exported like those of the run, config.yaml, results.json, results.md, and the
rounds. If it is stopped, run it again and it resumes.

softlabels prune runs/mnist-xxxxxxxx --keep=0.4                      60% of the weights deleted, in 4 rounds
softlabels prune runs/mnist-xxxxxxxx --keep=0.2 --structure=unit     a network of a fifth of the size
softlabels prune runs/mnist-xxxxxxxx --rule=magnitude --retrain=hard the controls
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from softlabels.jobs.prune import prune
from softlabels.jobs.watch import Watch
from softlabels.objects import plain
from softlabels.report.comparison import comparison_text
from softlabels.report.pruned import rises
from softlabels.report.table import as_text
from softlabels.student.pruning import Pruning
from softlabels_stages.arguments import Prune
from softlabels_stages.recipe import parse, recipe_of
from softlabels_stages.run import command, say, should_stop, suggested, warn
from softlabels_stages.student_folder import finished_run, record_own, with_store_of


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Delete, retrain, judge, print."""
    words = list(sys.argv[1:] if argv is None else argv)
    run = finished_run(words, Prune)
    args = parse(with_store_of(run, words), Prune, stage="prune", doc=__doc__, positional=("from_",), run=run)
    found = prune(
        args.from_,
        args.student,
        args.source,
        args.training,
        Pruning(**{name: getattr(args, name) for name in plain(Pruning())}),
        transfer_set=args.transfer_set,
        missing=args.missing,
        name=args.name,
        out=args.out,
        recipe=recipe_of(args),
        begun=record_own,
        watch=Watch(say, warn, should_stop),
    )
    print(f"\n{comparison_text(found.results)}\n\n{as_text(rises(found.results))}\n")
    students = sorted(folder.name for folder in found.path.glob("*-seed*"))
    print(f"pruned: {found.path}; try next: {suggested('export', found.path / students[0])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
