"""Whose code a run names: a recipe in a run folder may come from somebody else, and its class paths would be imported.

Classes that ship with softlabels are always imported. Of a run folder any other needs `--trust`, or a record that this run was
made here: a file named by the digest of its config.yaml in the user's own state folder, $SOFTLABELS_STATE, or
$XDG_STATE_HOME/softlabels, or ~/.local/state/softlabels. What lies in the run, its owner and its mode prove nothing. The door
that is closed is `softlabels.objects`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from softlabels.errors import ConfigError, SoftLabelsError
from softlabels.jobs.run_files import RECIPE, RESULTS, RUN
from softlabels.objects import only_shipped
from softlabels.system.local import write_atomically


def guard(recipe: Path, data: bytes, *, run: Path | None) -> None:
    """Refuse code for the rest of the command where `recipe`, whose bytes are `data`, is of a run that was not made here.

    Args:
        run: the folder of a student that the command is about: its config.yaml counts as a run's, whatever lies beside it.
    """
    if is_of_run(recipe, run) and not _is_recorded(data):
        only_shipped(
            f"does not ship with softlabels, and {recipe} is of a run that was not made here, so its code was not run",
            remedy="read that file, and add --trust to run what it names; a run of your own that an earlier version or another "
            "machine made is recorded when its train-student command is given again",
        )


def is_of_run(recipe: Path, run: Path | None) -> bool:
    """Whether a recipe lies in the folder of a run, or of what is left of one, or is that of the student's folder `run`."""
    whole = recipe.resolve()
    folders = {recipe.parent, whole.parent}  # as given, and behind links
    lies_there = any(os.path.lexists(folder / name) for folder in folders for name in (RUN, RESULTS))
    is_handed_on = any(
        file.name == RECIPE and any(file.parent.glob("*/weights.safetensors")) for file in (recipe, whole)
    )
    return lies_there or is_handed_on or (run is not None and recipe.samefile(run / RECIPE))


def record(data: bytes, run: Path) -> None:
    """Write down that `run`, whose config.yaml is `data`, was made here. Where that cannot be, a line says so."""
    try:
        folder = _records()
        if not (folder / _digest(data)).is_file():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(folder / _digest(data), os.fsencode(run.absolute()) + b"\n")
    except (SoftLabelsError, OSError) as error:
        said = f"warning: no record that {run} was made here, so other commands will want --trust for your own classes in it"
        print(f"{said}: {' '.join(str(error).split())}", file=sys.stderr)


def _is_recorded(data: bytes) -> bool:
    try:
        return (_records() / _digest(data)).is_file()
    except (SoftLabelsError, OSError):  # no state folder, or one that cannot be read: nothing says so
        return False


def _digest(data: bytes) -> str:
    return blake3(data).hexdigest()


def _records() -> Path:
    """The folder of records. Raises ConfigError where it would lie in the working folder, which may be somebody else's."""
    own, base = os.environ.get("SOFTLABELS_STATE"), Path(os.environ.get("XDG_STATE_HOME", ""))
    if own:
        state = Path(own)
    elif base.is_absolute():  # the XDG specification: others are ignored
        state = base / "softlabels"
    else:
        home = Path(os.environ.get("HOME", "~"))
        with suppress(RuntimeError):  # there is no home
            home = home.expanduser()
        state = home / ".local" / "state" / "softlabels"
    if not state.is_absolute():
        raise ConfigError(
            f"there is no state folder: {state} is no absolute path", remedy="set SOFTLABELS_STATE to one"
        )
    return state / "runs"
