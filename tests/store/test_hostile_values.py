"""Values that the format forbids, in stores whose digests fit: reading refuses them and `verify` finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import DamagedShard, LabelError, UserError
from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter, open_store
from softlabels.store.verify import verify
from tests.store.samples import FIDELITY, make_spec, sample

ROWS, BAD = 70, 20  # in the second chunk of the first shard
DENSE = {
    "NaN": ("logits", 3, np.nan, "largest of a distribution's logits"),
    "NaN of all bits": ("logits", 3, np.uint16(0xFFFF).view(np.float16), "largest of a distribution's logits"),
    "+inf": ("logits", 3, np.inf, "largest of a distribution's logits"),
    "above 0": ("logits", 3, 0.5, "largest of a distribution's logits"),
    "all -inf": ("logits", slice(None), -np.inf, "largest of a distribution's logits"),
    "shift NaN": ("shift", 1, np.nan, "NaN or infinite"),
    "shift inf": ("shift", 1, -np.inf, "NaN or infinite"),
    "label beyond the classes": ("label", 0, 7, "outside the label space of 7 classes"),
    "label -2": ("label", 0, -2, "outside the label space of 7 classes"),
}
TOPK = {
    "class": ("top_class", -1, 7, "a class id is not below"),
    "class twice": ("top_class", 1, 0, "do not ascend"),
    "logit NaN": ("top_logit", 0, np.nan, "largest of a distribution's logits"),
    "logits all -inf": ("top_logit", slice(None), -np.inf, "largest of a distribution's logits"),
    "odds": ("tail_odds", 0, np.inf, "tail's mass"),
    "coefficient": ("tail_fine", 0, -128, "of 8 bits is -128"),
    "scale": ("tail_scale", 0, np.inf, "a scale of coefficients"),
    "label's logit": ("label_logit", 0, 1.0, "a label's logit is above 0"),
    "label": ("label", 0, 7, "outside the label space of 7 classes"),
}
CASES = [
    *((kind, what, *case) for kind in ("zarr", "arrow") for what, case in DENSE.items()),
    *((kind, what, *case) for kind in ("topk-zarr", "topk-arrow") for what, case in TOPK.items()),
    # of tokens, whose labels have no axis of positions; seen to fail with an IndexError
    *(
        (kind, "label", "label", 0, 7, "outside the label space")
        for kind in ("ragged-arrow", "sequence-zstd", "anchors-zarr")
    ),
]


def write(path: Path, kind: str, rng: np.random.Generator, column: str, at: object, value: object) -> None:
    """A store with one false value, written with all its digests."""
    data = sample(rng, ROWS, kind)
    spec = make_spec(data, kind)
    whole = {name: values.copy() for name, values in data.stored().items()}
    whole[column].reshape(ROWS, -1)[BAD, at] = value  # type: ignore[index]
    with StoreWriter(path, spec, basis=data.basis) as writer:
        for shard in writer.pending:
            rows = slice(*writer.rows_of(shard))
            arrays = {each.name: whole[each.name][rows] for each in spec.columns}
            with writer.shard(shard) as out:
                out.add(arrays, len(arrays["label"]))
                out.commit(FIDELITY)
        writer.seal(checked=True)


@pytest.mark.parametrize(("kind", "what", "column", "at", "value", "words"), CASES)
def test_values_that_the_format_forbids(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    what: str,
    column: str,
    at: object,
    value: object,
    words: str,
) -> None:
    with pytest.raises((UserError, LabelError), match=f"row {BAD}"):
        write(tmp_path / "refused", kind, rng, column, at, value)
    with monkeypatch.context() as patch:
        patch.setattr("softlabels.store.shard_writer.check_arrays", lambda *_: None)
        patch.setattr("softlabels.store.writer.check_written", lambda *_, **__: ())
        write(tmp_path / "store", kind, rng, column, at, value)
    for check in ("first", "never"):
        store = open_store(tmp_path / "store", check=check)  # type: ignore[arg-type]
        store.read_chunk(column, 0)
        for _ in range(2):  # refused again, not only once
            with pytest.raises(DamagedShard, match=rf"shard 0 .*store.*column {column} .*row {BAD}\b.*{words}"):
                store.read_chunk(column, 1)
    (found,) = verify(tmp_path / "store")
    assert found.shard == 0
    assert f"row {BAD}" in found.what
    assert column in found.what


def test_zeros_with_a_sign_are_zeros(rng: np.random.Generator) -> None:
    values = -np.abs(rng.normal(size=(9, 2, 5))).astype(np.float16)
    values[..., 2] = -0.0
    DenseEncoding().check_column("logits", values, 5)
    values[4, 1, 2] = -1e-7
    with pytest.raises(ValueError, match="row 104: "):
        DenseEncoding().check_column("logits", values, 5, first_row=100)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_blocks_of_rows_are_all_looked_at(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("softlabels.labels.base.BLOCK", block)
    for row in range(9):
        shift = rng.normal(size=(9, 1))
        DenseEncoding().check_column("shift", shift, 5)
        shift[row] = np.nan
        with pytest.raises(ValueError, match=f"row {row}: "):
            DenseEncoding().check_column("shift", shift, 5)
