"""What a recipe may say of hard labels and positions, and what cannot be meant."""

from __future__ import annotations

import pytest

from softlabels.errors import ConfigError
from softlabels.transfer import TransferSetConfig
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.label_config import LabelColumn, RowPositions


def config(**settings: object) -> TransferSetConfig:
    return TransferSetConfig(source="a", **settings)  # type: ignore[arg-type]


def test_a_label_has_a_column_a_kind_and_classes() -> None:
    assert config().targets == (LabelColumn("", "label", "class", None),)
    assert config(label=None).targets == ()
    assert config(label="tags", label_as="set", classes=("x", "y")).targets == (
        LabelColumn("", "tags", "set", ("x", "y")),
    )
    many = config(label={"class": "cell", "box": {"column": "o.bbox", "as": "values", "classes": ["x", "y"]}})
    assert many.targets == (LabelColumn("class", "cell"), LabelColumn("box", "o.bbox", "values", ("x", "y")))
    assert config(sequences=SequencesConfig("t", 8)).targets == ()


def test_positions_are_a_number_or_a_rule() -> None:
    assert config().row_positions is None
    assert config(label=None, positions=300).row_positions == RowPositions(300, fixed=True)
    ragged = config(positions={"most": 228, "length": "frames"})
    assert ragged.row_positions == RowPositions(228, fixed=False, length="frames")
    assert config(positions={"most": 60}).row_positions == RowPositions(60, fixed=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_as": "numbers"}, "label_as is 'numbers'; give one of class, set, flags, values"),
        ({"label": None, "label_as": "values"}, "label_as is values, and label is null"),
        ({"label": {"a": "x"}, "label_as": "set"}, "label_as is given, and transfer_set.label names targets; say it of each"),
        ({"label": {"a": "x"}, "classes": ("p", "q")}, "classes is given, and transfer_set.label names targets"),
        ({"label": {}}, "names 0 targets"),
        ({"label": {f"a{n}": "x" for n in range(33)}}, "names 33 targets; name 1 to 32"),
        ({"label": {"Box": "x"}}, "'Box' is no name of a target; use a-z, 0-9"),
        ({"label": {"a.b": "x"}}, "'a.b' is no name of a target"),
        ({"label": {"a": None}}, "label.a: column is None, .*leave out targets without hard labels"),
        ({"label": {"a": {"as": "set"}}}, "label.a: column is None"),
        ({"label": {"a": {"column": "x", "kind": "set"}}}, "label.a: unknown key 'kind'; known keys: column, as, classes"),
        ({"label": {"a": {"column": "x", "as": "sets"}}}, "label.a.as is 'sets'; give one of"),
        ({"label": {"a": {"column": "x", "classes": "xy"}}}, "label.a: classes is 'xy', expected a list of texts"),
        ({"label": {"a": {"column": "x", "classes": [1, 2]}}}, r"classes is \[1, 2\], expected a list of texts; quote"),
        ({"label": {"a": {"column": "x", "classes": ["p", "p"]}}}, "label.a: class names repeat"),
        ({"positions": 0}, "positions is 0, expected a whole number from 1 to 1048576; write"),
        ({"positions": {"most": 1 << 40}}, "positions is 1099511627776, expected a whole number from 1 to 1048576"),
        ({"positions": True}, "positions is True"),
        ({"positions": {"length": "n"}}, "positions is None, expected a whole number"),
        ({"positions": {"most": 2, "lengths": "n"}}, "positions: unknown key 'lengths'; known keys: most, length"),
        ({"positions": {"most": 2, "length": 3}}, "positions.length is 3, expected a column's name"),
        ({"positions": {"most": 2}, "label": None}, "does not say how many positions .*or positions: 2 where every row"),
        ({"positions": 4, "sequences": SequencesConfig("t", 8)}, "positions is 4, and transfer_set.sequences makes rows of"),
        ({"label_as": "set", "sequences": SequencesConfig("t", 8)}, "label_as is set, and transfer_set.sequences"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**settings)
