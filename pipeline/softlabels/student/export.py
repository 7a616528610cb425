"""A trained student for people who have nothing of ours: ONNX and torch.export, each checked against the student first.

A file appears only when what it holds was loaded again and gave the student's logits on real rows, in batches of several
sizes: an exporter that leaves something out says so here and not in production. Written with it: what the inputs are, the
classes, the digests (`facts`). Left out: paths of this machine, code, and the rows that were used.

Loading a `.pt2` file unpickles (torch's own warning): load one with `torch.export.load` only from people you trust. An ONNX
file is data. B batch, P positions, C classes.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ExportError, some
from softlabels.student.int8 import int8_bytes
from softlabels.student.onnx_file import OnnxModel, first_line, onnx_bytes
from softlabels.system.local import LocalFolder, local_folder

FILES = {"onnx": "student.onnx", "torch": "student.pt2", "int8": "student.int8.onnx"}  # format -> file name
FACTS = "softlabels.json"  # the extra file of a .pt2 that holds the facts
TOLERANCE = 1e-4  # of the largest |logit|; float32 arithmetic in another order differs by 1e-7 to 1e-5
SIZES = (1, 2, 5, 32)  # of the batches that are checked
ALONE = "let its forward return the logits alone, or a mapping of tensors by name"
_TRACED = 3  # rows in the traced batch: none of SIZES, and not 1, to which torch would specialise
LOGITS = "logits"  # the name of the output of a student that gives one tensor
Outputs = dict[str, Tensor]
Run = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Exported:
    """One file that was written.

    Attributes:
        form: onnx, torch, int8 or hf.
        path: the file, or folder.
        bytes: its size.
        opset: of ONNX; None for torch.
        rows: rows of inputs that it was checked on.
        difference: largest |logit - student's logit| over them, as a share of the student's largest |logit|; of several outputs
            the largest.
        agreement: share of them (of positions, where rows have some) with the student's most probable class, of several outputs
            the smallest; None where none is of classes.
    """

    form: str
    path: Path
    bytes: int
    opset: int | None
    rows: int
    difference: float
    agreement: float | None


def export_student(
    model: nn.Module, rows: Tensor, folder: Path | LocalFolder, *, formats: Sequence[str], facts: Mapping[str, Any],
    classes: Collection[str] = (LOGITS,), calibration: Tensor | None = None,
) -> list[Exported]:  # fmt: skip
    """Write `model` to `folder`, a file for each of `formats`.

    Each has one input `inputs`, whose first axis is any number of rows, and one output `logits` (B, [P,] C) float32; of a
    model that gives a mapping of tensors an output for each, of its name.

    Args:
        model: a student on the CPU with float32 weights; it is put into evaluation mode and frozen.
        rows: (R, ...) prepared inputs, real ones, R >= 1; traced and checked with, and not kept.
        folder: created where it is missing; a file of an earlier export is replaced.
        formats: of onnx, torch and int8: an ONNX file of eight bits (`int8`), which may differ from the student by more than
            `TOLERANCE`: how far, the result says.
        classes: the outputs whose largest number is a class.
        calibration: prepared inputs from which the ranges of int8 are taken; by default `rows`.
        facts: JSON values for whoever loads the file: the metadata of an ONNX file, `softlabels.json` in a .pt2.

    Raises:
        ExportError: torch cannot trace the model or translate it, or the export answers differently; no file is written.
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        DiskFull, StorageError: the file cannot be written; what stood there still does.
    """
    model.eval().requires_grad_(False)
    with torch.no_grad():
        program = _trace(model, rows)
        expected = _in_batches(_of_model(model), rows)
        if not all(bool(torch.isfinite(each).any()) for each in expected.values()):
            raise ExportError("the student's logits are not finite", remedy="train it again: there is nothing to check")
        if "int8" in formats and not all(bool(torch.isfinite(each).all()) for each in expected.values()):
            raise _unbounded("some of the student's logits are infinite")
        folder = local_folder(folder)
        made: list[tuple[bytes, Exported]] = []
        for form, data, opset, again in _files(
            program, formats, facts, expected, rows if calibration is None else calibration
        ):
            difference, agreement = _compare(form, _in_batches(_of_model(again), rows), expected, classes)
            made.append(
                (data, Exported(form, folder.at(FILES[form]), len(data), opset, len(rows), difference, agreement))
            )
    for data, exported in made:  # all were checked before the first is written
        folder.put(exported.path.name, data)
    return [exported for _, exported in made]


def as_onnx(model: nn.Module, rows: Tensor) -> bytes:
    """A model on the CPU as an ONNX file, which is not compared with it. Raises ExportError, MissingExtra."""
    model.eval().requires_grad_(False)
    with torch.no_grad():
        program, answer = _trace(model, rows), _of_model(model)(rows[:1])
        with _quiet():
            return onnx_bytes(program, {}, [*answer])[0]


def compared(form: str, path: Path, size: int, again: nn.Module, model: nn.Module, rows: Tensor) -> Exported:
    """What was written elsewhere than here, after comparing the model that it gives back with the student.

    Raises:
        ExportError: they answer differently.
    """
    with torch.no_grad():
        found, expected = (_in_batches(_of_model(each), rows) for each in (again, model))
        difference, agreement = _compare(form, found, expected, (LOGITS,))
    return Exported(form, path, size, None, len(rows), difference, agreement)


def _trace(model: nn.Module, rows: Tensor) -> Any:
    """The model as an ExportedProgram, whose graph holds no path of this machine and no row."""
    example = rows[torch.arange(_TRACED) % len(rows)]
    name = type(model).__name__
    odd = [
        each for each, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.layout != torch.strided
    ]
    if odd:
        raise ExportError(
            f"{name} holds sparse tensors, which neither format can: {some(odd)}",
            remedy="make them dense (.to_dense()) before they are registered, and compute with these",
        )
    try:
        with _quiet():
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch promises no class of errors here
        raise ExportError(
            f"torch.export cannot trace {name} for any number of rows: {first_line(error)}",
            remedy="write its forward without Python branches on values or on the number of rows",
        ) from error
    outputs = program.graph_signature.user_outputs
    found = model(example)
    if len(outputs) != (len(found) if isinstance(found, Mapping) else 1):
        raise ExportError(f"{name} gives {len(outputs)} outputs", remedy=ALONE)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source code with their paths
    program.example_inputs = None
    return program


def _files(
    program: Any, formats: Sequence[str], facts: Mapping[str, Any], expected: Outputs, calibration: Tensor
) -> Iterator[tuple[str, bytes, int | None, Callable[[Tensor], Any]]]:
    """The name, bytes and opset of each form, and what the bytes say when they are loaded again."""
    exact: tuple[bytes, int] | None = None
    for form in formats:
        if form == "torch":
            data = _torch(program, facts)
            with _quiet():
                yield form, data, None, torch.export.load(io.BytesIO(data)).module()
            continue
        if exact is None:
            with _quiet():
                exact = onnx_bytes(program, facts, [*expected])
        data = int8_bytes(exact[0], calibration) if form == "int8" else exact[0]
        yield form, data, exact[1], OnnxModel(data, named=True)


def _torch(program: Any, facts: Mapping[str, Any]) -> bytes:
    data = io.BytesIO()
    with _quiet():
        torch.export.save(program, data, extra_files={FACTS: json.dumps(facts, indent=1)})
    return data.getvalue()


def _of_model(model: Callable[[Tensor], Any]) -> Run:
    """What a model gives, by name."""

    def run(batch: Tensor) -> Outputs:
        found = model(batch)
        if isinstance(found, Tensor):
            return {LOGITS: found}
        if isinstance(found, Mapping) and all(isinstance(each, Tensor) for each in found.values()):
            return dict(found)
        raise ExportError(f"the student gives {type(found).__name__}", remedy=ALONE)

    return run


def _in_batches(run: Run, rows: Tensor) -> Outputs:
    """Outputs (R, [P,] C) of all rows, in batches of each of SIZES in turn and of the last one from then on."""
    ends = [*accumulate(SIZES), *range(sum(SIZES) + SIZES[-1], len(rows), SIZES[-1])]
    parts = [run(batch) for batch in rows.tensor_split(ends) if len(batch)]
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}


def _compare(form: str, found: Outputs, expected: Outputs, classes: Collection[str]) -> tuple[float, float | None]:
    """(difference, agreement), as `Exported` has them. Raises ExportError where they are too far apart."""
    if {*found} != {*expected}:
        raise _differs(form, f"gives the outputs {some(found)}, not {some(expected)}")
    each = {name: _compare_one(form, found[name], expected[name]) for name in expected}
    agreements = [agreement for name, (_, agreement) in each.items() if name in classes]
    return max(difference for difference, _ in each.values()), min(agreements, default=None)


def _compare_one(form: str, found: Tensor, expected: Tensor) -> tuple[float, float]:
    finite = torch.isfinite(expected)
    same = found.shape == expected.shape and torch.equal(found[~finite], expected[~finite])
    if not same or not bool(torch.isfinite(found[finite]).all()):
        raise _differs(form, "gives other shapes, or infinite logits at other places")
    scale = expected[finite].abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = ((found - expected)[finite].abs().max() / scale).item()
    if difference > TOLERANCE and form != "int8":
        raise _differs(form, f"differs by {difference:.1e} of its largest logit, and {TOLERANCE:.0e} is allowed")
    return difference, (found.argmax(-1) == expected.argmax(-1)).double().mean().item()


def _unbounded(what: str) -> ExportError:
    return ExportError(
        f"{what}, and a number of eight bits has a range with finite ends; no file was written",
        remedy="leave int8 out of --formats, or mask classes behind the network, where the file is run",
    )


def _differs(form: str, how: str) -> ExportError:
    if form == "int8":
        return _unbounded(f"the int8 export {how}")
    return ExportError(
        f"the {form} export is not the student: it {how}; no file was written",
        remedy="look for random numbers, state or branches in its forward, or give the other format",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of their own doings: a deprecated class of theirs, packages that we do not use."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            yield
    finally:
        log.setLevel(level)
