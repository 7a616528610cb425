"""A teacher: its members as models in evaluation mode, and a batch of prepared inputs to their outputs.

B batch, P positions of a row of tokens, M members, C classes, V outputs of a language model (at least C).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.errors import ClassMismatch, LogitsError, WeightsError
from softlabels.models.build import build_model, untrained
from softlabels.models.classes import require_class_names, require_vocabulary, words_of
from softlabels.models.device import arithmetic, resolve_device, warm_up
from softlabels.models.product import output_matrix
from softlabels.models.weights import weights_digest
from softlabels.objects import canonical
from softlabels.store.spec import MemberSpec, Spec, TeacherSpec
from softlabels.teacher.config import TeacherConfig
from softlabels.teacher.outputs import Outputs, Product
from softlabels.teacher.teacher import Batch, teacher_batches
from softlabels.transfer.alignment import alignment
from softlabels.transfer.rows import TransferRows
from softlabels.transfer.sequences import SequenceInfo


class Ensemble:
    """The teacher's models on their device, in evaluation mode.

    Attributes:
        spec: what the store says of it: name, precision, each member's class, weights digest and weight.
        weights: (M,) of the members, as given.
        batch_size: rows that the recipe lets it see at once.
        licence: of the weights, for the store's card.
        sequence: of rows of tokens, what they are; see `expect`.
    """

    def __init__(
        self, models: Sequence[nn.Module], spec: TeacherSpec, device: torch.device, *, batch_size: int = 64
    ) -> None:
        warm_up()  # so that the same store comes out again, byte for byte
        self.spec = spec
        self.weights: NDArray[np.float64] = np.array([member.weight for member in spec.members])
        self.batch_size, self.licence = batch_size, ""
        self.device = device
        self.models = [model.to(device).eval().requires_grad_(False) for model in models]
        self.sequence: SequenceInfo | None = None

    @classmethod
    def of(
        cls,
        models: Sequence[nn.Module],
        *,
        name: str = "teacher",
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        batch_size: int = 64,
    ) -> Ensemble:
        """Trained models that are at hand, of equal weight: each takes a batch of inputs (B, ...) and gives logits (B, C)."""
        members = tuple(_member(canonical(f"{type(m).__module__}.{type(m).__qualname__}"), m) for m in models)
        spec = TeacherSpec(name=name, precision=precision, members=members)
        return cls(models, spec, resolve_device(device), batch_size=batch_size)

    def expect(self, sequence: SequenceInfo | None) -> None:
        """Rows of tokens will come, and members give (B, P, V); or, with None, other rows, and members give (B, C).

        Raises:
            ClassMismatch: a member's checkpoint has a tokenizer of another vocabulary.
        """
        for number, model in enumerate(self.models):
            require_vocabulary(model, sequence, who=self.who(number))
        if sequence is not None:  # an output beyond a member's own tokens stands for none
            known = [words.size for model in self.models if (words := words_of(model)) is not None]
            sequence = sequence.below(min([sequence.classes, *known]))
        self.sequence = sequence

    def logits(self, inputs: NDArray[np.generic]) -> Tensor:
        """Every member's logits for a batch of prepared inputs (B, ...): (B, [P,] M, C) float32 on the CPU.

        Raises as `outputs`.
        """
        found = self.outputs(inputs).logits().float().cpu()
        return found if self.sequence is None else found.reshape(len(inputs), self.sequence.positions, *found.shape[1:])

    @torch.inference_mode()
    def outputs(self, inputs: NDArray[np.generic]) -> Outputs:
        """Every member's outputs for a batch of prepared inputs (B, ...), on the device; of rows of tokens B x P distributions.

        A member that offers `hidden` and `output_matrix` (see `softlabels.models.causal_lm`) makes no logits yet.

        Raises:
            LogitsError: a member gives something else than (B, C) floats, or (B, P, V) of rows of tokens.
            ClassMismatch: members differ in C. Of rows of tokens C is what all of them have and the tokenizer too: outputs
                beyond its tokens are padding, and tokens beyond the outputs must not occur (`require_known_tokens`).
        """
        batch = torch.from_numpy(np.array(inputs)).to(self.device)
        members = tuple(self._member(number, batch.clone()) for number in range(len(self.models)))  # one may change it
        widths = [len(part.weight) if isinstance(part, Product) else part.shape[1] for part in members]
        if self.sequence is None and len(set(widths)) > 1:
            raise ClassMismatch(
                f"the teacher's members have {' and '.join(map(str, sorted(set(widths))))} classes",
                remedy="members of an ensemble share one label space",
            )
        classes = widths[0] if self.sequence is None else min(self.sequence.classes, *widths)
        return Outputs(members, classes, self._arithmetic)

    def cut(self, rows: TransferRows, spec: Spec, shard: int) -> list[tuple[int, int]]:
        """As the specification says."""
        return teacher_batches(spec, shard)

    def batch(self, rows: TransferRows, start: int, stop: int, *, embed: bool) -> Batch:
        """As `Teacher.batch`."""
        inputs, labels = np.array(rows.inputs[start:stop]), np.asarray(rows.labels[start:stop])
        columns: dict[str, NDArray[np.generic]] = {"content_key": rows.keys[start:stop], "label": labels}
        columns |= {"input": inputs} if embed else {}
        blocks = self.outputs(inputs).blocks()
        if self.sequence is None:
            return Batch(blocks, columns, labels, None, lambda number: f"row {start + number}")
        found = alignment(inputs)
        columns |= {"position_mask": found.mask, "document": found.document}
        place = partial(self.place, range(start, stop), range(found.mask.size))
        return Batch(blocks, columns, found.next_token.reshape(-1), found.mask.reshape(-1).astype(np.bool_), place)

    def who(self, number: int) -> str:
        """How messages call a member."""
        return f"member {number} ({self.spec.members[number].model})"

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """The precision that the store records."""
        with arithmetic(self.device, self.spec.precision), _no_tf32():
            yield

    def _member(self, number: int, batch: Tensor) -> Tensor | Product:
        """A member's logits (N, V), or what they are a product of."""
        model: Any = self.models[number]
        lead = (len(batch),) if self.sequence is None else (len(batch), batch.shape[-1] - 1)
        with self._arithmetic():
            matrix = None if self.sequence is None else output_matrix(model)
            output: object = model(batch) if matrix is None else model.hidden(batch)
        if not isinstance(output, Tensor):
            found = type(output).__name__
        elif output.is_floating_point() and output.shape[:-1] == lead:
            flat = output.flatten(0, -2)
            return flat if matrix is None else Product(flat, *matrix)
        else:
            found = f"{output.dtype} {tuple(output.shape)}"
        of = "" if self.sequence is None else f" of {lead[-1]} positions"
        axes = "(batch, classes)" if self.sequence is None else "(batch, positions, vocabulary), positions = tokens - 1"
        raise LogitsError(
            f"{self.who(number)} gives {found} for a batch of {len(batch)} rows{of}",
            remedy=f"a teacher's forward returns float logits of shape {axes}",
        )

    def place(self, rows: Sequence[int], numbers: Sequence[int], at: int) -> str:
        """How distribution numbers[at] of a batch of `rows` is called."""
        if self.sequence is None:
            return f"row {rows[numbers[at]]}"
        row, position = divmod(numbers[at], self.sequence.positions)
        return f"row {rows[row]}, position {position}"

    def check_class_names(self, names: Sequence[str] | None, *, whose: str) -> None:
        """Raise ClassMismatch where a member names its classes and they are not `names`, in this order."""
        for number, model in enumerate(self.models):
            require_class_names(model, names, who=self.who(number), whose=whose)

    @torch.inference_mode()
    def in_batches(self, rows: NDArray[np.generic], size: int) -> Outputs:
        """The outputs for `rows`, `size` at a time."""
        found = [self.outputs(rows[start : start + size]) for start in range(0, len(rows), size)]
        members: list[Tensor | Product] = []
        for parts in zip(*(each.members for each in found), strict=True):
            first = parts[0]
            if isinstance(first, Product):
                members.append(replace(first, hidden=torch.cat([part.hidden for part in parts])))
            else:
                members.append(torch.cat(parts))
        return Outputs(tuple(members), found[0].classes, self._arithmetic)

    def environment(self) -> dict[str, str]:
        """What, beside the specification, decides the last bits of the logits."""
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
        ConfigError: a class that cannot be built.
    """
    for number, member in enumerate(config.members):
        if member.weights is not None and not Path(member.weights).exists():
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has no weights: there is no file {member.weights}",
                remedy=f"train it with `{train}`, or name the safetensors file that holds them",
            )
    models = [build_model(member.model) for member in config.members]
    for number, (member, model) in enumerate(zip(config.members, models, strict=True)):
        lacking = () if member.weights is not None else untrained(model)
        if lacking != ():
            lacks = "no weights" if lacking is None else f"no weights for {', '.join(lacking[:3])} and the like"
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has {lacks}: its logits would be noise",
                remedy=f"give a safetensors file, or train it with `{train}`",
            )
    spec = TeacherSpec(
        name=config.name,
        precision=config.precision,
        members=tuple(
            _member(member.class_path, model, member.weight)
            for member, model in zip(config.members, models, strict=True)
        ),
    )
    found = Ensemble(models, spec, resolve_device(config.device), batch_size=config.batch_size)
    found.licence = config.licence
    return found


def _member(name: str, model: nn.Module, weight: float = 1.0) -> MemberSpec:
    return MemberSpec(model=name, weights=weights_digest(model), weight=weight)


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Convolutions and recurrent layers in the float32 that is recorded: on CUDA torch rounds them to 10 bits by default."""
    cudnn: Any = torch.backends.cudnn  # its parts are made at run time
    kinds = (cudnn.conv, cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value
