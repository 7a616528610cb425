"""`extend`: what one pass over all rows would have made, of every kind of store; what it asks, carries and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabels import Loader, errors, extend, label, open_store
from softlabels.jobs.watch import Watch
from softlabels.objects import ObjectSpec
from softlabels.store.spec import Parent
from softlabels.store.verify import verify
from softlabels.transfer import TransferRows
from tests.jobs.test_label_targets import CASES, Case, R, rows_of, settings, stopping, teacher
from tests.stages.kills import digests

QUICK = ("anchors-topk", "ragged detector")
PLAIN = Case({"": 5}, {"inputs": "embed"}, members=2)


def part(rows: TransferRows, at: Any) -> TransferRows:
    """Some of the rows, in any order."""
    mask = None if rows.mask is None else rows.mask[at]
    named = {name: each[at] for name, each in rows.named.items()}
    return replace(rows, inputs=rows.inputs[at], keys=rows.keys[at], labels=rows.labels[at], named=named, mask=mask)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows the shard loop asks the teacher for, batch by batch."""
    seen: list[int] = []
    before = type(teacher(PLAIN)).batch_of

    def counted(self: Any, rows: TransferRows, at: Any, numbers: Any, *, embed: bool) -> Any:
        seen.append(len(numbers))
        return before(self, rows, at, numbers, embed=embed)

    monkeypatch.setattr("softlabels.teacher.ensemble.Ensemble.batch_of", counted)
    return seen


@pytest.mark.parametrize(
    "case", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_as_one_pass_over_all_rows(case: str, tmp_path: Path, rng: np.random.Generator, asked: list[int]) -> None:
    of = CASES[case]
    rows, known = rows_of(of, rng), rng.permutation(R)[:29]
    label(part(rows, known), teacher(of), settings(of), tmp_path / "old")
    before, old = digests(tmp_path / "old"), open_store(tmp_path / "old/train")
    whole = label(rows, teacher(of), settings(of), tmp_path / "whole")["train"]
    del asked[:]
    made = extend(tmp_path / "old", rows, teacher(of), settings(of), tmp_path / "new")["train"]
    assert sum(asked) == R - 29
    assert max(asked) <= 8
    assert digests(tmp_path / "old") == before
    assert made.spec.parents == (Parent(digest=old.digest, how="extended"),)
    store, one = open_store(tmp_path / "new/train"), open_store(tmp_path / "whole/train")
    assert verify(store.folder) == []
    for name in store.columns:
        np.testing.assert_array_equal(store.gather(name, known), old.column(name))
    np.testing.assert_array_equal(store.column("content_key"), rows.keys)
    for target in store.targets:
        for column in store.only(target).columns.values():
            if "label" in column.name or column.name == "input":
                np.testing.assert_array_equal(store.column(column.name), one.column(column.name))
        own, theirs = made.lost[target], whole.lost[target]
        assert own.fidelity.keys() == theirs.fidelity.keys()
        assert (own.errors is None) == (theirs.errors is None)
        if "topk" not in str(of.labels):  # whose basis is found in other rows
            new, both = (each.only(target) for each in (store, one))
            for column in new.soft_columns:
                np.testing.assert_allclose(
                    new.column(column).astype(float), both.column(column).astype(float), atol=1e-2, equal_nan=True
                )
            for temperature, line in theirs.fidelity.items():
                assert own.fidelity[temperature].kl_mean == pytest.approx(line.kl_mean, rel=0.05, abs=1e-9)
    order = {Loader(rows, each, batch_size=8, seed=3).order_digest for each in (store, one)}
    assert len(order) == 1


def test_stopped_and_gone_on_with(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rows_of(PLAIN, rng)
    label(part(rows, np.arange(5, 30)), teacher(PLAIN), settings(PLAIN), tmp_path / "old")
    given = tmp_path / "old", rows, teacher(PLAIN), settings(PLAIN)
    whole = extend(*given, tmp_path / "whole")["train"]
    with pytest.raises(errors.Interrupted, match="stopped with 1 of 2 shards left in"):
        extend(*given, tmp_path / "new", watch=Watch(should_stop=stopping(2)))
    assert extend(*given, tmp_path / "new")["train"].digest == whole.digest
    assert extend(*given, tmp_path / "new")["train"].digest == whole.digest  # sealed
    said: list[str] = []
    assert (
        extend(tmp_path / "new", rows, teacher(PLAIN), settings(PLAIN), tmp_path / "again", watch=Watch(said.append))
        == {}
    )
    assert said == [f"{tmp_path / 'new'} already labels every row of random; nothing was written"]
    assert not (tmp_path / "again").exists()
    label(part(rows, np.arange(4, 30)), teacher(PLAIN), settings(PLAIN), tmp_path / "other")
    with pytest.raises(errors.SpecMismatch, match=r"was begun with another specification \(parents\[0\]\.digest"):
        extend(tmp_path / "other", *given[1:], tmp_path / "new")


def test_rows_that_are_left_out_make_what_was_lost_unknown(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rows_of(PLAIN, rng)
    label(part(rows, np.arange(20)), teacher(PLAIN), settings(PLAIN), tmp_path / "old")
    others = part(rows, np.arange(5, R))
    given = tmp_path / "old", others, teacher(PLAIN), settings(PLAIN), tmp_path / "new"
    with pytest.raises(
        errors.OtherRows, match=r"random lacks 5 of the 20 rows of .*old/train, row 0 first; .*missing=skip"
    ):
        extend(*given)
    made = extend(*given, missing="skip")["train"]
    assert (made.spec.rows, made.fidelity) == (R - 5, {})
    assert "What storing lost, against the exact logits, is unknown." in (tmp_path / "new/train/README.md").read_text()
    with pytest.raises(
        errors.OtherRows, match=r"lacks 20 of the 20 rows .*; give a transfer set with these rows and more"
    ):
        extend(tmp_path / "old", part(rows, np.arange(20, R)), *given[2:], missing="skip")


def test_one_split_of_several(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rows_of(PLAIN, rng)
    splits = [rows, replace(part(rows, np.arange(12)), split="test")]
    label([part(rows, np.arange(20))], teacher(PLAIN), settings(PLAIN), tmp_path / "old")
    both = extend(tmp_path / "old", splits, teacher(PLAIN), settings(PLAIN), tmp_path / "both")
    assert {split: each.spec.rows for split, each in both.items()} == {"train": R, "test": 12}
    assert not both["test"].spec.parents
    one = extend(tmp_path / "old/train", splits, teacher(PLAIN), settings(PLAIN), tmp_path / "one")
    assert one["train"].digest == both["train"].digest
    assert open_store(tmp_path / "one").rows == R
    with pytest.raises(errors.ConfigError, match="the store has the splits test, train, and the transfer set train"):
        extend(tmp_path / "both", rows, teacher(PLAIN), settings(PLAIN), tmp_path / "less")


def test_a_key_that_repeats_meets_each_of_its_rows_once(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = part(rows_of(PLAIN, rng), np.r_[:20, 3, 3])
    rows.labels[[20, 21]] = -1
    label(part(rows, np.r_[:21]), teacher(PLAIN), settings(PLAIN), tmp_path / "old")
    extend(tmp_path / "old", rows, teacher(PLAIN), settings(PLAIN), tmp_path / "new")
    np.testing.assert_array_equal(open_store(tmp_path / "new/train").column("label"), rows.labels)


def test_what_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    rows, own = rows_of(PLAIN, rng), teacher(PLAIN)
    label(part(rows, np.arange(20)), own, settings(PLAIN), tmp_path / "old")

    def go(rows: TransferRows = rows, teacher: Any = own, **labels: Any) -> None:
        extend(tmp_path / "old", rows, teacher, replace(settings(PLAIN), **labels), tmp_path / "new")

    def refused(kind: type[Exception], text: str) -> Any:
        return pytest.raises(kind, match=text)

    other = teacher(replace(PLAIN, members=1))
    with refused(
        errors.SpecMismatch, r"old/train was labelled otherwise \(teacher.members: .*, or give another store$"
    ):
        go(teacher=other)
    moved = teacher(PLAIN)
    moved.models[0].heads["only"].bias.data += 1  # type: ignore[union-attr,operator]
    with refused(
        errors.OtherLogits, r"the teacher gives 20 rows of .*old/train logits that differ .* weights are the same"
    ):
        go(teacher=moved)
    prepared = replace(rows, prepare=ObjectSpec("softlabels.transfer.vector"))
    with refused(errors.OtherPreprocessing, r"labelled otherwise \(preprocessing.function: .*stack.* in this run"):
        go(prepared)
    with refused(errors.SpecMismatch, r"labelled otherwise \(encoding.kind: \"dense\""):
        go(encoding="topk", k=2, rank=2)
    with refused(errors.SpecMismatch, r"labelled otherwise \(.*layout: \"zarr\""):
        go(layout="arrow")
    named = replace(rows, class_names=tuple("abcde"))
    with refused(errors.OtherLabels, r"labelled otherwise \(label_space.names"):
        go(named)
    labels = rows.labels.copy()
    labels[7] = (labels[7] + 2) % 5
    with refused(errors.OtherLabels, r"1 of the 16 rows of .*old/train have another hard label .*: row 7 has"):
        go(replace(rows, labels=labels))
    inputs = rows.inputs.copy()
    inputs[:20] += np.float32(1e-3)
    with refused(
        errors.OtherPreprocessing, "holds other inputs for the same rows than softlabels.transfer.stack makes now"
    ):
        go(replace(rows, inputs=inputs))
    with refused(errors.StorePathError, "one is inside the other"):
        extend(tmp_path / "old", rows, own, settings(PLAIN), tmp_path / "old")
    assert not (tmp_path / "new").exists()
