"""A traced student as the bytes of an ONNX file, and such a file as a model; `export` compares the two."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ExportError
from softlabels.objects import require_extra

_LIMIT = 2**31 - 2**22  # bytes of weights; a protobuf message ends at 2 GiB


def onnx_bytes(program: Any, facts: Mapping[str, Any], outputs: Sequence[str]) -> tuple[bytes, int]:
    """A traced model (`torch.export.ExportedProgram`) as ONNX: the file's bytes and its opset.

    Its input is `inputs`, its outputs have the names given; `facts` are its metadata. No path of this machine and no line of
    source code is in it.

    Raises:
        ExportError: torch cannot translate it, or it is too large for one file.
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_extra(package, extra="export")
    size = sum(tensor.numel() * tensor.itemsize for tensor in program.state_dict.values())
    if size > _LIMIT:
        raise ExportError(f"{size:,} bytes of weights do not fit into one ONNX file", remedy="give --formats=torch")
    try:
        made = torch.onnx.export(
            program, dynamo=True, input_names=["inputs"], output_names=list(outputs), external_data=False, verbose=False
        )
    except Exception as error:  # the exporter promises no class of errors
        raise ExportError(
            f"the student cannot be written as ONNX: {first_line(error.__cause__ or error)}",
            remedy="give --formats=torch",
        ) from error
    assert made is not None
    proto: Any = made.model_proto
    _clean(proto)
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    return proto.SerializeToString(deterministic=True), int(opset)


def first_line(error: BaseException) -> str:
    """The first line that says something, in words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _clean(proto: Any) -> None:
    """Drop the exporter's notes (source code, paths, internal names) and call the first axis `batch`."""
    graph = proto.graph
    axis = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    values = [*graph.input, *graph.output, *graph.value_info]
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(axis)}\b", "batch", dim.dim_param)
    nodes = [node for owner in (graph, *proto.functions) for node in owner.node]
    for part in [graph, *proto.functions, *nodes, *values, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""


class OnnxModel(nn.Module):
    """An ONNX file under ONNX Runtime on the CPU, as a model.

    Args:
        data: the file's bytes.
        named: whether it answers with a mapping of outputs by name, and not with its one output.
        threads: of one run; by default as many as torch has.
    """

    def __init__(self, data: bytes, *, named: bool = False, threads: int | None = None) -> None:
        super().__init__()
        runtime = require_extra("onnxruntime", extra="export")
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns about graphics cards that are not there
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._outputs, self._named = [output.name for output in self._session.get_outputs()], named

    def forward(self, inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """What the file says of a batch (B, ...): (B, [P,] C)."""
        found = self._session.run(self._outputs, {"inputs": inputs.numpy()})
        answers = {name: torch.from_numpy(each) for name, each in zip(self._outputs, found, strict=True)}
        return answers if self._named else answers[self._outputs[0]]
