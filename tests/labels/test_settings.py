"""What a recipe says of the kind of a target, and the encoding that it gets; of top-k labels see the recipes' tests."""

from __future__ import annotations

from typing import Any

import pytest

from softlabels.errors import ConfigError
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, ValuesEncoding
from softlabels.labels.settings import EncodingSettings
from softlabels.teacher.config import LabelsConfig

MADE = (
    ({}, {}, DenseEncoding()),
    ({"kind": "sigmoid"}, {}, SigmoidEncoding(dtype="float16")),
    (
        {"kind": "sigmoid", "dtype": "float32"},
        {"reduce": "geometric"},
        SigmoidEncoding(dtype="float32", reduce="geometric"),
    ),
    ({"kind": "values"}, {"inputs": "embed"}, ValuesEncoding(dtype="float32", inputs="embed")),
    (
        {"kind": "values", "dtype": "float16"},
        {"reduce": "arithmetic"},
        ValuesEncoding(dtype="float16", reduce="arithmetic"),
    ),
)


@pytest.mark.parametrize(("settings", "others", "expected"), MADE, ids=str)
def test_a_kind_has_its_encoding(settings: dict[str, Any], others: dict[str, Any], expected: Encoding) -> None:
    assert EncodingSettings(**settings).made(3, classes=5, **others) == expected
    assert LabelsConfig(**settings, **others).encodings(3) == {"": expected}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "sigmoid", "encoding": "topk", "k": 3}, "kind is sigmoid, and encoding, k say how a softmax is kept"),
        ({"kind": "values", "tail": "bucket"}, "kind is values, and tail say how a softmax is kept.*leave out tail"),
        ({"kind": "values", "min_temperature": 0.5}, "and min_temperature say"),
        ({"dtype": "float32"}, "dtype is float32, and a softmax's logits are kept as float16"),
        ({"encoding": "topk", "dtype": "float16"}, "dtype is float16, and a softmax's logits"),
        (
            {"reduce": "arithmetic"},
            "dense labels cannot be reduced to the arithmetic mean.*choose one of none, geometric",
        ),
        ({"encoding": "topk", "reduce": "arithmetic"}, "topk labels cannot be reduced to the arithmetic mean"),
        ({"kind": "sigmoid", "reduce": "arithmetic"}, "sigmoid labels cannot be reduced to the arithmetic mean"),
        (
            {"kind": "values", "reduce": "geometric"},
            "values labels cannot be reduced to the geometric mean.*none, arithmetic",
        ),
    ],
)
def test_settings_that_are_not_of_the_kind(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LabelsConfig(**settings)
