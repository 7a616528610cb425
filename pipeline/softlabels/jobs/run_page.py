"""The page of a finished run: report.html in its folder, on the held-out split of its store. The run is as good without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softlabels.errors import MissingExtra, one_line
from softlabels.jobs.report import report
from softlabels.jobs.report_runs import GivenRun
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.watch import LOGGED, Watch

PAGE = "report.html"


def run_page(run: GivenRun, results: Mapping[str, Any], store: Labels, *, watch: Watch = LOGGED) -> Path | None:
    """Write the page of a run into its folder, in the place of one that stands there; None where that cannot be, which a line
    says.

    Args:
        run: the run, with its recipe. results: what its results.json holds.
        store: the stores that it was trained on.
    """
    try:
        source = Source.of(store)
        split = results["split"] if results["split"] in source.splits() else "train"  # validation rows were cut from it
        quiet = dataclasses.replace(watch, say=lambda line: None)
        return report(source, [run], out=run.path / PAGE, split=split, transfer=run.transfer_set, watch=quiet)
    except MissingExtra as error:
        watch.say(f"no {PAGE}: {error}")
    except Exception as error:  # whatever it is: the run is finished
        watch.warn(f"warning: no {PAGE}: {type(error).__name__}: {one_line(error)}")
    return None
