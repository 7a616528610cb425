"""An ONNX file with weights and activations of eight bits, its ranges taken from real rows.

ONNX Runtime's static quantization: each channel of a weight has a scale, each activation one range, the least and largest value
that the calibration rows gave it. Jacob et al. 2018, arXiv 1712.05877.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import ExportError
from softlabels.objects import require_extra
from softlabels.student.onnx_file import first_line

_BATCH = 32


def int8_bytes(data: bytes, rows: Tensor) -> bytes:
    """The file `data` quantized.

    Args:
        data: an ONNX file of float32, as `onnx_bytes` gives it.
        rows: (R, ...) prepared inputs to calibrate with; none of them is kept.

    Raises:
        ExportError: ONNX Runtime cannot quantize it. MissingExtra: it is not installed.
    """
    onnx = require_extra("onnx", extra="export")
    quantization = require_extra("onnxruntime.quantization", extra="export")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises to preprocess, which the exporter has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantization.quantize_static(onnx.load_from_string(data), path, _Rows(rows), per_channel=True)
            return path.read_bytes()
    except Exception as error:  # it promises no class of errors
        raise ExportError(
            f"ONNX Runtime cannot quantize the student: {first_line(error)}", remedy="leave int8 out of --formats"
        ) from error
    finally:
        log.setLevel(level)


class _Rows:
    """The rows a batch at a time, as ONNX Runtime asks for them."""

    def __init__(self, rows: Tensor) -> None:
        self._batches: Iterator[Tensor] = iter(torch.split(rows, _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"inputs": batch.numpy()}
