"""Eight bits as their definition says: the scales of weights and activations, and what follows, by numpy alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from softlabels.errors import ExportError
from softlabels.student.export import as_onnx, export_student
from softlabels.student.int8 import int8_bytes
from softlabels.student.latency import milliseconds


class Two(nn.Linear):
    """Two outputs by name."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        found = super().forward(inputs)
        return {"kind": found[:, :2], "place": found[:, 2:]}


def quantized(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rounded to the 256 values from `low` to `high`, both moved so that 0 is one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.round(-128 - low / scale)
    return (np.clip(np.round(values / scale + zero), -128, 127) - zero) * scale


def test_weights_and_activations_are_rounded_as_defined(rng: np.random.Generator) -> None:
    model = nn.Linear(12, 5)
    with torch.no_grad():
        model.weight.mul_(torch.tensor([1.0, 10, 0.1, 3, 1])[:, None])  # each channel has a scale of its own
    calibration = torch.from_numpy(rng.normal(size=(70, 12)).astype(np.float32))
    data = int8_bytes(as_onnx(model, calibration), calibration)
    stored = [numpy_helper.to_array(each) for each in onnx.load_from_string(data).graph.initializer]
    [weights] = [each for each in stored if each.dtype == np.int8 and each.size == 60]
    exact = model.weight.detach().numpy()
    scales = np.abs(exact).max(1) / 127
    rounded = np.round(exact / scales[:, None])
    assert np.abs((weights if weights.shape == (5, 12) else weights.T) - rounded).max() <= 1

    rows = rng.normal(size=(40, 12)).astype(np.float32)
    answers = (model(calibration)).detach().numpy()
    inputs = quantized(rows, float(calibration.min()), float(calibration.max()))
    expected = inputs @ (rounded * scales[:, None]).T + model.bias.detach().numpy()
    step = (answers.max() - answers.min()) / 255
    [found] = onnxruntime.InferenceSession(data).run(None, {"inputs": rows})
    inside = (expected > answers.min()) & (expected < answers.max())
    assert inside.mean() > 0.9
    assert np.abs(found - quantized(expected, answers.min(), answers.max()))[inside].max() < 1.6 * step
    assert np.abs(found - model(torch.from_numpy(rows)).detach().numpy()).max() > 0.1 * step  # not the exact model


def test_a_student_of_several_outputs(rng: np.random.Generator, tmp_path: Path) -> None:
    rows = torch.from_numpy(rng.normal(size=(64, 6)).astype(np.float32))
    found = export_student(Two(6, 5), rows, tmp_path, formats=["int8", "onnx"], facts={"a": "b"}, classes=["kind"])
    assert [each.path.name for each in found] == ["student.int8.onnx", "student.onnx"]
    eight, exact = found
    assert 1e-4 < eight.difference < 0.05
    assert exact.difference < 1e-6
    assert eight.agreement is not None
    assert eight.agreement > 0.9
    session = onnxruntime.InferenceSession(eight.path)
    assert [output.name for output in session.get_outputs()] == ["kind", "place"]
    assert session.get_modelmeta().custom_metadata_map["a"] == "b"


class Masked(nn.Linear):
    """The last class is impossible."""

    def forward(self, inputs: Tensor) -> Tensor:
        found = super().forward(inputs)
        return torch.cat([found[:, :-1], torch.full_like(found[:, -1:], -torch.inf)], dim=1)


def test_what_cannot_be_quantized_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"some of the student's logits are infinite, and a number of eight bits has a range"
    ):
        export_student(Masked(3, 4), torch.zeros(2, 3), tmp_path, formats=["onnx", "int8"], facts={})
    assert not [*tmp_path.iterdir()]
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot quantize the student: .+; leave int8 out"):
        int8_bytes(b"no model", torch.zeros(1, 3))


def test_latency_is_of_a_row_and_all_take_turns() -> None:
    calls: list[tuple[str, int]] = []

    def model(name: str, inner: nn.Module) -> nn.Module:
        return inner.register_forward_hook(lambda module, inputs, _: calls.append((name, len(inputs[0])))) and inner

    wide, narrow = nn.Linear(8, 400), nn.Linear(8, 4)
    found = milliseconds(
        {"wide": (model("wide", wide), torch.zeros(3, 8)), "narrow": (model("narrow", narrow), torch.zeros(50, 8))},
        sizes=(2, 5),
    )
    assert {size for _, size in calls} == {2, 5}
    assert all(len(each) == 2 and min(each) > 0 for each in found.values())
    turns = [name for name, size in calls if size == 5]
    assert sum(one != other for one, other in itertools.pairwise(turns)) > 20
