"""The rows that viewers show, for every kind of store; tests/jobs/test_hub.py has them loaded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Features

from softlabels.labels import NO_LABEL
from softlabels.store import open_store
from softlabels.store.carry import MAX_CARD_BYTES
from softlabels.store.features import MOST_NAMES, features, in_front_matter, nameable
from softlabels.store.markdown import yaml_lines
from softlabels.store.preview import POSITIONS, TOP, preview, preview_features, rows_shown, what_it_holds

GOLDEN = Path(__file__).parent / "golden"
pytestmark = pytest.mark.on_disk("the goldens lie on one")


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if (path / "manifest.json").exists()))
def test_every_kind(name: str) -> None:
    store = open_store(GOLDEN / name)
    data, spec = preview(store), store.spec
    assert data == preview(open_store(GOLDEN / name))
    table = pq.read_table(io.BytesIO(data))
    assert Features.from_arrow_schema(table.schema) == Features.from_dict(preview_features(spec))
    rows = table.to_pylist()
    assert len(rows) == min(store.rows, rows_shown(spec))
    for found in (features(spec), preview_features(spec)):
        assert Features._from_yaml_list(in_front_matter(found)) == Features.from_dict(found)
    assert [row["key"] for row in rows] == [bytes(key).hex() for key in store.column("content_key")[: len(rows)]]
    for target in spec.targets:
        one, lead = store.only(target.name), f"{target.name}." * bool(target.name)
        for number, row in enumerate(rows[:6]):
            counts = (
                () if spec.positions is None else np.flatnonzero(one.gather("position_mask", [number])[0])[:POSITIONS]
            )
            if target.encoding.target == "values":
                assert row[f"{lead}values"] == np.float32(one.values([number])[0][counts]).tolist()
                continue
            mean = "geometric" if target.encoding.is_reduced else "arithmetic"
            p = one.probabilities([number], temperature=target.encoding.near_1, mean=mean)[0][counts]
            assert row[f"{lead}p"] == np.float32(-np.sort(-p, axis=-1)[..., :TOP]).tolist()
            if f"{lead}label_name" in row:
                label, names = one.gather("label", [number])[0], target.label_space.names
                assert names is not None
                assert row[f"{lead}label_name"] == (None if label == NO_LABEL else names[label])
    assert what_it_holds(spec).endswith(".")


def test_names_that_no_card_can_hold() -> None:
    for names in (["a", "b", "a"], ["x" * MOST_NAMES, "y"]):
        found = {"feature": {"names": names, "_type": "ClassLabel"}, "length": 3, "_type": "List"}
        assert nameable(found)["feature"] == {"dtype": "int64", "_type": "Value"}
        assert in_front_matter({"label": found}) == [{"name": "label", "list": "int64", "length": 3}]
    for targets, names in ((1, 1 << 16), (8, 4000)):  # of few letters, and of many that take ten each
        each = [f"{number:x}" if targets == 1 else chr(0x4E00 + number) * 6 for number in range(names)]
        written = in_front_matter({str(n): {"names": each, "_type": "ClassLabel"} for n in range(targets)})
        assert len("".join(yaml_lines({"features": written}))) < MAX_CARD_BYTES
