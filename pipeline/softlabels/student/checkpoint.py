"""The one file from which a training run goes on: `checkpoint.pt`.

It holds every learner (model, optimizer, schedules, moving average, random numbers, kept weights, lines of the log), the place
in the run, and the run's identity, all written together: a kill at any moment leaves the whole old file or the whole new one.
A resume ends with the same bits on a CPU where the environment that is recorded with it is the same; else a warning says first
what differs. Of several processes rank 0 writes and reads it for all; the number of processes is no part of a run's identity.
Only a run reads its own checkpoint; weights that leave the run are safetensors (`softlabels.models`).
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from softlabels import __version__
from softlabels.errors import DamagedStore, DiskFull, SpecMismatch, StorageError
from softlabels.names import renamed
from softlabels.store.differences import differences
from softlabels.student.ranks import ALONE, Ranks
from softlabels.student.seeding import rng_of_rank, rng_state, set_rng_state
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

NAME = "checkpoint.pt"
FORMAT = 3
# What the parts of an identity are called where their values are digests, which say nothing.
_MEANING = {
    "inputs": "the prepared inputs, by transfer_set.prepare or its code",
    "labels": "the hard labels",
}
_log = logging.getLogger(__name__)


def save_checkpoint(
    folder: LocalFolder,
    state: Mapping[str, Any],
    identity: Mapping[str, object],
    *,
    ranks: Ranks = ALONE,
    sharing: Ranks = ALONE,
    sharded: bool = False,
) -> None:
    """Replace the checkpoint of the run in `folder`, atomically and durably.

    Args:
        folder: the run folder.
        state: plain values and tensors, on rank 0.
        identity: JSON values that tell this run from others.
        ranks: who trains: the random generators of all are saved. sharing: those that share a batch. sharded: whether they hold
            pieces of the students.

    Raises:
        DiskFull, StorageError: the old checkpoint is still there.
    """
    drawn = ranks.gather(rng_state())
    if ranks.rank > 0:
        return
    whole = {
        "format": FORMAT,
        "identity": json.dumps(identity),
        "environment": _environment(sharing, sharded),
        "state": dict(state),
        "rng": drawn[0],
        **({"ranks": drawn[1:]} if drawn[1:] else {}),
    }
    staged = NAME + ".partial"
    folder.remove(staged)  # of a run that was killed
    try:
        with folder.filled(staged) as file:
            target: Any = SimpleNamespace(write=file.write, flush=lambda: None)  # all that torch asks of a file
            try:
                torch.save(whole, target)
            except RuntimeError as error:  # torch's, without a reason, in the wake of the system's
                raise error.__context__ or error from error
        folder.place({staged: NAME})
        folder.settle([NAME])
    except (DiskFull, StorageError):
        folder.remove(staged)  # where the disk is full, it is part of the reason
        raise


def load_checkpoint(
    folder: LocalFolder,
    identity: Mapping[str, object],
    *others: Mapping[str, object],
    ranks: Ranks = ALONE,
    sharing: Ranks = ALONE,
    sharded: bool = False,
) -> tuple[dict[str, Any], int] | None:
    """The state that the run in `folder` was saved with, after putting the random generators back; None where nothing was, and
    where what was saved is the start, before its first step, of a run with another identity: it binds nobody.

    Args:
        identity: of the run as it would be begun.
        others: as which an earlier version may have begun it.
        ranks, sharing, sharded: who trains: rank 0 reads it. Where it was saved by another number of them, each but rank 0
            draws other random numbers from here on.

    Returns:
        The state, and as which of these the run was begun: 0 for `identity`.

    Raises:
        SpecMismatch: the run was begun with another identity, naming each field that differs, or by another version.
        DamagedStore: the file cannot be read.
    """
    whole = ranks.broadcast(_whole(folder) if ranks.rank == 0 else None)
    if whole is None:
        return None
    found, begun = whole["format"], json.loads(whole["identity"])
    if found != FORMAT:
        raise SpecMismatch(
            f"{folder.at(NAME)} has format {found}, this version of softlabels reads {FORMAT}",
            remedy="finish the run with the version that began it, or begin a new run folder",
        )
    ours: list[Any] = [json.loads(json.dumps(each)) for each in (identity, *others)]
    different = [differences(renamed(begun, each), each) for each in ours]
    number = next((at for at, leaves in enumerate(different) if not leaves), None)
    if number is None and whole["state"].get("progress", {}).get("step") == 0:
        return None
    if number is None:
        said = "; ".join(leaf._replace(path=_MEANING.get(leaf.path, leaf.path)).said() for leaf in different[0])
        raise SpecMismatch(
            f"the run in {folder} was begun with other settings: {said}",
            remedy=f"give the same settings to go on; to begin anew, delete {folder} or name another run folder",
        )
    changed = [leaf.said("before", "now") for leaf in differences(whole["environment"], _environment(sharing, sharded))]
    if changed and ranks.rank == 0:
        _log.warning("%s resumes in another environment, and its last bits may differ: %s", folder, "; ".join(changed))
    drawn = [whole["rng"], *whole.get("ranks", [])]
    set_rng_state(drawn[ranks.rank] if len(drawn) == ranks.world else rng_of_rank(drawn[0], ranks.rank))
    return whole["state"], number


def _whole(folder: LocalFolder) -> dict[str, Any] | None:
    """What the file holds; None where there is none."""
    path = folder.at(NAME)
    if not folder.exists(NAME):
        return None
    with system_errors("read", path):
        handle = folder.open(NAME)
    try:
        with os.fdopen(handle, "rb") as file:
            whole: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        _ = whole["format"], json.loads(whole["identity"])
        return whole
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedStore(
            f"{path} is no checkpoint that can be read ({type(error).__name__})",
            remedy=f"delete {folder} and train again",
        ) from error


def _environment(sharing: Ranks, sharded: bool) -> dict[str, object]:
    together = {"processes": sharing.world} | ({"sharded": True} if sharded else {})
    return environment() | (together if sharing.world > 1 else {})


def environment() -> dict[str, object]:
    """What else decides about the last bits of a result: versions, kind of processor, threads."""
    return {
        "softlabels": __version__,
        "torch": str(torch.__version__),  # a subclass of str, which weights_only would refuse
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The model of the processor, where the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
