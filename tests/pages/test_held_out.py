"""The temperatures at which a page counts what is said of held-out rows."""

from __future__ import annotations

from itertools import pairwise

import pytest

from softlabels.labels.dense import DenseEncoding
from softlabels.labels.encoding import Encoding
from softlabels.labels.topk import TopkEncoding
from softlabels.pages.distributions import span
from softlabels.pages.held_out import grid


@pytest.mark.parametrize(
    "encoding",
    [DenseEncoding(), TopkEncoding(k=4, tail="bucket"), TopkEncoding(k=4, tail="uniform", nodes=6, beta_max=0.02)],
    ids=["dense", "bucket", "from 50"],
)
def test_counted_along_the_whole_slider(encoding: Encoding) -> None:
    found, (lowest, highest) = grid(encoding, many=False), span(encoding)
    assert found[0] == pytest.approx(lowest)
    assert found[-1] == pytest.approx(highest)
    assert encoding.near_1 in found
    assert all(b < a * 1.1 for a, b in pairwise(found))


def test_counted_once_of_many_classes_and_of_labels_known_at_one_temperature() -> None:
    assert grid(DenseEncoding(), many=True) == (1.0,)
    assert grid(DenseEncoding(known_at=3.0), many=False) == (3.0,)
