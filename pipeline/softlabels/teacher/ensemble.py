"""A teacher: its members as models in evaluation mode, and a batch of prepared inputs to their outputs.

B batch, P positions of a row, M members, C classes (or numbers of a vector), V outputs of a language model (at least C).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.errors import ClassMismatch, ConfigError, WeightsError
from softlabels.labels.encoding import Encoding
from softlabels.models.build import untrained
from softlabels.models.classes import require_class_names, require_head, require_vocabulary, words_of
from softlabels.models.device import arithmetic, resolve_device, warm_up
from softlabels.models.estimator import FLAG, Estimator, build_member
from softlabels.models.product import output_matrix
from softlabels.models.spread import placed
from softlabels.models.weights import weights_digest
from softlabels.objects import canonical
from softlabels.store.spec import MemberSpec, Spec, TeacherSpec
from softlabels.stream.folds import fold_of
from softlabels.teacher.config import SERVED, TeacherConfig
from softlabels.teacher.expected import Expected, softmax
from softlabels.teacher.folded import folded_digest, out_of_fold
from softlabels.teacher.outputs import Outputs, Product, joined
from softlabels.teacher.shapes import by_target, of_target, strangers
from softlabels.teacher.teacher import Batch, teacher_batches
from softlabels.transfer.rows import TransferRows
from softlabels.transfer.sequences import SequenceInfo

TRAIN = "train"  # the split whose rows folds label
Answers = dict[str, Outputs]  # what the members say of a batch, by target
_Part = Tensor | Product  # logits (N, V) of a member, or what they are a product of


class Ensemble:
    """The teacher's models on their device, in evaluation mode.

    Attributes:
        spec: its specification in the store: name, precision, each member's class, weights digest and weight.
        weights: (M,) of the members, as given.
        batch_size: the most rows per batch, from the recipe.
        licence: of the weights, for the store's card.
        expected: the targets it must give, and for which rows; see `expect`.
        unused: names of outputs that members gave and no target has.
        of_fold: for each fold of the training rows, the same members trained without its rows.
        titled: text that messages add after the name of a member.
        files: the weights files of a fold's members, if they come from files.

    Example:
        >>> two = Ensemble.of([torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)], name="two")
        >>> label(states, two, LabelsConfig(), "stores/two")["train"].spec.stored_members
        2
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        spec: TeacherSpec,
        device: torch.device,
        *,
        batch_size: int = 64,
        of_fold: Sequence[Sequence[nn.Module]] = (),
        titled: str = "",
    ) -> None:
        warm_up()  # so that the same store comes out again, byte for byte
        self.spec = spec
        self.weights: NDArray[np.float64] = np.array([member.weight for member in spec.members])
        self.batch_size, self.licence = batch_size, ""
        self.device = device
        self.models = [placed(model, device).eval().requires_grad_(False) for model in models]
        self.expected = Expected()
        self.unused: set[str] = set()
        self.titled, self.files = titled, tuple[Path, ...]()
        self.of_fold = tuple(
            Ensemble(each, spec, device, batch_size=batch_size, titled=f", fold {fold}")
            for fold, each in enumerate(of_fold)
        )

    @classmethod
    def of(
        cls,
        models: Sequence[nn.Module],
        *,
        name: str = "teacher",
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        batch_size: int = 64,
        of_fold: Sequence[Sequence[nn.Module]] = (),
    ) -> Ensemble:
        """Trained models in memory, of equal weight. Each takes a batch of inputs (B, ...) and gives logits (B, [P,] C), or a
        mapping of these by target. `of_fold` has, for each fold of the training rows (`softlabels.stream.folds`), the same
        models trained without its rows.
        """
        names = [canonical(f"{type(m).__module__}.{type(m).__qualname__}") for m in models]
        members = _members(names, [1.0] * len(names), models, of_fold)
        spec = TeacherSpec(name=name, precision=precision, members=members)
        return cls(models, spec, resolve_device(device), batch_size=batch_size, of_fold=of_fold)

    def expect(
        self,
        sequence: SequenceInfo | None = None,
        *,
        positions: int | None = None,
        targets: Mapping[str, Encoding] | None = None,
    ) -> None:
        """Announce the rows: for rows of tokens members give (B, P, V), for rows of so many positions (B, P, C), for other rows
        (B, C). For `targets` with names they give a mapping of these; the default is one softmax without a name.

        Raises:
            ClassMismatch: a member's checkpoint has a tokenizer of another vocabulary, or a head of another kind.
        """
        for number, model in enumerate(self.models):
            require_vocabulary(model, sequence, who=self.who(number))
            if targets is not None and "" in targets:
                require_head(model, targets[""].target, who=self.who(number))
        if sequence is not None:  # an output beyond a member's own tokens stands for none
            known = [words.size for model in self.models if (words := words_of(model)) is not None]
            sequence = sequence.below(min([sequence.classes, *known]))
        self.expected = Expected(softmax() if targets is None else targets, sequence, positions)
        for each in self.of_fold:
            each.expect(sequence, positions=positions, targets=targets)

    def folds(self, rows: TransferRows) -> int | None:
        """How many folds label these rows, if they are the training split and the teacher has folds."""
        return len(self.of_fold) or None if rows.split == TRAIN else None

    def fold_of(self, rows: TransferRows, at: slice | NDArray[np.int64]) -> NDArray[np.uint16] | None:
        """(B,) the fold that labels each of the rows `at`; None if the members themselves do."""
        folds = self.folds(rows)
        return None if folds is None else fold_of(rows.keys[at], folds)

    def asked(self, rows: TransferRows) -> Sequence[Ensemble]:
        """The ensembles that label these rows."""
        return (self,) if self.folds(rows) is None else self.of_fold

    @property
    def sequence(self) -> SequenceInfo | None:
        """The description of rows of tokens."""
        return self.expected.sequence

    def logits(self, inputs: NDArray[np.generic]) -> Tensor:
        """Every member's logits for a batch of prepared inputs (B, ...): (B, [P,] M, C) float32 on the CPU, for one target.

        Raises as `outputs` does.
        """
        found, positions = self.outputs(inputs).logits().float().cpu(), self.expected.positions
        return found if positions is None else found.reshape(len(inputs), positions, *found.shape[1:])

    def outputs(self, inputs: NDArray[np.generic]) -> Outputs:
        """The one target's of `answers`."""
        (found,) = self.answers(inputs).values()
        return found

    @torch.inference_mode()
    def answers(self, inputs: NDArray[np.generic], fold: NDArray[np.uint16] | None = None) -> Answers:
        """Every member's outputs for a batch of prepared inputs (B, ...), on the device; for rows of positions B x P
        distributions. With `fold` (B,), each row is labelled by the members of its fold.

        A member that offers `hidden` and `output_matrix` (see `softlabels.models.causal_lm`) does not make logits yet.

        Raises:
            LogitsError: a member gives something other than floats (B, C), or (B, P, C) for rows of positions; or no mapping of
                these if targets have names. ConfigError: a target that it has no output for.
            ClassMismatch: members differ in C. For rows of tokens, C counts the tokens that all members and the tokenizer have:
                outputs beyond its tokens are padding, and tokens beyond the outputs must not occur (`require_known_tokens`).
        """
        if fold is not None:
            return out_of_fold(
                lambda number, rows: self.of_fold[number].answers(rows), inputs, fold, self._positions(inputs)
            )
        batch = torch.from_numpy(np.array(inputs)).to(self.device)
        members = [self._member(number, batch.clone()) for number in range(len(self.models))]  # one may change it
        return {name: self._together(name, [member[name] for member in members]) for name in self.expected.targets}

    def _together(self, name: str, members: Sequence[_Part]) -> Outputs:
        """What the members say of a target. Raises `ClassMismatch`."""
        widths = [len(part.weight) if isinstance(part, Product) else part.shape[1] for part in members]
        sequence = self.sequence if self.expected.targets[name].target == "softmax" else None
        if sequence is None and len(set(widths)) > 1:
            raise ClassMismatch(
                f"the teacher's members have {' and '.join(map(str, sorted(set(widths))))} classes{of_target(name)}",
                remedy="members of an ensemble share one label space",
            )
        classes = widths[0] if sequence is None else min(sequence.classes, *widths)
        return Outputs(tuple(members), classes, self._arithmetic)

    def blocks(self, rows: TransferRows, at: NDArray[np.int64], target: str) -> Iterator[tuple[slice, Tensor]]:
        """Logits (n, M, C) of a target of the rows `at`, as `Outputs.blocks`."""
        return self.answers(np.array(rows.inputs[at]), self.fold_of(rows, at))[target].blocks()

    @property
    def rows_at_once(self) -> int:
        """As many as it sees at once."""
        return self.batch_size

    def cut(self, rows: TransferRows, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """As the specification says."""
        return teacher_batches(spec, shard)

    def batch(self, rows: TransferRows, start: int, stop: int, *, embed: bool) -> Batch:
        """As `Teacher.batch`."""
        return self.batch_of(rows, slice(start, stop), range(start, stop), embed=embed)

    def batch_of(
        self, rows: TransferRows, at: slice | NDArray[np.int64], numbers: Sequence[int], *, embed: bool
    ) -> Batch:
        """The same for the rows `at`, with these `numbers`."""
        inputs = np.array(rows.inputs[at])
        found, fold = self.expected.count(rows, at, inputs), self.fold_of(rows, at)
        columns = {"content_key": rows.keys[at], **found.columns} | ({"input": inputs} if embed else {})
        columns |= {} if fold is None else {"fold": fold}
        blocks = {name: outputs.blocks() for name, outputs in self.answers(inputs, fold).items()}
        classes = {name: labels.reshape(-1) for name, labels in found.classes.items()}
        return Batch(blocks, columns, classes, found.flat, partial(self.expected.place, numbers))

    def who(self, number: int) -> str:
        """The name of a member in messages."""
        return f"member {number} ({self.spec.members[number].model}){self.titled}"

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """The precision that the store records."""
        with arithmetic(self.device, self.spec.precision), _no_tf32:
            yield

    def _member(self, number: int, batch: Tensor) -> dict[str, _Part]:
        """A member's outputs by target."""
        model: Any = self.models[number]
        unnamed = [*self.expected.targets] == [""]
        with self._arithmetic():
            matrix = output_matrix(model) if unnamed and self.sequence is not None else None
            output: object = model(batch) if matrix is None else model.hidden(batch)
        positions = self._positions(batch)
        lead = (len(batch),) if positions is None else (len(batch), positions)
        found = by_target(output, self.expected, lead, who=self.who(number))
        self.unused |= strangers(output, self.expected)
        return {name: flat if matrix is None else Product(flat, *matrix) for name, flat in found.items()}

    def _positions(self, batch: Tensor | NDArray[np.generic]) -> int | None:
        """P of these rows: of tokens they may be cut shorter."""
        return self.expected.positions if self.sequence is None else batch.shape[-1] - 1

    def place(self, rows: Sequence[int], numbers: Sequence[int], at: int) -> str:
        """The name in messages of distribution numbers[at] of a batch of `rows`."""
        return self.expected.place(rows, numbers[at])

    @property
    def said(self) -> tuple[str, ...]:
        """Findings on the members, after they have run."""
        each = ((number, model) for number, model in enumerate(self.models) if isinstance(model, Estimator))
        own = tuple(f"{self.who(number)}: {model.zeros}" for number, model in each if model.zeros)
        return own + tuple(line for other in self.of_fold for line in other.said)

    def check_class_names(self, names: Sequence[str] | None, *, whose: str) -> None:
        """Raise ClassMismatch if a member names its classes and they are not `names`, in this order."""
        for number, model in enumerate(self.models):
            require_class_names(model, names, who=self.who(number), whose=whose)

    @torch.inference_mode()
    def in_batches(self, rows: NDArray[np.generic], size: int) -> Answers:
        """The answers for `rows`, `size` at a time."""
        found = [self.answers(rows[start : start + size]) for start in range(0, len(rows), size)]
        return {name: joined([each[name] for each in found]) for name in found[0]}

    def environment(self) -> dict[str, str]:
        """Everything outside the specification that decides the last bits of the logits."""
        on_gpu = self.device.type == "cuda"
        return {
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }


def load_ensemble(config: TeacherConfig, *, train: str = "softlabels train-teacher") -> Ensemble:
    """Build a recipe's teacher and load every member's weights; `train` is the command that messages name to train them.

    Raises:
        WeightsError: a member without weights, neither of a file nor of its own, or weights that do not fit.
        ConfigError: a class that cannot be built, or a served teacher.
    """
    if any(member.class_path == SERVED for member in config.members):
        raise ConfigError(
            f"the teacher is {SERVED}, and this runs the teacher's models itself",
            remedy="ask served teachers by softlabels teacher-logits, without --engine",
        )
    models, *of_fold = (_models(config, fold, train) for fold in (None, *range(config.folds or 0)))
    names, weights = zip(*((member.class_path, member.weight) for member in config.members), strict=True)
    members, floor = _members(names, weights, models, of_fold), _floor(config, models)
    spec = TeacherSpec(name=config.name, precision=config.precision, members=members, floor=floor)
    found = Ensemble(models, spec, resolve_device(config.device), batch_size=config.batch_size, of_fold=of_fold)
    found.licence = config.licence
    for fold, each in enumerate(found.of_fold):
        each.files = tuple(Path(str(one.of_fold(fold, config.folds or 0).weights)) for one in config.members)
    return found


def _models(config: TeacherConfig, fold: int | None, train: str) -> list[nn.Module]:
    """The members, or those of a fold, with their weights. Raises as `load_ensemble`."""
    members = [one if fold is None else one.of_fold(fold, config.folds or 0) for one in config.members]
    for number, member in enumerate(members):
        if member.weights is not None and not Path(member.weights).exists():
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has no weights: there is no file {member.weights}",
                remedy=f"train it with `{train}`, or name the file that holds them",
            )
    models = [build_member(member.model, floor=config.floor) for member in members]
    for number, (member, model) in enumerate(zip(members, models, strict=True)):
        lacking = () if member.weights is not None else untrained(model)
        if lacking != ():
            lacks = "no weights" if lacking is None else f"no weights for {', '.join(lacking[:3])} and the like"
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has {lacks}: its logits would be noise",
                remedy=f"give a safetensors file, or train it with `{train}`",
            )
    return models


def _floor(config: TeacherConfig, models: Sequence[nn.Module]) -> float | UnsetType:
    """What probabilities are lifted to. Raises `ConfigError` where no member gives any."""
    found = [model.floor for model in models if isinstance(model, Estimator) and model.floor is not None]
    if config.floor is not None and not found:
        raise ConfigError(
            f"{FLAG}{config.floor}, and no member gives probabilities",
            remedy="leave it out",
        )
    return found[0] if found else UNSET


def _members(
    names: Sequence[str], weights: Sequence[float], models: Sequence[nn.Module], of_fold: Sequence[Sequence[nn.Module]]
) -> tuple[MemberSpec, ...]:
    """What the store says of the members: one digest for the weights of a member and of those of its folds."""
    whole, *folds = ([weights_digest(model) for model in each] for each in (models, *of_fold))
    digests = (
        whole
        if not folds
        else [folded_digest(one, of) for one, of in zip(whole, zip(*folds, strict=True), strict=True)]
    )
    found = zip(names, digests, weights, strict=True)
    return tuple(MemberSpec(model=name, weights=digest, weight=weight) for name, digest, weight in found)


class _NoTF32:
    """Convolutions and recurrent layers in the float32 that is recorded: on CUDA torch rounds them to 10 bits by default. The
    settings are those of the process, and a thread makes logits while the next batch is computed: the first one in sets them,
    the last one out puts them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, [""]

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [kind.fp32_precision for kind in self._kinds()]
                self._set(["ieee"] * len(self._before))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._set(self._before)

    @staticmethod
    def _kinds() -> tuple[Any, ...]:
        cudnn: Any = torch.backends.cudnn  # its parts are made at run time
        return cudnn.conv, cudnn.rnn

    def _set(self, values: Sequence[str]) -> None:
        for kind, value in zip(self._kinds(), values, strict=True):
            kind.fp32_precision = value


_no_tf32 = _NoTF32()
