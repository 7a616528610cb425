"""The training loop: a model, a config and batches in; weights, metrics and a checkpoint in a run folder out.

It trains students from soft labels and teachers from hard ones; which loss, optimizer and schedule says `config`. It does
not know where batches come from (`pipeline.stream`) nor what the model is (`pipeline.models`).

A run folder holds, when the run has ended: `weights.safetensors` (the best epoch's by validation loss, the last one's
without validation), `metrics.jsonl`, `tensorboard/`, `checkpoint.pt`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from pipeline.errors import ConfigError, Interrupted, LogitsError, RunExists
from pipeline.models import save_weights
from pipeline.models.device import resolve_device
from pipeline.store.durable import make_folder, only_process
from pipeline.student import checkpoint, runlog
from pipeline.student.checkpoint import Parts, Progress, load_checkpoint, save_checkpoint
from pipeline.student.config import TrainingConfig
from pipeline.student.losses import distillation_loss, hard_sum, soft_sum
from pipeline.student.metrics import Batches, Metrics, Scores
from pipeline.student.optimizer import build_optimizer, build_scheduler, limit_norms
from pipeline.student.runlog import RunLog
from pipeline.student.seeding import deterministic, warm_up

if TYPE_CHECKING:
    from pipeline.stream.loader import Batch

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run gives.

    Attributes:
        best_epoch: the epoch (from 1) whose weights were kept.
        best_validation: its validation loss; None without validation.
        scores: its validation scores; empty without validation.
        steps: optimizer steps of the run.
        weights: the safetensors file.
    """

    best_epoch: int
    best_validation: float | None
    scores: Scores
    steps: int
    weights: Path


class Trainer:
    """Trains `model` as `config` says and keeps the run in `folder`.

    The same call on the same folder goes on where the last one stopped, whatever stopped it, and ends with the weights of
    a run that was never stopped (bit for bit on a CPU with the same number of threads, versions and kind of processor).
    For that, call `seed_everything(config.seed)` before building the model.

    Args:
        model: gives (B, C) float logits for a batch's inputs. It is moved to the device, and holds the kept weights
            when `run` returns.
        train: what to train on; its batches carry soft labels where `config` gives them a weight.
        validation: what to choose the best epoch on; None keeps the last epoch.
        folder: the run folder; created where it is missing.
        identity: JSON values that say what else is trained on which data (model, store digests); a folder that was begun
            with another identity or config is refused.
        augment: changes a batch's inputs before each training step; draws from torch's generators.

    Raises:
        ConfigError: an optimizer, schedule or device that cannot be had.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        train: Batches,
        validation: Batches | None,
        folder: Path,
        identity: Mapping[str, object],
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._augment = augment
        self._config, self._train, self._validation, self._folder = config, train, validation, folder
        self._device = resolve_device(config.device)
        self._model = model.to(self._device)
        self._total_steps = config.epochs * train.steps_per_epoch
        optimizer = build_optimizer(config.optimizer, model.parameters())
        self._parts = Parts(model, optimizer, build_scheduler(config.scheduler, optimizer, self._total_steps))
        given = asdict(config)  # a subclass may have fields that are not about this run
        settings = {
            field.name: given[field.name] for field in fields(TrainingConfig) if field.name != "checkpoint_every"
        }
        orders = {"train": train.order_digest, "validation": validation.order_digest if validation else None}
        self._identity = {"training": settings, "order": orders, **identity}
        self._progress = Progress()

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> TrainingResult:
        """Train to the end, from wherever the run in the folder stands; a run that has ended is not trained again.

        Args:
            should_stop: asked before each step; when true, the run is saved at that step.

        Raises:
            Interrupted: `should_stop` was true; the same call goes on from there.
            LogitsError: the loss is NaN or infinite; names epoch and step.
            SpecMismatch, RunExists: the folder holds another run, or files that no run wrote, or is in use.
            DiskFull, StorageError: nothing that was saved is lost.
        """
        make_folder(self._folder)
        with only_process(self._folder), deterministic(self._device, self._config.threads):
            warm_up()
            self._begin()
            weights = self._folder / WEIGHTS
            if runlog.is_ended(self._folder) and weights.exists():
                self._load_kept()
                return self._result()
            with RunLog(self._folder, self._progress.lines, self._progress.step) as log:
                self._train_epochs(log, should_stop)
                self._load_kept()
                save_weights(self._model, weights)
                log.add(self._last_line())
        return self._result()

    def _begin(self) -> None:
        """Load the checkpoint; where there is none, save the first one, so that the folder belongs to this run."""
        progress = load_checkpoint(self._folder, self._parts, self._identity)
        if progress is not None:
            self._progress = progress
            return
        foreign = [name for name in (runlog.NAME, WEIGHTS) if (self._folder / name).exists()]
        if foreign:
            raise RunExists(
                f"{self._folder} holds {' and '.join(foreign)} but no {checkpoint.NAME}: it is not this run's folder",
                remedy="choose another run folder",
            )
        self._save()

    def _train_epochs(self, log: RunLog, should_stop: Callable[[], bool]) -> None:
        progress = self._progress
        with tqdm(total=self._total_steps, initial=progress.step, unit="step", desc="train", disable=None) as bar:
            while progress.epoch < self._config.epochs:
                started, rows_before = time.perf_counter(), progress.rows
                self._train_epoch(bar, should_stop)
                seconds, rows = time.perf_counter() - started, progress.rows - rows_before
                self._finish_epoch(log, {"seconds": seconds, "rows_per_second": rows / seconds})

    def _train_epoch(self, bar: tqdm[Any], should_stop: Callable[[], bool]) -> None:
        progress = self._progress
        self._model.train()
        for batch in self._train.epoch(progress.epoch, progress.batch):
            if should_stop():
                self._save()
                raise Interrupted(
                    f"stopped in epoch {progress.epoch + 1} of {self._config.epochs}, after step {progress.step}",
                    remedy="run the same command again to go on",
                )
            loss = self._step(batch)
            progress.loss_sum += loss * len(batch.labels)
            progress.rows += len(batch.labels)
            progress.batch += 1
            progress.step += 1
            bar.set_postfix(epoch=progress.epoch + 1, loss=f"{loss:.4g}", refresh=False)
            bar.update()

    def _step(self, batch: Batch) -> float:
        """One optimizer step; the batch's loss."""
        labelled = int((batch.labels >= 0).sum())
        self._progress.labelled += labelled
        rows = len(batch.labels)
        batch = batch.to(self._device)
        if self._augment is not None:
            batch = dataclasses.replace(batch, inputs=self._augment(batch.inputs))
        self._parts.optimizer.zero_grad()
        total = torch.zeros((), device=self._device)
        size = self._config.micro_batch or rows
        for part in (slice(start, start + size) for start in range(0, rows, size)):
            loss = self._loss(batch, part, positions=rows, labelled=labelled)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        value = total.item()
        self._check_finite("training", value)
        self._parts.optimizer.step()
        if self._config.max_norm is not None:
            limit_norms(self._model, self._config.max_norm)
        if self._parts.scheduler is not None:
            self._parts.scheduler.step()
        return value

    def _loss(self, batch: Batch, part: slice, *, positions: int, labelled: int) -> torch.Tensor:
        """The share of the rows `part` in the loss of a batch of `positions` rows, `labelled` of which have a label."""
        hard_weight, soft_weight = self._config.weights
        return distillation_loss(
            self._model(batch.inputs[part]),
            batch.soft[part] if batch.soft is not None and soft_weight > 0 else None,
            batch.labels[part],
            temperature=self._config.temperature,
            hard_weight=hard_weight,
            soft_weight=soft_weight,
            loss=self._config.loss,
            mean=self._config.mean,
            positions=positions,
            labelled=labelled,
        )

    def _finish_epoch(self, log: RunLog, times: Mapping[str, float]) -> None:
        progress = self._progress
        train_loss = progress.loss_sum / progress.rows
        self._check_labelled("training", progress.labelled)
        progress.epoch += 1
        progress.batch, progress.loss_sum, progress.rows = 0, 0.0, 0
        line: dict[str, object] = {"epoch": progress.epoch, "step": progress.step, "train_loss": train_loss}
        line["lr"] = float(self._parts.optimizer.param_groups[0]["lr"])
        if self._validation is not None:
            loss, scores = self._validate(self._validation)
            line |= {"validation_loss": loss, **scores}
            if progress.best_validation is None or loss < progress.best_validation:
                progress.best_epoch, progress.best_validation, progress.best_scores = progress.epoch, loss, dict(scores)
                progress.best_weights = {name: t.detach().cpu().clone() for name, t in self._model.state_dict().items()}
        log.add(line | {"times": times}, progress.step)
        if progress.epoch % self._config.checkpoint_every == 0 or progress.epoch == self._config.epochs:
            self._save()

    def _validate(self, batches: Batches) -> tuple[float, Scores]:
        """The loss that is trained, over the whole split at once, and the scores."""
        config, (hard_weight, soft_weight) = self._config, self._config.weights
        metrics = Metrics((config.temperature,), config.mean)
        hard = soft = 0.0
        self._model.eval()
        with torch.no_grad():  # not inference_mode: a model that caches tensors could not train with them afterwards
            for batch in batches.epoch(0):
                batch = batch.to(self._device)
                logits = self._model(batch.inputs)
                metrics.update(logits, batch.labels, batch.soft)
                if hard_weight > 0:
                    hard += hard_sum(logits, batch.labels).item()
                if soft_weight > 0:
                    options = {"temperature": config.temperature, "loss": config.loss, "mean": config.mean}
                    soft += soft_sum(logits, batch.soft, **options).item()  # type: ignore[arg-type]
        scores = metrics.result()
        self._check_labelled("validation", scores["labelled"])
        loss = hard_weight * hard / max(scores["labelled"], 1) + soft_weight * soft / scores["rows"]
        self._check_finite("validation", loss)
        return loss, scores

    def _last_line(self) -> dict[str, object]:
        result = self._result()
        line = {"end": True, "best_epoch": result.best_epoch, "steps": result.steps, **result.scores}
        return line if result.best_validation is None else line | {"validation_loss": result.best_validation}

    def _result(self) -> TrainingResult:
        progress = self._progress
        best_epoch = progress.epoch if progress.best_validation is None else progress.best_epoch
        scores: Scores = {**progress.best_scores}  # type: ignore[typeddict-item]  # they were Scores when they were saved
        return TrainingResult(best_epoch, progress.best_validation, scores, progress.step, self._folder / WEIGHTS)

    def _load_kept(self) -> None:
        if self._progress.best_weights is not None:
            self._model.load_state_dict(self._progress.best_weights)

    def _save(self) -> None:
        save_checkpoint(self._folder, self._parts, self._progress, self._identity)

    def _check_finite(self, which: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise LogitsError(
                f"the {which} loss is {loss} after epoch {self._progress.epoch}, step {self._progress.step}",
                remedy="lower the learning rate (optimizer.init_args.lr) and begin a new run folder",
            )

    def _check_labelled(self, which: str, labelled: int) -> None:
        if labelled == 0 and self._config.weights[1] == 0:
            raise ConfigError(
                f"no {which} row has a hard label and soft_weight is 0: there is nothing to learn from",
                remedy="raise alpha (or soft_weight) and give a store, or use rows with labels",
            )
