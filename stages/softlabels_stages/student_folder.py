"""A trained student by the path that a user gives: its folder in a run, or a safetensors file; and what its run knows of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from softlabels.errors import ConfigError, WeightsError
from softlabels.models import ModelConfig
from softlabels.student.trainer import WEIGHTS
from softlabels_stages.run_files import read_object
from softlabels_stages.run_folder import RECIPE, RESULTS


def with_facts_of_run(words: Sequence[str]) -> list[str]:
    """The command line with the recipe, and of a finished run the store, of the run that a student named in it lies in,
    unless others are named.
    """
    models = [Path(word.removeprefix("--model=").removeprefix("--from=")) for word in words]
    runs = [model.parent for model in models if (model.parent / RECIPE).is_file()]
    named = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    facts = facts_of(runs[0]) if runs else []
    return [word for word in facts if word[2:].partition("=")[0] not in named] + list(words)


def facts_of(run: Path) -> list[str]:
    """The recipe, and of a finished run the store, of a run folder, as words of a command line; none of what is no run."""
    if not (run / RECIPE).is_file():
        return []
    words = [f"--config={run / RECIPE}"]
    if (run / RESULTS).is_file():
        store = read_object(run / RESULTS, "name the store: --store=STORE").get("store")
        words += [f"--store={store}"] if isinstance(store, str) else []
    return words


def with_weights(student: ModelConfig | None, path: str) -> ModelConfig:
    """The recipe's student with the weights at `path`. Raises WeightsError without a file, ConfigError without a student."""
    weights = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    if not weights.is_file():
        raise WeightsError(
            f"there is no student {path}{'' if weights == Path(path) else f', which lacks {WEIGHTS}'}",
            remedy="give the folder of a student in a run, or a safetensors file of weights",
        )
    if student is None:
        raise ConfigError("the recipe has no section student", remedy="give --config=RECIPE with the student's class")
    return dataclasses.replace(student, weights=str(weights))


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
        return path
    students = sorted(weights.parent for weights in run.glob(f"*/{WEIGHTS}"))
    distilled = [student for student in students if student.name.startswith("distilled")]
    for found in (students, distilled):
        if len(found) == 1:
            return str(found[0])
    if not students:
        raise ConfigError(f"{path} holds no trained student", remedy="let train-student finish there first")
    raise ConfigError(
        f"{path} holds {len(students)} students: {', '.join(student.name for student in students)}",
        remedy=f"name one, as {distilled[0] if distilled else students[0]}",
    )
