"""The training loop: students, a config and batches in; weights, metrics and a checkpoint in a run folder out.

One student or many are taken through the same batches side by side (`learner`): a batch is read once for all of them. It
trains students from soft labels and teachers from hard ones; which loss, optimizer and schedule says each student's config.
It does not know where batches come from (`softlabels.stream`) nor what the models are (`softlabels.models`). Several processes
may train together (`ranks`): they take every step together, and rank 0 alone touches the folder.

A run folder holds `checkpoint.pt` and, in a folder a student, when the run has ended: `weights.safetensors` (the best
epoch's by validation loss, or the last one's), `metrics.jsonl`, and what trackers write, as `tensorboard/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm

from softlabels.errors import DamagedRun, Interrupted, RunExists
from softlabels.models import save_weights
from softlabels.models.device import resolve_device, warm_up
from softlabels.objects import plain
from softlabels.student import checkpoint, runlog
from softlabels.student.checkpoint import load_checkpoint, save_checkpoint
from softlabels.student.heads import Head
from softlabels.student.learner import Augment, Learner, Student
from softlabels.student.loss_spec import LossSpec
from softlabels.student.metrics import Batches, Scores
from softlabels.student.ranks import ALONE, Ranks, require_same
from softlabels.student.run_identity import facts_of, orders_of, settings_of, shared_config
from softlabels.student.runlog import RunLog, Unwritten
from softlabels.student.seeding import deterministic, rng_of_rank, rng_state, set_rng_state, torch_rng_of_rank
from softlabels.student.tracker import TensorBoard, Tracker
from softlabels.student.validation import validate
from softlabels.system.local import LocalFolder, local_folder

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch

WEIGHTS = "weights.safetensors"
ASKED_EVERY = 16  # steps after which ranks that divide the students ask whether to stop


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run gives for one student.

    Attributes:
        kept_epoch: the epoch (from 1) whose weights were kept.
        kept_validation: its validation loss; None without validation.
        scores: its validation scores; empty without validation.
        steps: optimizer steps of the run.
        weights: the safetensors file.
    """

    kept_epoch: int
    kept_validation: float | None
    scores: Scores
    steps: int
    weights: Path


@dataclass
class Progress:
    """Where a run stands: epochs finished, batches done of the next, steps done, rows of the unfinished epoch seen and
    positions that counted in them.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    positions: int = 0


class Trainer:
    """Trains `students` side by side, each as its config says, and keeps the run in `folder`.

    The same call on the same folder goes on where the last one stopped, whatever stopped it, and ends with the weights of
    a run that was never stopped (bit for bit where `checkpoint` says so).
    A student ends with the weights that it would have had alone.

    Args:
        students: made by `Student.begin`. Their models are moved to the device, and hold the kept weights when `run` returns;
            where ranks hold pieces of them, on rank 0's CPU.
        train: what to train on; its batches carry soft labels where a config gives them a weight.
        validation: what to judge epochs on; None keeps the last epoch.
        folder: the run folder; created where it is missing.
        identity: JSON values that say what else is trained on which data (model, store digests); a folder that was begun
            with another identity or config is refused.
        augment: changes a batch's inputs before each training step; draws from torch's generators.
        before: `train` and `validation` in the order of an earlier version: a run that it began goes on in that order.
        ranks: the processes that train together; the batches given are this one's part of each.
        by_students: they divide the students, and the batches given are whole; see `divided`.
        tracker: makes one for each student, each time that the run begins or goes on; beside TensorBoard.

    Attributes:
        is_of_before: whether it does so; known once `run` has begun.

    Raises:
        ConfigError: an optimizer, schedule or device that cannot be had; students that cannot share a pass.
        SpecMismatch: another rank would train something else.
    """

    def __init__(
        self,
        students: Sequence[Student],
        train: Batches,
        validation: Batches | None,
        folder: Path | LocalFolder,
        identity: Mapping[str, object],
        augment: Augment | None = None,
        *,
        before: tuple[Batches, Batches | None] | None = None,
        ranks: Ranks = ALONE,
        by_students: bool = False,
        tracker: Callable[[], Tracker] | None = None,
    ) -> None:
        self._train, self._validation, self._folder = train, validation, local_folder(folder)
        self._before, self.is_of_before = before, False
        self._tracker = tracker
        self._ranks, self._sharing = ranks, ALONE if by_students else ranks  # all; those that share a batch
        self._config = shared_config(students)
        self._who: Any = {"ranks": ranks, "sharing": self._sharing, "sharded": self._config.shard}
        self._device = resolve_device(self._config.device)
        self._total_steps = self._config.epochs * train.steps_per_epoch
        self._identity = {"training": settings_of(students), "order": orders_of(train, validation), **identity}
        require_same(ranks, self._identity | facts_of(students) if ranks.world > 1 else {})
        self._learners = [
            Learner(student, device=self._device, total_steps=self._total_steps, augment=augment, ranks=self._sharing)
            for student in students
        ]
        self._own = self._learners[ranks.rank :: ranks.world] if by_students else self._learners
        self._progress = Progress()

    def run(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_epoch: Callable[[int, float], object] = lambda epoch, seconds: None,
    ) -> list[TrainingResult]:
        """Train to the end, from wherever the run in the folder stands; a run that has ended is not trained again.

        Args:
            should_stop: asked before each step; when true, the run is saved at that step.
            on_epoch: called after each epoch with its number, from 1, and the seconds that it took.

        Returns:
            One result a student, in their order.

        Raises:
            Interrupted: `should_stop` was true; the same call goes on from there.
            LogitsError: a loss is NaN or infinite; names student and step.
            SpecMismatch, RunExists: the folder holds another run, or files that no run wrote, or is in use.
            RankLost: another rank has ended; what was saved is gone on with.
            DiskFull, StorageError: nothing that was saved is lost.
        """
        with self._alone_in_folder(), deterministic(self._device, self._config.threads):
            warm_up()
            self._begin()
            if self._ranks.broadcast(self._is_first and all(self._is_ended(learner) for learner in self._learners)):
                for learner in self._learners:
                    learner.load_kept()
                return [self._result(learner) for learner in self._learners]
            with ExitStack() as stack:
                logs = [stack.enter_context(closing(self._log(each))) for each in self._learners]
                self._train_epochs(logs, should_stop, on_epoch)
                for learner, log in zip(self._learners, logs, strict=True):
                    learner.load_kept()
                    if self._is_first:
                        save_weights(learner.model, WEIGHTS, folder=self._home(learner))
                    log.add(self._last_line(learner))
        return [self._result(learner) for learner in self._learners]

    @property
    def _is_first(self) -> bool:
        """Whether this is rank 0, which alone reads and writes the folder."""
        return self._ranks.rank == 0

    @contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        if not self._is_first:
            yield
            return
        self._folder.make()
        with self._folder.only_process():
            yield

    def _log(self, learner: Learner) -> RunLog | Unwritten:
        if not self._is_first:
            return Unwritten()
        home, settings = self._home(learner), self._identity | {"training": plain(learner.config)}
        trackers: list[Callable[[], Tracker]] = [partial(TensorBoard, home)]
        trackers += [] if self._tracker is None else [self._tracker]
        return RunLog(home, learner.standing.lines, self._progress.step, trackers, settings)

    def _home(self, learner: Learner) -> LocalFolder:
        return self._folder.within(learner.name)

    def _is_ended(self, learner: Learner) -> bool:
        return runlog.is_ended(self._home(learner)) and self._home(learner).exists(WEIGHTS)

    def _begin(self) -> None:
        """Load the checkpoint; where there is none that binds this run, save the first one."""
        if not self._restore():
            if not self._is_first:
                set_rng_state(rng_of_rank(rng_state(), self._ranks.rank))
            homes = {self._home(learner) for learner in self._learners if self._is_first}
            foreign = [home.at(name) for home in homes for name in (runlog.NAME, WEIGHTS) if home.exists(name)]
            if foreign and not self._folder.exists(checkpoint.NAME):
                raise RunExists(
                    f"{foreign[0].parent} holds {' and '.join(sorted(path.name for path in foreign))} but no "
                    f"{checkpoint.NAME}: it is not this run's folder",
                    remedy="choose another run folder",
                )
            self._save()
        for learner in self._learners if self._is_first else ():
            self._home(learner).make()

    def _restore(self) -> bool:
        """Go back to the checkpoint; False where there is none that binds this run."""
        try:
            orders = [(self._train, self._validation), *([self._before] if self._before else [])]
            identities = [self._identity | {"order": orders_of(*each)} for each in orders]
            found = load_checkpoint(self._folder, *identities, **self._who)
            if found is None:
                return False
            state, number = found
            (self._train, self._validation), self._identity = orders[number], identities[number]
            self.is_of_before = number > 0
            self._progress = Progress(**state["progress"])
            for learner, saved in zip(self._learners, state["learners"], strict=True):
                learner.load(saved)
            self._load_drawn(state.get("drawn", []))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise DamagedRun(
                f"{self._folder.at(checkpoint.NAME)} does not fit these students: {' '.join(str(error).split())[:300]}",
                remedy="if the code of a model or optimizer has changed since the run began, begin a new run folder; else the "
                f"checkpoint is damaged: delete {self._folder} and train again",
            ) from error
        return True

    def _train_epochs(
        self,
        logs: Sequence[RunLog | Unwritten],
        should_stop: Callable[[], bool],
        on_epoch: Callable[[int, float], object],
    ) -> None:
        progress = self._progress
        silent = None if self._is_first else True  # None: where nobody sees it
        with tqdm(total=self._total_steps, initial=progress.step, unit="step", desc="train", disable=silent) as bar:
            while progress.epoch < self._config.epochs:
                started, rows_before = time.perf_counter(), progress.rows
                self._train_epoch(bar, should_stop)
                seconds, rows = time.perf_counter() - started, progress.rows - rows_before
                self._finish_epoch(logs, {"seconds": seconds, "rows_per_second": rows / seconds})
                on_epoch(progress.epoch, time.perf_counter() - started)

    def _train_epoch(self, bar: tqdm[Any], should_stop: Callable[[], bool]) -> None:
        progress = self._progress
        for batch in self._train.epoch(progress.epoch, progress.batch):
            is_stopping, positions = self._agreed(should_stop, batch)
            if is_stopping:
                self._collect([])
                self._save()
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} of {self._config.epochs}, after step {progress.step}",
                    remedy="run the same command again to resume",
                )
            moved = batch.to(self._device)
            losses = [learner.step(batch, moved, progress.step) for learner in self._own]
            progress.rows += batch.size
            progress.positions += positions
            progress.batch += 1
            progress.step += 1
            bar.set_postfix(epoch=progress.epoch + 1, loss=f"{losses[0]:.4g}", refresh=False)
            bar.update()

    def _finish_epoch(self, logs: Sequence[RunLog | Unwritten], times: Mapping[str, float]) -> None:
        progress = self._progress
        train_losses = [learner.standing.loss_sum / max(progress.positions, 1) for learner in self._own]
        for learner in self._own:
            learner.check_trained()
        progress.epoch += 1
        progress.batch, progress.rows, progress.positions = 0, 0, 0
        held_out = [None] * len(self._own)
        if self._validation is not None:
            held_out = validate(  # type: ignore[assignment]
                self._own, self._validation, self._device, step=progress.step, ranks=self._sharing
            )
        for learner, found in zip(self._own, held_out, strict=True):
            learner.finish_epoch(progress.epoch, found)
        told = self._collect([*zip(train_losses, held_out, strict=True)])
        for learner, log, (train_loss, found) in zip(self._learners, logs, told, strict=True) if self._is_first else ():
            line = self._line(learner, train_loss, found)
            log.add(line | {"times": times}, progress.step)
        if progress.epoch % self._config.checkpoint_every == 0 or progress.epoch == self._config.epochs:
            self._save()

    def _line(self, learner: Learner, train_loss: float, held_out: tuple[float, Scores] | None) -> dict[str, object]:
        """What `metrics.jsonl` says of an epoch."""
        step = self._progress.step
        line: dict[str, object] = {"epoch": self._progress.epoch, "step": step, "train_loss": train_loss}
        line["lr"] = learner.learning_rate
        moving = {
            name: _moving(spec, learner.heads[name])
            for name, spec in learner.loss_at(learner.share(step - 1)).items()
            if learner.heads[name].config.is_scheduled
        }
        line |= moving.pop("", {}) | ({"settings": moving} if moving else {})
        return line if held_out is None else line | {"validation_loss": held_out[0], **held_out[1]}

    def _last_line(self, learner: Learner) -> dict[str, object]:
        result = self._result(learner)
        line = {"end": True, "kept_epoch": result.kept_epoch, "steps": result.steps, **result.scores}
        return line if result.kept_validation is None else line | {"validation_loss": result.kept_validation}

    def _result(self, learner: Learner) -> TrainingResult:
        standing, progress = learner.standing, self._progress
        kept_epoch = progress.epoch if standing.kept_validation is None else standing.kept_epoch
        weights = self._home(learner).at(WEIGHTS)
        return TrainingResult(kept_epoch, standing.kept_validation, standing.scores, progress.step, weights)

    def _agreed(self, should_stop: Callable[[], bool], batch: Batch) -> tuple[bool, int]:
        """Whether a rank is to stop, which all do then, and how many positions count in the whole batch. Ranks that have no
        step in common ask each other now and then.
        """
        if self._sharing is not self._ranks:
            is_asked = self._progress.step % ASKED_EVERY == 0
            return is_asked and self._ranks.sum([should_stop()])[0] > 0, batch.positions
        is_stopping, positions = self._ranks.sum([should_stop(), batch.positions])
        return is_stopping > 0, int(positions)

    def _collect(self, told: list[Any]) -> list[Any]:
        """What is `told` of each learner of this rank, of all; where ranks divide the students rank 0 takes over what those of
        the others have come to.
        """
        if self._sharing is self._ranks:
            return told
        every = self._ranks.gather([told, [learner.state() for learner in self._own]])
        for rank, (_, states) in enumerate(every):
            for learner, state in zip(self._learners[rank :: len(every)], states, strict=True) if rank else ():
                lines = learner.standing.lines  # which rank 0 alone writes
                learner.load(state)
                learner.standing.lines = lines
        return [
            every[number % len(every)][0][number // len(every)]
            for number in range(len(self._learners))
            if every and told
        ]

    def _save(self) -> None:
        state: dict[str, Any] = {"progress": vars(self._progress)}
        state["learners"] = [learner.state() for learner in self._learners]
        if self._sharing.world > 1:
            state["drawn"] = self._sharing.gather([learner.rng for learner in self._learners])
        save_checkpoint(self._folder, state, self._identity, **self._who)

    def _load_drawn(self, drawn: Sequence[Sequence[list[Tensor]]]) -> None:
        """Give each learner the random numbers of this rank: as they were `drawn` by as many ranks, else new ones."""
        rank = self._sharing.rank
        for number, learner in enumerate(self._learners):
            is_known = len(drawn) == self._sharing.world > 1
            learner.rng = drawn[rank][number] if is_known else torch_rng_of_rank(learner.rng, rank)


def _moving(spec: LossSpec, head: Head) -> dict[str, float]:
    """What a target's schedules have come to."""
    names = ("temperature", "hard_weight", "soft_weight")
    return {name: getattr(spec, name) for name in names if name != "temperature" or head.config.has_temperature}
