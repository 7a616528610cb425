from __future__ import annotations

import pytest

from softlabels.errors import ConfigError
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "neither given"),
        ({"source": "a", "factory": ObjectSpec("a.b")}, "both given"),
        ({"source": "a", "inputs": ()}, "inputs is empty"),
        ({"source": "a", "splits": {"../train": "train"}}, "is no split name"),
        ({"source": "a", "splits": {".hidden": "train"}}, "is no split name"),
        ({"source": "a", "classes": ("x", "y", "x")}, "class names repeat"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TransferSetConfig(**settings)


def test_the_origin_is_source_or_factory() -> None:
    assert TransferSetConfig(source="data/digits").origin == "data/digits"
    assert TransferSetConfig(factory=ObjectSpec("a.b")).origin == "a.b"
