"""An exported student is the student: judged by the libraries that load it, on rows and batch sizes that export never saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from softlabels.errors import ExportError, MissingExtra
from softlabels.models.cnn import ConvNet
from softlabels.student.export import FILES, export_student

ROOT = Path(__file__).parent.parent.parent
FACTS = {"softlabels.class_names": ["a", "ü"], "softlabels.digest": "ab" * 32}


class Tokens(nn.Module):
    """Ids and mask (B, 2, L) int32 to the mean embedding's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop, self.head = nn.Embedding(50, 8), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        ids, mask = tokens[:, 0].long(), tokens[:, 1].float()
        mean = (self.embed(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits: Tensor = self.head(self.drop(mean))
        return logits.masked_fill(torch.tensor([False, False, True]), -torch.inf)  # a class that pads the vocabulary


class Other(nn.Linear):
    """Gives the exporter something else than everybody."""

    def __init__(self, factor: float) -> None:
        super().__init__(4, 3)
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * (self.factor if torch.compiler.is_compiling() else 1.0)


class Branch(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if inputs.sum() > 0 else -inputs)


class Graph(nn.Linear):
    """Keeps a sparse matrix, which its weights file leaves out."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, classes)
        self.register_buffer("graph", torch.eye(inputs).to_sparse(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward((self.graph @ inputs.t()).t())


class OneSize(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.reshape(3, 4))


class Rows(nn.Linear):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(inputs), inputs


def images(rng: np.random.Generator, rows: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=(rows, 1, 6, 6)).astype(np.float32))


def tokens(rng: np.random.Generator, rows: int) -> Tensor:
    length = rng.integers(1, 8, rows)
    mask = np.arange(7) < length[:, None]
    return torch.from_numpy(np.stack([rng.integers(0, 50, (rows, 7)) * mask, mask], axis=1).astype(np.int32))


@pytest.mark.parametrize("kind", ["tokens", pytest.param("images", marks=pytest.mark.slow)])
def test_both_files_are_the_student(rng: np.random.Generator, tmp_path: Path, kind: str) -> None:
    model = ConvNet(channels=[4], classes=3, dropout=0.5) if kind == "images" else Tokens()
    make = images if kind == "images" else tokens
    checked = make(rng, 70)
    onnx_file, torch_file = export_student(model, checked, tmp_path / "new", formats=["onnx", "torch"], facts=FACTS)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted([FILES["onnx"], FILES["torch"]])

    session = onnxruntime.InferenceSession(onnx_file.path)
    program = torch.export.load(torch_file.path)
    for size in (1, 7, 33):
        rows = make(rng, size)
        with torch.no_grad():
            expected = model(rows)
        for found in (session.run(["logits"], {"inputs": rows.numpy()})[0], program.module()(rows).numpy()):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    proto = onnx.load(onnx_file.path)
    onnx.checker.check_model(proto, full_check=True)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(said["softlabels.class_names"]) == FACTS["softlabels.class_names"]
    assert said["softlabels.digest"] == FACTS["softlabels.digest"]
    assert [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", *checked.shape[1:],
    ]  # fmt: skip
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert onnx_file.opset == next(entry.version for entry in proto.opset_import if entry.domain == "")
    extra = {"softlabels.json": ""}
    torch.export.load(torch_file.path, extra_files=extra)
    assert json.loads(extra["softlabels.json"]) == FACTS
    for found in (onnx_file, torch_file):
        data = found.path.read_bytes()
        assert (found.bytes, found.rows, found.agreement) == (len(data), 70, 1.0)
        assert 0 <= found.difference < 1e-5
        assert str(ROOT).encode() not in data  # no path of this machine
        assert b"in forward" not in data  # no lines of source code
        assert checked[:1].numpy().tobytes() not in data  # no row of the data


def test_an_export_that_answers_differently_is_refused_and_the_old_file_stays(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    rows = torch.from_numpy(rng.normal(size=(40, 4)).astype(np.float32))
    (good,) = export_student(Other(1.0), rows, tmp_path, formats=["torch"], facts={})
    before = good.path.read_bytes()
    with pytest.raises(
        ExportError, match=r"the torch export is not the student: it differs by 1\.0e-03 of its largest"
    ):
        export_student(Other(1.001), rows, tmp_path, formats=["torch"], facts={})
    with pytest.raises(ExportError, match="gives other shapes, or infinite logits"):
        export_student(Other(float("inf")), rows, tmp_path, formats=["torch"], facts={})
    assert good.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt2"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branch(4, 3), r"torch.export cannot trace Branch for any number of rows: .+; write its forward without"),
        (OneSize(4, 3), r"torch.export cannot trace OneSize for any number of rows: .+"),
        (
            Graph(4, 3),
            r"Graph holds sparse tensors, which neither format can: graph; make them dense \(\.to_dense\(\)\)",
        ),
        (Rows(4, 3), "Rows gives 2 outputs; let its forward return the logits alone"),
    ],
)
def test_what_cannot_be_exported_says_why(tmp_path: Path, model: nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_student(model, torch.ones(3, 4), tmp_path / "new", formats=["torch"], facts={})
    assert not (tmp_path / "new").exists()


def test_a_student_that_knows_nothing_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(ExportError, match="not finite"):
        export_student(model, torch.ones(3, 4), tmp_path / "new", formats=["torch"], facts={})


def test_one_row_is_enough_and_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = export_student(nn.Linear(4, 3), torch.ones(1, 4), tmp_path, formats=["torch"], facts={})
    assert found.rows == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"onnxruntime.*pip install 'softlabels\[export\]'"):
        export_student(nn.Linear(4, 3), torch.ones(1, 4), tmp_path, formats=["torch", "onnx"], facts={})
