from __future__ import annotations

import numpy as np
import pytest

from softlabels.errors import ConfigError, TransferSetError
from softlabels.transfer import prepare


def test_stack_changes_nothing(rng: np.random.Generator) -> None:
    for values in (rng.integers(0, 9, (5, 2, 3)).astype(np.int16), rng.standard_normal(5), rng.random((5, 2)) > 0.5):
        found = prepare.stack(list(values))
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_scale_divides_in_float32(rng: np.random.Generator) -> None:
    values = rng.integers(0, 256, (6, 4, 4)).astype(np.uint8)
    found = prepare.scale(list(values), divisor=255)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values / 255.0, rtol=1e-7)
    pairs = prepare.scale([(np.int64(6), np.int64(4)), (np.int64(2), np.int64(0))], divisor=2)
    np.testing.assert_array_equal(pairs, np.array([[3, 2], [1, 0]], np.float32))


def test_image_puts_channels_first(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 5, 4, 3)).astype(np.uint8)
    found = prepare.image(list(pixels))
    assert found.shape == (3, 3, 5, 4)
    assert found.flags.c_contiguous
    for channel in range(3):
        np.testing.assert_allclose(found[:, channel], pixels[..., channel] / 255.0, rtol=1e-6)
    assert prepare.image(list(pixels[..., 0])).shape == (3, 1, 5, 4)


def test_vector_joins_columns_in_order(rng: np.random.Generator) -> None:
    numbers, pairs = rng.integers(0, 100, 4), rng.standard_normal((4, 2))
    found = prepare.vector(list(zip(numbers, pairs, strict=True)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.column_stack([numbers, pairs]).astype(np.float32))
    np.testing.assert_array_equal(prepare.vector(list(numbers)), numbers[:, None].astype(np.float32))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([np.zeros(2), np.zeros(3)], "different shapes: float64.2. and float64.3."),
        ([np.zeros(2), np.zeros(2, np.int8)], "different shapes"),
        (["a", "b"], "not text"),
        ([(np.int64(1), np.int64(2))], "not several input columns"),
        (
            [b"RIFF"],
            r"not bytes; set prepare: \{class_path: softlabels\.transfer\.audio\} decodes .*; images are decoded where",
        ),
    ],
)
def test_stack_refuses_what_makes_no_array(rows: list[object], words: str) -> None:
    with pytest.raises(TransferSetError, match=words):
        prepare.stack(rows)


def test_a_row_that_is_no_image_and_a_divisor_of_0_are_refused() -> None:
    with pytest.raises(TransferSetError, match="is no image"):
        prepare.image([np.zeros(4)])
    with pytest.raises(ConfigError, match="divide by 0"):
        prepare.scale([np.zeros(4)], divisor=0)
