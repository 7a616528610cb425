"""The one file from which a training run goes on, bit for bit: `checkpoint.pt`.

It holds model, optimizer, schedule, random generators, the place in the run, the best weights so far, the lines logged so
far and the run's identity, all written together: a kill at any moment leaves the whole old file or the whole new one.
Only a run reads its own checkpoint; weights that leave the run are safetensors (`pipeline.models`).
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.errors import DamagedStore, SpecMismatch
from pipeline.store.durable import replace_file, system_errors
from pipeline.student.seeding import rng_state, set_rng_state

NAME = "checkpoint.pt"
FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: epochs finished.
        batch: batches done of the epoch after those.
        step: optimizer steps done.
        loss_sum: sum over the rows of the unfinished epoch of their batch's loss.
        rows: rows of the unfinished epoch seen.
        labelled: rows with a hard label seen since the run began.
        best_epoch: the epoch (from 1) with the lowest validation loss; 0 before the first, and without validation.
        best_validation: that loss.
        best_scores: the validation scores of that epoch.
        best_weights: the model's state after it, on the CPU.
        lines: the lines of `metrics.jsonl`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    rows: int = 0
    labelled: int = 0
    best_epoch: int = 0
    best_validation: float | None = None
    best_scores: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] | None = None
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """What a training run changes, besides its progress."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None


def save_checkpoint(folder: Path, parts: Parts, progress: Progress, identity: Mapping[str, object]) -> None:
    """Replace the checkpoint of the run in `folder`, atomically and durably.

    Raises:
        DiskFull, StorageError: the old checkpoint is still there.
    """
    state = {
        "format": FORMAT,
        "identity": json.dumps(identity),
        "environment": _environment(),
        "progress": {name: getattr(progress, name) for name in progress.__dataclass_fields__},
        "model": parts.model.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "scheduler": None if parts.scheduler is None else parts.scheduler.state_dict(),
        "rng": rng_state(),
    }
    path = folder / NAME
    staged = path.with_name(NAME + ".partial")
    with system_errors("write", path), staged.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    replace_file(staged, path)


def load_checkpoint(folder: Path, parts: Parts, identity: Mapping[str, object]) -> Progress | None:
    """Put `parts` and the random generators back to where the run in `folder` was saved; None where nothing was.

    Raises:
        SpecMismatch: the run was begun with another identity; names each field that differs.
        DamagedStore: the file cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    with system_errors("read", path):
        file = path.open("rb")
    try:
        with file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        begun = json.loads(state["identity"])
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedStore(
            f"{path} is no checkpoint that can be read ({type(error).__name__})",
            remedy=f"delete {folder} and train again",
        ) from error
    differences = list(_differences(begun, json.loads(json.dumps(identity))))
    if differences:
        raise SpecMismatch(
            f"the run in {folder} was begun with other settings: {', '.join(differences)}",
            remedy="give the same settings to go on, or another run folder to begin anew",
        )
    if state["environment"] != _environment():
        _log.warning("going on under %s what ran under %s: last bits may differ", _environment(), state["environment"])
    parts.model.load_state_dict(state["model"])
    if parts.scheduler is not None:
        parts.scheduler.load_state_dict(state["scheduler"])
    parts.optimizer.load_state_dict(state["optimizer"])
    set_rng_state(state["rng"])
    return Progress(**state["progress"])


def _differences(begun: object, now: object, name: str = "") -> Iterator[str]:
    """`training.temperature=4.0 there, 8.0 here` for each leaf in which two JSON values differ."""
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in [*begun, *(key for key in now if key not in begun)]:
            yield from _differences(begun.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif begun != now:
        yield f"{name}={json.dumps(begun)} there, {json.dumps(now)} here"


def _environment() -> dict[str, object]:
    """What else decides about the last bits of a result."""
    return {
        "torch": str(torch.__version__),  # a subclass of str, which weights_only would refuse
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
