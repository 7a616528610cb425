"""A trained student by the path that a user gives: its folder in a run, or a safetensors file; and what its run knows of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError, DamagedRun, SoftLabelsError, WeightsError
from softlabels.jobs.run_files import RECIPE, RESULTS, RUN, read_object
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.sources import SEVERAL
from softlabels.models import ModelConfig
from softlabels.names import renamed
from softlabels.objects import is_guarded
from softlabels.student.trainer import WEIGHTS
from softlabels.system.local import LocalFolder
from softlabels_stages.recipe import asks_help, sections_of, store_flag, texts
from softlabels_stages.trust import record


def run_of(words: Sequence[str]) -> Path | None:
    """The run that a student named in a command line lies in."""
    models = [Path(word.removeprefix("--model=").removeprefix("--from=")) for word in words]
    runs = [(model if model.name else model.absolute()).parent for model in models]  # "." lies in a folder too
    return next((run for run in runs if (run / RECIPE).is_file()), None)


def finished_run(words: Sequence[str], cls: type) -> Path | None:
    """The run that a command line names; None where help is asked for. Raises ConfigError where it names none."""
    named = texts(words, cls, positional=("from_",)).get("from_", "")
    if asks_help(words):
        return None
    if not (Path(named) / RECIPE).is_file():
        _require_finished(Path(named))
        what = f"{named} is no run" if named else "no run is named"
        raise ConfigError(what, remedy="name the folder of a finished train-student run")
    return Path(named)


def with_store_of(run: Path | None, words: Sequence[str]) -> list[str]:
    """The command line with the store of a finished run, unless one is named. Raises DamagedRun where the run names none,
    ConfigError where it is not finished.
    """
    is_named = any(word == "--store" or word.startswith("--store=") for word in words)
    if run is None or is_named:
        return list(words)
    _require_finished(run)
    if not (run / RESULTS).is_file():
        return list(words)
    found = read_object(LocalFolder(run), RESULTS, remedy := "name the store: --store=STORE")
    store, several = found.get("store"), found.get(SEVERAL, {})
    stores = [store] if isinstance(store, str) else store
    if not (isinstance(stores, list) and all(isinstance(each, str) and each for each in stores) and stores):
        raise DamagedRun(f"{run / RESULTS} does not name the run's store", remedy=remedy)
    if not isinstance(several, dict):
        raise DamagedRun(f"{run / RESULTS} does not say how the run's stores were read as one", remedy=remedy)
    own = [word for word in options_of(several) if not any(given.startswith(word.partition("=")[0]) for given in words)]
    return [store_flag(stores), *own, *words]


def options_of(several: Mapping[str, Any]) -> list[str]:
    """The flags that say how several stores are read as one, as the files of a run keep it."""
    said = {name: several[name] for name in ("rename", "repeated", "missing") if name in several}
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in said.items()]


def with_weights(student: ModelConfig | None, path: str) -> ModelConfig:
    """The recipe's student with the weights at `path`. Raises WeightsError without a file, ConfigError without a student, and
    StrangePath where it is a link in a run.
    """
    if (Path(path).parent / RECIPE).is_file():
        LocalFolder(Path(path).parent).is_folder(Path(path).name)  # a link in a run leads to what is not the run's
    weights = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    if not weights.is_file():
        raise WeightsError(
            f"there is no student {path}{'' if weights == Path(path) else f', which lacks {WEIGHTS}'}",
            remedy="give the folder of a student in a run, or a safetensors file of weights; a store is named with --store",
        )
    if student is None:
        raise ConfigError("the recipe has no section student", remedy="give --config=RECIPE with the student's class")
    return dataclasses.replace(student, weights=str(weights))


def home_of(weights: str) -> LocalFolder:
    """The folder that a student's files go to, beside its weights; in a run, below the run's root."""
    home = Path(weights).parent
    return LocalFolder(home.parent).within(home.name) if (home.parent / RECIPE).is_file() else LocalFolder(home)


def student_word(word: str) -> str:
    """A word of a command line, with the one student of a run in the place of the run. Raises ConfigError."""
    flag = next((flag for flag in ("--model=", "--from=") if word.startswith(flag)), "")
    return word if word.startswith("-") and not flag else flag + only_student(word.removeprefix(flag))


def only_student(path: str) -> str:
    """`path`, or the one student below it where it is a run: the only one, or the only distilled one.

    Raises ConfigError for a run of several or of none.
    """
    run = Path(path)
    if not (run / RECIPE).is_file():
        for home in {run, run.parent} if not (run / WEIGHTS).is_file() else ():
            _require_finished(home)
        return path
    students = sorted(weights.parent for weights in run.glob(f"*/{WEIGHTS}"))
    distilled = [student for student in students if student.name.startswith("distilled")]
    for found in (students, distilled):
        if len(found) == 1:
            return str(found[0])
    if not students:
        raise ConfigError(f"{path} holds no trained student", remedy="run train-student there to its end first")
    raise ConfigError(
        f"{path} holds {len(students)} students: {', '.join(student.name for student in students)}",
        remedy=f"name one, as {distilled[0] if distilled else students[0]}",
    )


def _require_finished(run: Path) -> None:
    """Raise ConfigError where a folder holds a run that is not finished."""
    if (run / RUN).is_file() and not (run / RESULTS).is_file():
        raise ConfigError(
            f"the run {run} is not finished", remedy="run the command that began it again, and it resumes"
        )


def record_own(run: RunFolder, recipe: Mapping[str, Any]) -> None:
    """Record that a run was made here: not where the recipe is itself that of another's run, nor where another config.yaml
    stands there.
    """
    standing = run.folder.read(RECIPE)
    try:
        found = renamed(sections_of(standing, RECIPE))
    except (SoftLabelsError, RecursionError):
        return
    # It names nothing that `recipe` does not: an earlier version wrote it with its names, and without settings that came later.
    if not is_guarded() and _is_within(found, renamed(dict(recipe))):
        record(standing, run.path)


def _is_within(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_within(value, whole[name]) for name, value in part.items())
    return part == whole
