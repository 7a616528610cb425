"""Write an HTML page on a store and runs of students: softlabels report STORE [RUN ...].

The page is one file that needs no server and no network. It has a slider for the temperature, and everything follows it.

softlabels report stores/mine --out=mine.html               the store alone
softlabels report stores/mine runs/mine-xxxxxxxx            and a run of students
softlabels report stores/mine --config=mine.yaml            the recipe says where the rows' inputs are
softlabels report stores/mine --label_errors=wrong.csv      also the hard labels that are likely wrong
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from softlabels.errors import ConfigError
from softlabels.jobs.report import report
from softlabels.jobs.report_runs import GivenRun
from softlabels.jobs.run_files import RECIPE
from softlabels_stages.page_arguments import OfRun, Report
from softlabels_stages.recipe import parse
from softlabels_stages.run import PRINTED, stage


@stage("report", takes_words=True)
def main(args: Report, words: Sequence[str]) -> int:
    """Write it, and say where it is."""
    trust = [word for word in words if word.partition("=")[0] == "--trust"]
    runs = [_given(Path(run), args, trust) for run in args.runs]
    report(
        args.store,
        runs,
        out=args.out,
        transfer=args.transfer_set,
        boxes=args.boxes,
        label_errors=args.label_errors,
        watch=PRINTED,
    )
    return 0


def _given(run: Path, args: Report, trust: Sequence[str]) -> GivenRun:
    """A run with what its recipe says of its students, who are not asked where that says nothing of them, or where the run was
    not made here and names code of its own.
    """
    if not (run / RECIPE).is_file():
        return GivenRun(run, untold=f"there is no {RECIPE} in the run that says how to make its students")
    try:
        own = parse([f"--config={run / RECIPE}", *trust], OfRun, stage="report", doc=None, run=run)
    except ConfigError as error:
        return GivenRun(run, untold=str(error))
    return GivenRun(run, own.student, own.training, args.transfer_set or own.transfer_set, boxes=own.boxes)


if __name__ == "__main__":
    sys.exit(main())
