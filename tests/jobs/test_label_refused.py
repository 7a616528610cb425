"""What a teacher of positions, of other kinds and of several targets may not give, and what a recipe may not say of them: each
one message, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softlabels import Ensemble, LabelsConfig, errors, label
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferRows, array_keys

R, P, F, C = 40, 12, 6, 5
UNITS = torch.tensor([1e5, 1.0, 1e-6, 1e5, 1e5, 1e5])
DETECTOR: dict[str, Any] = {"targets": {"class": {}, "box": {"kind": "values"}}}


class Given(nn.Module):
    """What a function makes of rows."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Any:
        return self.function(inputs)


def rows_of(rng: np.random.Generator, positions: int | None = P, **changes: Any) -> TransferRows:
    """Without hard labels, but for `changes`."""
    lead = (R,) if positions is None else (R, positions)
    inputs = rng.normal(size=(*lead, F)).astype(np.float32)
    mask = None if positions is None else np.ones(lead, np.uint8)
    rows = TransferRows(
        "rows", "train", None, "here", inputs, array_keys(inputs), np.full(R, -1), None,
        ObjectSpec("softlabels.transfer.stack"), positions=positions, mask=mask,
    )  # fmt: skip
    return replace(rows, **changes)


def detector(inputs: Tensor) -> dict[str, Tensor]:
    return {"class": inputs[..., :C], "box": inputs[..., :4]}


def refused(
    path: Path, rows: TransferRows, labels: dict[str, Any], *members: Callable[[Tensor], Any]
) -> errors.UserError:
    """The error, which nothing that is written goes before."""
    teacher = Ensemble.of([Given(member) for member in members or (detector,)], device="cpu", batch_size=8)
    with pytest.raises(errors.UserError) as caught:
        label(rows, teacher, LabelsConfig(**labels), path / "store")
    assert not (path / "store").exists()
    return caught.value


@pytest.mark.parametrize(
    ("labels", "function", "message"),
    [
        ({}, lambda x: x[..., :C].flatten(1), r"gives torch.float32 \(8, 60\) for a batch of 8 rows of 12 positions; a "
         r"teacher's forward returns float logits of shape \(batch, positions, classes\); positions and classes are two axes: "
         r"outputs.reshape\(8, 12, -1\)"),
        ({}, lambda x: x[..., :C].transpose(1, 2), r"gives torch.float32 \(8, 5, 12\) .*outputs.transpose\(1, 2\)"),
        ({}, lambda x: x[:, :9, :C], r"gives torch.float32 \(8, 9, 5\) for a batch of 8 rows of 12 positions"),
        ({}, detector, r"gives a mapping of class, box for .*; a mapping is for targets that have names \(labels.targets\)"),
        (DETECTOR, lambda x: x[..., :C], r"gives torch.float32 \(8, 12, 5\), and the targets to be stored are class, box"),
        (DETECTOR, lambda x: {"class": x[..., :C], "boxes": x}, "has no output for the target box: it gives class, boxes"),
        ({"kind": "values"}, lambda x: x.sum(-1), r"float values of shape \(batch, positions, classes\); one number is an "
         r"axis, too: outputs.unsqueeze\(-1\)"),
        ({"kind": "values"}, lambda x: x[..., :0], r"gives torch.float32 \(8, 12, 0\) for a batch of 8 rows"),
        (DETECTOR, lambda x: detector(x) | {"box": x[:, :9]},
         r"\(8, 9, 6\) for the target box for a batch of 8 rows of 12 positions.* float values of"),
        (DETECTOR, lambda x: detector(x) | {"box": torch.where(x > 2.4, torch.nan, x)},
         r"values are NaN \(target box, row \d+, position \d+, member 0\)"),
        (DETECTOR, lambda x: detector(x) | {"class": x.softmax(-1)},
         r"target class: the teacher \(teacher\): .* are >= 0 and sum to 1"),
        (DETECTOR, lambda x: detector(x) | {"box": x - x.mean(0)},
         r"target box: member 0 .* gives \d+ of 16 rows other values in batches of another size"),
        (DETECTOR, lambda x: detector(x) | {"box": x * UNITS + x.mean(0)[..., :1] * (UNITS == 1)},
         r"target box: member 0 .* other values in batches of another size: they differ by up to 0.\d+ of its output's larg"),
        ({"kind": "sigmoid"}, lambda x: x[..., :C].sigmoid() * torch.rand(()), "other logits in batches of another size"),
    ],
    ids=["one class axis", "class axis first", "other positions", "mapping", "no mapping", "no such output", "no last axis",
         "no number",
         "other positions of a target", "NaN boxes", "probabilities", "batch statistics", "in one unit of several", "dropout"],
)  # fmt: skip
def test_outputs(
    labels: dict[str, Any], function: Callable[[Tensor], Any], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    error = refused(tmp_path, rows_of(rng), labels, function)
    assert pytest.raises(errors.UserError, match=message).matches(error)


def test_members_of_other_widths(tmp_path: Path, rng: np.random.Generator) -> None:
    other = lambda x: detector(x) | {"box": x}  # noqa: E731
    error = refused(tmp_path, rows_of(rng), DETECTOR, detector, other)
    assert str(error).startswith("the teacher's members have 4 and 6 classes for the target box")


def test_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    mask = np.ones((R, P), np.uint8)
    mask[[7, 9]] = 0
    error = refused(tmp_path, rows_of(rng, mask=mask), DETECTOR)
    assert str(error) == "row 7 of rows has no position that counts (2 of 40 rows); leave such rows out"
    error = refused(tmp_path, rows_of(rng, mask=mask[:, 1:]), DETECTOR)
    assert "the mask of rows is uint8 (40, 11), and its rows have 12 positions" in str(error)
    two = [rows_of(rng), rows_of(rng, 9, split="test")]
    with pytest.raises(errors.UserError, match=r"the rows of the splits have other positions \(train 12, test 9\)"):
        label(two, Ensemble.of([Given(detector)], device="cpu"), LabelsConfig(**DETECTOR), tmp_path / "store")


FLAGS, VECTORS, CLASSES = np.zeros((R, P, 3), np.int8), np.zeros((R, P, 4), np.float32), np.zeros((R, P), np.int64)


@pytest.mark.parametrize(
    ("changes", "labels", "message"),
    [
        ({"labels": FLAGS}, {}, r"the hard labels \(transfer_set.label\) are read as set or flags, and labels.kind is softmax; "
         "say transfer_set.label_as: class, or label: null"),
        ({"labels": CLASSES}, {"kind": "values"}, "are read as class, and labels.kind is values"),
        ({"named": {"class": CLASSES}}, {}, "names the targets class, and labels says of one target without a name"),
        ({"named": {"kind": CLASSES}}, DETECTOR, "transfer_set.label names the target 'kind', and labels.targets class, box"),
        ({"named": {"box": CLASSES}}, DETECTOR, "transfer_set.label.box is read as class, and labels.targets.box is values; "
         "say transfer_set.label.box: {column: COLUMN, as: values}"),
        ({"named": {"box": VECTORS[..., 1:]}}, DETECTOR, "target box: the hard labels are 3 numbers each, and the teacher gives"
         " 4"),
        ({"labels": FLAGS}, DETECTOR, "names one column, of labels that are read as set or flags, and no target is sigmoid"),
        ({"labels": CLASSES}, {"targets": {"a": {}, "b": {}}}, r"read as class, and the targets a, b are softmax; say whose it "
         r"is: label: \{a: COLUMN\}"),
        ({"names_of": {"class": ("a", "b")}, "named": {"class": CLASSES}}, DETECTOR,
         r"target class: the teacher has 5 classes and the transfer set rows 2; .*labels.targets.class.classes"),
        ({"names_of": {"class": ("a", "b")}, "named": {"class": CLASSES}},
         {"targets": {"class": {"classes": ["b", "a"]}}}, "labels.targets.class.classes are b, a, and those of its hard labels "
         "a, b"),
    ],
    ids=["flags", "classes", "names", "another name", "another kind", "another width", "whose flags", "whose classes",
         "other names", "names twice"],
)  # fmt: skip
def test_hard_labels(
    changes: dict[str, Any], labels: dict[str, Any], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    error = refused(tmp_path, rows_of(rng, **changes), labels, detector if "targets" in labels else lambda x: x)
    assert pytest.raises(errors.UserError, match=message).matches(error)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"targets": {}}, "labels.targets names 0 targets; name 1 to 32"),
        ({"targets": {"Box": {}}}, "'Box' is no name of a target; use a-z"),
        ({"targets": {"box": "values"}}, "labels.targets.box is 'values', expected a mapping of keys"),
        ({"targets": {"box": {"kid": "values"}}}, "labels.targets.box: unknown key 'kid'; known keys: encoding, k,"),
        ({"targets": {"box": {"kind": "value"}}}, r"labels.targets.box.kind: Invalid enum value 'value'; correct"),
        ({"targets": {"box": {"classes": "a,b"}}}, r"labels.targets.box.classes: Expected `array \| null`, .*written \[a,b\]"),
        ({"targets": {"box": {"kind": "values", "k": 3}}}, "labels.targets.box: kind is values, and k say how a softmax is"),
        ({"targets": {"box": {"kind": "values", "reduce": "geometric"}}}, "targets.box: values labels cannot be reduced"),
        ({"targets": {"box": {}}, "k": 3}, "labels.k is given, and labels.targets names box; say k of each target"),
        ({"targets": {"box": {}}, "reduce": "geometric"}, "labels.reduce is given, and labels.targets"),
        ({"targets": {"box": {"classes": ["a", "a"]}}}, "labels.targets.box: class names repeat in classes"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)  # fmt: skip
def test_settings(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        LabelsConfig(**labels)


def test_plain_labels_and_names_go_to_the_only_target_of_their_kind(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rows_of(rng, labels=rng.integers(0, C, (R, P)), class_names=("a", "b", "c", "d", "e"))
    targets = {"class": {}, "box": {"kind": "values", "classes": ["x", "y", "w", "h"]}}
    spec = label(rows, Ensemble.of([Given(detector)], device="cpu"), LabelsConfig(targets=targets), tmp_path)[
        "train"
    ].spec
    assert [each.label_space.names for each in spec.targets] == [rows.class_names, ("x", "y", "w", "h")]
    assert [column.name for column in spec.columns if "label" in column.name] == ["class.label"]
