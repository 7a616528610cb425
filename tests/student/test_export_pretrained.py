"""Hugging Face students export too: tokens of any number of rows, padding and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from softlabels.models.hf import ImageClassifier, SequenceClassifier
from softlabels.student.export import export_student
from tests.models import hf_samples

LENGTH = 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [hf_samples.BERT, hf_samples.DISTILBERT, hf_samples.VIT, hf_samples.RESNET], ids=lambda c: c["model_type"]
)
def test_the_files_give_the_logits_of_the_student(
    rng: np.random.Generator, tmp_path: Path, config: dict[str, Any]
) -> None:
    is_image = config["model_type"] in ("vit", "resnet")
    model = (ImageClassifier if is_image else SequenceClassifier)(config=config, classes=hf_samples.CLASSES)

    def make(rows: int) -> torch.Tensor:
        if is_image:
            return torch.from_numpy(rng.normal(size=(rows, 3, 12, 12)).astype(np.float32))
        mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, rows)[:, None]
        ids = rng.integers(1, config["vocab_size"], (rows, LENGTH)) * mask
        return torch.from_numpy(np.stack([ids, mask], axis=1).astype(np.int32))

    onnx_file, torch_file = export_student(model, make(40), tmp_path, formats=["onnx", "torch"], facts={})
    session, program = onnxruntime.InferenceSession(onnx_file.path), torch.export.load(torch_file.path).module()
    for size in (1, 7):
        rows = make(size)
        with torch.no_grad():
            expected = model(rows)
        for found in (session.run(["logits"], {"inputs": rows.numpy()})[0], program(rows)):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
