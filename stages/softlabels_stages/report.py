"""Write an HTML page on a store and runs of students: softlabels report STORE [RUN ...].

The page is one file that needs no server and no network. It has a slider for the temperature, and everything follows it.

softlabels report stores/mine --out=mine.html               the store alone
softlabels report stores/mine runs/mine-xxxxxxxx            and a run of students
softlabels report stores/mine --config=mine.yaml            the recipe says where the rows' inputs are
"""

from __future__ import annotations

import sys
from pathlib import Path

from softlabels.jobs.report import report
from softlabels_stages.page_arguments import Report
from softlabels_stages.run import PRINTED, stage


@stage("report")
def main(args: Report) -> int:
    """Write it, and say where it is."""
    report(args.store, [*map(Path, args.runs)], out=args.out, transfer=args.transfer_set, watch=PRINTED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
