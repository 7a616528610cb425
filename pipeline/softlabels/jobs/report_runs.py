"""Finished runs as a report shows them: what their files say, and what their students say of held-out rows of its store.

A run may be a stranger's: it is data, no link in it is followed, and its students are asked only where its code may run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError, DamagedRun, SoftLabelsError
from softlabels.jobs.judge import digest_of
from softlabels.jobs.run_files import LATENCY, RESULTS, RUN, read_bounded, read_object, read_results
from softlabels.jobs.sources import Labels
from softlabels.jobs.student_answers import Said, ask_students, chosen_students, folder_of
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.models import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.pages.answers import Answers
from softlabels.pages.runs import runs_sections
from softlabels.pages.shown_run import ShownRun, Size
from softlabels.report.curves import Line, log_lines
from softlabels.report.measures import Results
from softlabels.store import Store
from softlabels.store.key_index import Missing
from softlabels.student.runlog import NAME as LOG
from softlabels.student.sweep import StudentTraining
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferSetConfig

_REMEDY = "take the run's files from where it was made"
_MOST = 5000  # students, each seed one, of a run; and members of its teacher
_FORMS = 50  # exported files of a student
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class GivenRun:
    """A run that a report is to show.

    Attributes:
        path: its folder.
        student, training, transfer_set: of its recipe, by which its students are asked, see `train`; without a student they are
            not. untold: why not.
        boxes: of its recipe, see `report`.
    """

    path: Path
    student: ModelConfig | None = None
    training: StudentTraining | None = None
    transfer_set: TransferSetConfig | None = None
    untold: str = ""
    boxes: ObjectSpec | None = None


def shown_run(
    given: GivenRun,
    source: Labels,
    stores: Mapping[str, Store],
    watch: Watch = LOGGED,
    *,
    name: str = "",
    others: bool = False,
) -> tuple[ShownRun, dict[str, list[Answers]]]:
    """A run as a page shows it, and what its students say of rows, by the split of the store that was held out.

    Args:
        source: the report's store. stores: its splits by name, opened.
        name: what the run and its students are called, as one of several (`distinct_names`); by default the students' names do.
        others: see `ask_students`.

    Raises:
        ConfigError: no finished run. DamagedRun: files that are no run's. StrangePath: links.
    """
    run = LocalFolder(given.path)
    results = _results(run)
    other = _other_store(results, stores)
    said, untold = Said("", [], [], {}), other or given.untold
    if given.student is not None and not other:
        quiet = replace(watch, say=_nothing, warn=_nothing)
        try:
            said = ask_students(
                run, results, given.student, given.training or StudentTraining(), source,
                transfer_set=given.transfer_set, missing=_missing(run), others=others, watch=quiet,
            )  # fmt: skip
        except SoftLabelsError as error:
            untold = f"{type(error).__name__}: {error}"
            watch.warn(f"the report has no outputs of the students of {given.path}: {error}")
    with _blaming_files(run):
        logs, sizes = _logs(run, results), [*_sizes(run, results, said)]
        found = ShownRun(
            name or given.path.resolve().name, results, logs, other, said.split, said.held_out, untold, sizes
        )
        for section in runs_sections([found]):  # what is wrong with the files shows here
            json.dumps(section.data, allow_nan=False)
    answers = [replace(each, label=f"{name}: {each.label}") if name else each for each in said.answers]
    return found, {said.split: answers}


def distinct_names(runs: Sequence[GivenRun]) -> list[str]:
    """What runs of different folders are called: by as many of the last parts of their paths as tell all of them apart; ""
    of a single one.
    """
    if len(runs) < 2:
        return [""] * len(runs)
    parts = [run.path.resolve().parts for run in runs]
    names: list[str] = []
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len({*names}) == len(names):
            break
    return names


def _nothing(line: str) -> None:
    """What asking a student says was said when it was trained."""


def _results(run: LocalFolder) -> dict[str, Any]:
    if not run.exists(RESULTS):
        what = f"the run {run.at()} is not finished" if run.exists(RUN) else f"{run.at()} is no run"
        raise ConfigError(what, remedy="name the folder of a finished train-student run")
    found = read_results(run)
    counts = len(found["students"]) * len(found["seeds"]), len(found["teacher"]["members"])
    if max(counts) > _MOST:
        what = f"{run.at(RESULTS)} has {counts[0]:,} students and {counts[1]:,} members of the teacher"
        raise DamagedRun(f"{what}, a page shows at most {_MOST:,}", remedy=_REMEDY)
    return found


@contextmanager
def _blaming_files(run: LocalFolder) -> Iterator[None]:
    """What goes wrong with results that `read_results` took, or with logs, is their fault."""
    try:
        yield
    except _MALFORMED as error:
        raise DamagedRun(
            f"{run.at()} holds results or logs that a run does not write: {type(error).__name__}: {error}",
            remedy=_REMEDY,
        ) from None


def _missing(run: LocalFolder) -> Missing:
    """What was done with rows that the store does not label."""
    return "skip" if run.exists(RUN) and read_object(run, RUN, _REMEDY).get("missing") == "skip" else "error"


def _other_store(results: Results, stores: Mapping[str, Store]) -> str:
    """Why a run is not over these stores, "" where it is: the digests of the splits that both have are alike."""
    own = results.get("digests") or {}
    here = {name: digest_of(store) for name, store in stores.items()}
    both = [name for name in here if name in own]
    if both and all(here[name] == own[name] for name in both):
        return ""
    why = (
        "they have no split in common"
        if not both
        else f"the digest of split {next(name for name in both if here[name] != own[name])} differs"
    )
    return f"This run used another store ({why}). The page shows only what the run itself recorded."


def _logs(run: LocalFolder, results: Results) -> dict[str, list[Line]]:
    """The lines of each student's log, where there is one."""
    names, found = run.names(), dict[str, list[Line]]()
    for student in results["students"]:
        for seed in results["seeds"]:
            name = folder_of(student, seed)
            if name in names and run.exists(f"{name}/{LOG}"):
                found[name] = [*log_lines(read_bounded(run, f"{name}/{LOG}", _REMEDY).decode())]
    return found


def _sizes(run: LocalFolder, results: Results, said: Said) -> Iterator[Size]:
    """The weights of the students that stand for the run; and of every student what `export --latency` measured."""
    names = run.names()
    for name in dict.fromkeys(each.folder for each in chosen_students(results)):
        if name in names and run.exists(f"{name}/{WEIGHTS}"):
            yield Size(f"{name}, weights", run.size(f"{name}/{WEIGHTS}"), said.parameters.get(name))
    for name in (folder_of(student, seed) for student in results["students"] for seed in results["seeds"]):
        if name not in names or not run.exists(f"{name}/{LATENCY}"):
            continue
        found = read_object(run, f"{name}/{LATENCY}", "delete that file")
        for form, each in [*found["models"].items()][:_FORMS]:
            yield Size(f"{name}, {form}", int(each["bytes"]), None, [*map(float, each["milliseconds"])])
