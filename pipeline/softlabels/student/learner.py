"""One model in training: its weights, optimizer, schedules, moving average and random numbers, and what it has come to.

A `Trainer` takes one or several through the same batches. Each learner has random numbers of torch of its own, so that it ends
with the weights that it would have alone; only a model that draws from Python's or numpy's generators shares those. Reading
batches, checkpoints and folders are the trainer's business.

Its loss is the weighted sum over the targets that it is taught, each looked at by itself (`heads`). Of several processes
(`ranks`) each is given a part of every batch, and gives its share of the batch's loss and gradient.

B batch, P positions of a row, R rows of the transfer set. Where a row is one example, it is one position.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.checks.probabilities import FEWEST
from softlabels.errors import ConfigError, LogitsError
from softlabels.models.device import DTYPES, arithmetic
from softlabels.student.average import WeightAverage
from softlabels.student.config import TrainingConfig
from softlabels.student.heads import Head, heads_of, naming_target
from softlabels.student.loss_spec import LossSpec
from softlabels.student.masks import Masks
from softlabels.student.metrics import Scores
from softlabels.student.optimizer import build_optimizer, build_scheduler, limit_norms
from softlabels.student.outputs import StudentOutputs, answers_of, batch_loss, naming_row, require_student_logits
from softlabels.student.own_batch import OwnBatches
from softlabels.student.ranks import ALONE, Ranks
from softlabels.student.seeding import seed_everything, set_torch_rng, torch_rng, torch_rng_of_rank
from softlabels.student.sharded import filled, pieces_of, require_alike, taken_from, whole
from softlabels.student.standing import Standing
from softlabels.student.step import Step, cuts

if TYPE_CHECKING:
    from softlabels.stream.batch import Batch

Augment = Callable[[Tensor], Tensor]


def nothing_to_learn(which: str, when: str = "") -> ConfigError:
    """The error for rows without labels of either kind; `which` rows, and `when` soft labels have no weight."""
    remedy = "raise alpha (or soft_weight) and give a store, or use rows with labels"
    if which == "validation":
        remedy = (
            "hold out more rows, or none (validation), or let baseline=false leave out the student of hard labels alone"
        )
    return ConfigError(
        f"no {which} row has a hard label and soft_weight is 0{when}: there is nothing to "
        f"{'judge epochs by' if which == 'validation' else 'learn from'}",
        remedy=remedy,
    )


@dataclass(frozen=True)
class Student:
    """A model, and how it is to be trained; made by `begin`.

    Attributes:
        name: its folder inside the run's; "" for the run's folder itself.
        model: gives (B, C) float logits for a batch's inputs, or those of positions, or a mapping of such by name; see
            `outputs`.
        config: how it is trained.
        labelled: (R,) bool, the rows whose hard label it may use; None for all that have one.
        rng: the state of torch's generators that it goes on with.
        masks: of a pruned model the weights that are left; a checkpoint's replace them.
    """

    name: str
    model: nn.Module
    config: TrainingConfig
    labelled: NDArray[np.bool_] | None
    rng: list[Tensor]
    masks: Masks | None = None

    @classmethod
    def begin(
        cls,
        name: str,
        config: TrainingConfig,
        make: Callable[[], nn.Module],
        *,
        labelled: NDArray[np.bool_] | None = None,
        masks: Masks | None = None,
    ) -> Student:
        """Build the model with the config's seed, whatever was drawn before."""
        seed_everything(config.seed)
        model = make()
        return cls(name, model, config, labelled, torch_rng(), masks)


class Learner:
    """A student while it is trained on `device` for `total_steps` steps, by this process or by all of `ranks`.

    Attributes:
        rng: the state of its random numbers, on each rank others.

    Raises:
        ConfigError: an optimizer or schedule that cannot be had, or weights of classes that nobody has counted yet.
    """

    def __init__(
        self,
        student: Student,
        *,
        device: torch.device,
        total_steps: int,
        augment: Augment | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.name, self.config = student.name, student.config
        self.is_sharded, self._whole = student.config.shard and ranks.world > 1, student.model
        self._masks = student.masks
        if self._masks is not None and self.is_sharded:
            raise ConfigError(
                "training.shard: masks of a pruned student are not cut", remedy="give training.shard=false"
            )
        self.model = taken_from(self._whole) if self.is_sharded else student.model.to(device)
        if self._masks is not None:
            self._masks.apply(self.model)
        self.standing = Standing()
        self.heads = heads_of(student.config)
        self._own = OwnBatches(self.name, self.config, self.heads, labelled=student.labelled, device=device)
        self._ranks, self.rng = ranks, torch_rng_of_rank(student.rng, ranks.rank)
        self._asked: set[str] = set()  # targets whose outputs were seen to be logits
        self._device, self._total_steps, self._augment = device, total_steps, augment
        config = student.config
        if self.is_sharded:
            require_alike(functools.partial(build_optimizer, config.optimizer))
        self._average = None if config.ema is None else WeightAverage(self.model, config.ema)
        self._step = ranks.wrap(Step(self.model), shard=self.is_sharded)
        self._judged = self._step if self.is_sharded and self._average is None else Step(self.judged)
        if self.is_sharded and self._average is not None:
            self._judged = ranks.wrap(self._judged, shard=True)
        self._optimizer = build_optimizer(config.optimizer, self.model.parameters())
        self._optimizer.zero_grad()
        self._scheduler = build_scheduler(config.scheduler, self._optimizer, total_steps)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self._class_weights = {name: self._weights_of(head) for name, head in self.heads.items()}
        self._kept = {*self.model.state_dict()}

    @property
    def judged(self) -> nn.Module:
        """The model whose weights are judged and kept: the moving average where there is one."""
        return self.model if self._average is None else self._average.model

    @property
    def learning_rate(self) -> float:
        """That of the optimizer's first group of parameters."""
        return float(self._optimizer.param_groups[0]["lr"])

    def share(self, step: int) -> float:
        """The share of the run that lies before a step: 0 for the first, 1 for the last."""
        return min(1.0, step / max(1, self._total_steps - 1))

    def loss_at(self, share: float) -> dict[str, LossSpec]:
        """The loss of each target after `share` of the run's steps."""
        return {
            name: dataclasses.replace(head.config.loss_at(share), class_weights=self._class_weights[name])
            for name, head in self.heads.items()
        }

    def step(self, batch: Batch, moved: Batch, step: int) -> float:
        """One optimizer step with this learner's own random numbers, and the whole batch's loss.

        Args:
            batch: B rows on the CPU; of several ranks the part of this one.
            moved: the same on the device.
            step: steps done before.

        Raises:
            LogitsError: the loss is NaN or infinite; the model gives probabilities; a row's members have no geometric mean.
        """
        set_torch_rng(self.rng)
        specs = self.loss_at(self.share(step))
        own, positions, with_label = self._own.of(batch, moved, specs, step=step)
        positions, seen, *counts = map(int, self._ranks.sum([positions, batch.positions, *with_label.values()]))
        labelled = dict(zip(with_label, counts, strict=True))
        for name, count in labelled.items():
            self.standing.labelled[name] = self.standing.labelled.get(name, 0) + count
        if self._augment is not None:
            own = dataclasses.replace(own, inputs=self._augment(own.inputs.clone()))
        self.model.train()
        total = torch.zeros((), device=self._device)
        loss_of = functools.partial(self._loss, batch=batch, specs=specs, positions=positions, labelled=labelled)
        parts = cuts(len(batch), self.config.micro_batch or batch.size, size=batch.size, world=self._ranks.world)
        for part in parts:
            with nullcontext() if part is parts[-1] else self._ranks.apart(self._step):
                loss = self._step(functools.partial(loss_of, part=own[part]))
                self._require_gradient(loss)
                self._scaler.scale(loss).backward()
            total += loss.detach()
        [value] = self._ranks.sum([total.item()])
        self.check_finite("training", value, step)
        self._update()
        self.standing.loss_sum += value * seen
        self.rng = torch_rng()
        return value

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, StudentOutputs]:
        """What a model says of each target of a batch in the precision of the training; the loss makes float32 of it.

        Raises:
            ConfigError: a single row, as the last batch of an epoch may be, in a model that needs several.
        """
        outputs = {name: head.output for name, head in self.heads.items()}
        with arithmetic(self._device, self.config.precision):
            try:
                return answers_of(model, batch, outputs, DTYPES[self.config.precision])
            except ValueError as error:
                if len(batch) > 1 or "more than 1 value per channel" not in str(error):
                    raise
                raise ConfigError(
                    "the last part of a batch is a single row, and batch norm cannot take its variance",
                    remedy="choose a batch_size (or micro_batch) that leaves more, in a new run folder",
                ) from error

    def judge(self, act: Callable[[nn.Module], None]) -> None:
        """Let `act` ask the model whose weights are judged; where ranks hold pieces of it, all of them do at once."""
        self.judged.eval()
        self._judged(act)

    def check_finite(self, which: str, loss: float, step: int) -> None:
        """Raise LogitsError unless the loss is a finite number."""
        if not math.isfinite(loss):
            raise self._diverged(f"the {which} loss", f"is {loss} after step {step}")

    def check_trained(self) -> None:
        """Raise ConfigError where the rows of the epochs so far had nothing to learn from, of some target."""
        for name, head in self.heads.items():
            self.check_labelled("training", name, self.standing.labelled.get(name, 0), is_soft=head.config.is_soft)

    def check_labelled(self, which: str, name: str, labelled: int, *, is_soft: bool) -> None:
        """Raise ConfigError where there is nothing to learn from of a target, or nothing to judge by."""
        if labelled == 0 and not is_soft:
            with naming_target(name):
                raise nothing_to_learn(which, " at the end" if self.heads[name].config.is_soft else "")

    def finish_epoch(self, epoch: int, held_out: tuple[float, Scores] | None) -> None:
        """Keep the weights where this epoch (from 1) is the one to keep; `held_out` is its validation loss and scores."""
        standing = self.standing
        standing.loss_sum = 0.0
        if held_out is None:
            return
        loss, scores = held_out
        is_best = standing.kept_validation is None or loss < standing.kept_validation
        if is_best or self.config.keep == "last":
            standing.kept_epoch, standing.kept_validation, standing.scores = epoch, loss, scores
        if is_best and self.config.keep == "best":
            weights = self._to_first(self.judged.state_dict())
            standing.kept_weights = {name: t.detach().cpu().clone() for name, t in weights.items()}

    def load_kept(self) -> None:
        """Put the weights that are kept into the model. Where ranks hold pieces of it, it is whole again, on rank 0's CPU.

        Raises:
            LogitsError: they are not finite: after the last step no loss would show it.
        """
        kept = self.standing.kept_weights
        kept = self._to_first(self.judged.state_dict()) if kept is None else kept
        if self.is_sharded and self._ranks.rank > 0:
            return
        if self.is_sharded:
            self.model = filled(self._whole, kept)
        else:
            self.model.load_state_dict(kept)
        for name, weight in self.model.named_parameters():
            if weight.requires_grad and not bool(torch.isfinite(weight).all()):
                raise self._diverged(name, "is not finite after the last step")

    def state(self) -> dict[str, Any]:
        """All of it, as plain values and tensors that `load` takes."""
        found = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state(),
            "rng": self.rng,
            "standing": dict(vars(self.standing)),
            **({} if self._masks is None else {"masks": self._masks.state()}),
        }
        return self._to_first(found)

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        if self.is_sharded:
            average = None if self._average is None else self._average.model
            keep = self._ranks.rank == 0
            state = pieces_of(state, self.model, self._optimizer, average, keep=keep)
        self.model.load_state_dict(state["model"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])
        if self._masks is not None:
            self._masks.load(state["masks"])
        self.rng = state["rng"]
        self.standing = Standing(**state["standing"])

    def _to_first(self, found: dict[str, Any]) -> dict[str, Any]:
        """The same with whole tensors, which rank 0 alone gets, where ranks hold pieces."""
        return whole(found, keep=self._ranks.rank == 0) if self.is_sharded else found

    def _weights_of(self, head: Head) -> Tensor | None:
        """(C,) of a target's classes, where they have weights."""
        weights = head.config.class_weights
        if weights == "balanced":
            raise ConfigError(
                "class_weights=balanced is no list of numbers yet",
                remedy="give those of `student.class_weights.resolved`",
            )
        return None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self._device)

    def _loss(
        self,
        model: nn.Module,
        *,
        batch: Batch,
        part: Batch,
        specs: Mapping[str, LossSpec],
        positions: int,
        labelled: Mapping[str, int],
    ) -> Tensor:
        """The share of some rows in the loss of a batch in which `positions` count, `labelled` of them with a label."""
        answers, terms = self.predict(model, part), []
        for name, head in self.heads.items():
            outputs, spec = answers[name], specs[name]
            self._require_logits(head, outputs)
            with naming_target(name), naming_row(batch.only(name), spec.mean):
                loss = batch_loss(outputs, part.only(name), spec, positions=positions, labelled=labelled[name])
            terms.append(loss if head.weight == 1 else loss * head.weight)
        return functools.reduce(torch.add, terms)

    def _require_gradient(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise ConfigError(
                f"the model {self.name}".rstrip() + " cannot learn: its outputs carry no gradient",
                remedy="let them depend on parameters that are not frozen, without detach or torch.no_grad",
            )

    def _require_logits(self, head: Head, outputs: StudentOutputs) -> None:
        if head.name not in self._asked and outputs.matrix is None and head.target == "softmax":
            who = f"the model {self.name}".rstrip()
            with naming_target(head.name):
                require_student_logits(outputs.states, who=who)
            if len(outputs.states) >= FEWEST:
                self._asked.add(head.name)

    def _diverged(self, what: str, how: str) -> LogitsError:
        of = f" of {self.name}" if self.name else ""
        return LogitsError(
            f"{what}{of} {how}", remedy="lower the learning rate (optimizer.init_args.lr) and begin a new run folder"
        )

    def _update(self) -> None:
        """From gradients to weights."""
        if self._masks is not None:
            self._masks.apply_to_gradients(self.model)
        if self.config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()  # now, so that the next learner's gradients take this memory, still in the cache
        if self._scheduler is not None:
            self._scheduler.step()
        if self._masks is not None:
            self._masks.apply(self.model)
        if self.config.max_norm is not None:
            limit_norms(self.model, self.config.max_norm)
        # Batch statistics are those of each rank's rows; rank 0's are kept. What no state holds may have their shape.
        self._ranks.share(each for name, each in self.model.named_buffers() if name in self._kept)
        if self._average is not None:
            self._average.update(self.model)
