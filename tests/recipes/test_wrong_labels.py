"""Training rows with wrong labels, of the recipe `forest`."""

from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.recipes.wrong_labels import wrong_labels

DIGITS = "./data/digits"


def test_a_share_of_the_training_labels_is_wrong() -> None:
    right, wrong, again = (wrong_labels(split="train", source=DIGITS, share=share) for share in (0, 0.3, 0.3))
    labels = np.array(right["label"])
    changed = np.array(wrong["label"]) != labels
    assert changed.sum() == round(0.3 * len(labels))
    assert wrong["label"] == again["label"]
    assert wrong.features == right.features
    assert wrong[5]["image"] == right[5]["image"]
    shift = (np.array(wrong["label"]) - labels)[changed] % 10
    assert np.bincount(shift, minlength=10)[1:].min() > 20  # any of the others, about as often
    test = wrong_labels(split="test", source=DIGITS, share=0.3)
    assert test["label"] == wrong_labels(split="test", source=DIGITS, share=0)["label"]
    with pytest.raises(ConfigError, match=r"share is 1.5"):
        wrong_labels(split="train", source=DIGITS, share=1.5)
