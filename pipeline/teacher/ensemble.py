"""A teacher: its members as models in evaluation mode, and a batch of prepared inputs to their logits.

B batch, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ClassMismatch, ConfigError, LogitsError, TeacherError, WeightsError
from pipeline.models.build import build_model, untrained
from pipeline.models.classes import require_class_names
from pipeline.models.device import resolve_device
from pipeline.models.weights import weights_digest
from pipeline.store.spec import MemberSpec, TeacherSpec
from pipeline.teacher.config import TeacherConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SENTINEL_ROWS = 64
# How far two cuts of the same rows may differ, relative to 1 + the largest logit: the rounding of each arithmetic.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}


class Ensemble:
    """The teacher's models on their device, in evaluation mode.

    Attributes:
        spec: what the store says of it: name, precision, each member's class, weights digest and weight.
        batch_size: rows that the recipe lets it see at once.
    """

    def __init__(
        self, models: Sequence[nn.Module], spec: TeacherSpec, device: torch.device, *, batch_size: int = SENTINEL_ROWS
    ) -> None:
        self.spec = spec
        self.batch_size = batch_size
        self.device = device
        self.models = [model.to(device).eval().requires_grad_(False) for model in models]

    @torch.inference_mode()
    def logits(self, inputs: NDArray[np.generic]) -> Tensor:
        """Every member's logits for a batch: prepared inputs (B, ...) -> (B, M, C) float32 on the CPU.

        Raises:
            LogitsError: a member gives something else than (B, C) floats. ClassMismatch: members differ in C.
        """
        batch = torch.from_numpy(np.array(inputs)).to(self.device)
        outputs = [self._member(number, batch) for number in range(len(self.models))]
        classes = {output.shape[1] for output in outputs}
        if len(classes) > 1:
            raise ClassMismatch(
                f"the teacher's members have {' and '.join(map(str, sorted(classes)))} classes",
                remedy="members of an ensemble share one label space",
            )
        return torch.stack(outputs, dim=1).float().cpu()

    def _member(self, number: int, batch: Tensor) -> Tensor:
        dtype = DTYPES[self.spec.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32), _no_tf32():
            output: object = self.models[number](batch)
        if isinstance(output, Tensor):
            if output.is_floating_point() and output.ndim == 2 and len(output) == len(batch):
                return output
            found = f"{output.dtype} {tuple(output.shape)}"
        else:
            found = type(output).__name__
        raise LogitsError(
            f"member {number} ({self.spec.members[number].model}) gives {found} for a batch of {len(batch)} rows",
            remedy="a teacher's forward returns float logits of shape (batch, classes)",
        )

    def check_sentinels(self, inputs: NDArray[np.generic]) -> int:
        """Run the first rows twice, cut into other batches the second time, and return the number of classes.

        Raises:
            TeacherError: a row's logits depend on the batch it stands in, as under dropout or batch statistics.
            ConfigError: the models cannot take these inputs.
        """
        rows = inputs[:SENTINEL_ROWS]
        size = min(self.batch_size, len(rows))
        try:
            whole, parts = self._in_batches(rows, size), self._in_batches(rows, max(1, size * 3 // 8))
        except RuntimeError as error:  # what torch raises where shapes or dtypes do not fit
            raise ConfigError(
                f"the teacher cannot take inputs of {rows.dtype} and shape {[size, *rows.shape[1:]]}: {error}",
                remedy="change init_args of teacher.members, or transfer_set.prepare",
            ) from error
        same = (whole == parts) | (whole.isnan() & parts.isnan())
        apart = torch.where(same, 0.0, (whole - parts).abs().nan_to_num(nan=torch.inf)).amax(dim=(0, 2))  # (M,)
        scale = 1 + torch.where(torch.isfinite(whole), whole.abs(), 0.0).amax(dim=(0, 2))
        for number in torch.nonzero(apart > TOLERANCE[self.spec.precision] * scale).flatten().tolist():
            raise TeacherError(
                f"member {number} ({self.spec.members[number].model}) gives the same row logits that differ by "
                f"{apart[number]:.3g} in two batches",
                remedy="its forward must not drop out, sample or use batch statistics in evaluation mode",
            )
        return whole.shape[2]

    def check_class_names(self, names: Sequence[str] | None, *, whose: str) -> None:
        """Raise ClassMismatch where a member names its classes and they are not `names`, in this order."""
        for number, model in enumerate(self.models):
            who = f"member {number} ({self.spec.members[number].model})"
            require_class_names(model, names, who=who, whose=whose)

    def _in_batches(self, rows: NDArray[np.generic], size: int) -> Tensor:
        return torch.cat([self.logits(rows[start : start + size]) for start in range(0, len(rows), size)])

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


def load_ensemble(config: TeacherConfig) -> Ensemble:
    """Build a recipe's teacher and load every member's weights.

    Raises:
        WeightsError: a member without weights, neither of a file nor of its own, or weights that do not fit.
        ConfigError: a class that cannot be built.
    """
    for number, member in enumerate(config.members):
        if member.weights is not None and not Path(member.weights).exists():
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has no weights: there is no file {member.weights}",
                remedy="train it with `softlabels train-teacher`, or name the safetensors file that holds them",
            )
    models = [build_model(member.model) for member in config.members]
    for number, (member, model) in enumerate(zip(config.members, models, strict=True)):
        lacking = () if member.weights is not None else untrained(model)
        if lacking != ():
            lacks = "no weights" if lacking is None else f"no weights for {', '.join(lacking[:3])} and the like"
            raise WeightsError(
                f"teacher.members[{number}] ({member.class_path}) has {lacks}: its logits would be noise",
                remedy="give a safetensors file, or train it with `softlabels train-teacher`",
            )
    spec = TeacherSpec(
        name=config.name,
        precision=config.precision,
        members=tuple(
            MemberSpec(model=member.class_path, weights=weights_digest(model), weight=member.weight)
            for member, model in zip(config.members, models, strict=True)
        ),
    )
    return Ensemble(models, spec, resolve_device(config.device), batch_size=config.batch_size)


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
