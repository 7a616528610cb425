"""Fields of a specification by the names that the user wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from softlabels.errors import OtherLabels, OtherMemberOrder, OtherPreprocessing, SoftLabelsError, UserError
from softlabels.store import StoreWriter
from softlabels.store.spec import Spec
from softlabels_stages.recipe_keys import in_recipe, key_of
from tests.store.samples import Sample, fill, make_spec, sample

KEYS = {
    "teacher.name": "teacher.name",
    "teacher.members[1].model": "teacher.members[1].class_path",
    "teacher.members[1].weights": "teacher.members[1].weights",
    "teacher.floor": "floor",
    "transfer_set.split": "transfer_set.splits",
    "transfer_set.content_keys": "transfer_set: content of its rows",
    "label_space.names[0]": "transfer_set.classes[0]",
    "label_space.vocabulary": "transfer_set.sequences.tokenizer",
    "preprocessing.function": "transfer_set.prepare.class_path",
    "preprocessing.arguments.size[0]": "transfer_set.prepare.init_args.size[0]",
    "layout": "labels.layout",
    "compression": "labels.compression",
    "encoding.kind": "labels.encoding, kind",
    "encoding.k": "labels.k",
    "cut.rows_per_shard": "labels.rows_per_shard",
    "cut.teacher_batch": "teacher.batch_size",
    "positions.most": "transfer_set.positions.most",
    "targets[1].encoding.dtype": "labels.targets.box.dtype",
    "targets[0].encoding.kind": "labels.targets.class.kind, encoding",
    "targets[0].label_space.names[2]": "labels.targets.class.classes[2]",
    "targets[1].label_space.classes": "classes of the teacher for box",
    "targets[0].label_space.vocabulary": "transfer_set.sequences.tokenizer",
    "targets": "labels.targets",
}
TARGETS = ("class", "box")


@pytest.mark.parametrize(("field", "key"), KEYS.items(), ids=str)
def test_each_field_has_the_name_that_the_recipe_gives_it(field: str, key: str) -> None:
    assert key_of(field, targets=TARGETS) == key
    assert key_of(field, "--", targets=TARGETS) == re.sub(r"^labels\.", "--", key)
    assert key_of("preprocessing.arguments.pack", tokens=True) == "transfer_set.sequences.pack"


@pytest.fixture
def data(rng: np.random.Generator) -> Sample:
    return sample(rng, 40)


def refused(path: Path, spec: Spec, data: Sample, **changes: Any) -> UserError:
    """The store's own error, in which the specification differs so from the one that began it."""
    with StoreWriter(path, spec) as writer:
        fill(writer, data, [0])
    with pytest.raises(UserError, match="begun with another specification") as caught:
        StoreWriter(path, msgspec.structs.replace(spec, **changes))
    return caught.value


def test_the_sections_are_named_in_what_to_do(tmp_path: Path, data: Sample) -> None:
    spec = make_spec(data, weights=[1, 2])
    names = msgspec.structs.replace(spec.label_space, names=tuple(f"k{number}" for number in range(7)))
    other = msgspec.structs.replace(spec.preprocessing, function="resize")
    turned = msgspec.structs.replace(spec.teacher, members=spec.teacher.members[::-1])
    for kind, changes, field, words in (
        (
            OtherLabels,
            {"one_label_space": names},
            "label_space.names",
            r"\(transfer_set\.label, classes\), or give another",
        ),
        (OtherPreprocessing, {"preprocessing": other}, "preprocessing.function", r"\(transfer_set\.prepare\), or give"),
        (OtherMemberOrder, {"teacher": turned}, "teacher.members", r"; list teacher\.members in the order in which"),
    ):
        error = refused(tmp_path / field, spec, data, **changes)
        said = in_recipe(error)
        assert type(error) is type(said) is kind
        assert field in str(error)
        assert not re.search(words, str(error))
        assert re.search(words, str(said))
        assert key_of(error.differences[0].path) in str(said)


def test_other_errors_stay_as_they_are() -> None:
    error = SoftLabelsError("layout: zarr here, arrow in this run", remedy="none")
    assert in_recipe(error) is error
