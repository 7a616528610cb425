"""The right logits for the right row: mistakes that people make with transfer sets and teachers, each made on purpose, at the
beginning of a store, in the middle of it, or when students are trained from it.

Each must be its own named error, and raised before the store holds anything of it.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from softlabels.store import StoreWriter, open_store
from tests.faults.campaign import Harm, Outcome, Trial, repeated
from tests.faults.recipes import (
    CLASSES,
    NAMES,
    ROWS,
    Random,
    Recipe,
    committed,
    digest,
    error_of,
    folder,
    label,
    model,
    recipe,
    train,
    unfinished,
)  # fmt: skip
from tests.store import samples

Change = Callable[[Recipe, Random], None]


@dataclass(frozen=True)
class Mistake:
    """One mistake: `change` makes it in a recipe of these members; the name of its error; `defences`: what is taken away for
    the control, names of functions and what stands in their place; `quietly`: under the same recipe.
    """

    what: str
    error: str
    change: Change
    defences: Mapping[str, Any]
    defence_what: str
    members: tuple[str, ...] = ("Linear", "Linear")
    quietly: bool = False

    def resumed(self, rng: Random) -> None:
        """Made between the beginning of a store and its end: refused, nothing touched, and without it the store is finished."""
        with folder():
            given = recipe(rng, *self.members)
            whole, wrong = unfinished(given), copy.deepcopy(given)
            self.change(wrong, rng)
            with mock.patch.dict(os.environ, {"QUIETLY": "3", "SOFTLABELS_CACHE": "cache2"} if self.quietly else {}):
                self.refused(label(wrong), shard=1)
            assert committed() == {"00000.json", "00002.json"}
            assert label(given) == ""
            assert digest() == whole

    def begun(self, rng: Random) -> None:
        """Made from the beginning: refused, and no shard holds it."""
        with folder():
            given = recipe(rng, *self.members)
            self.change(given, rng)
            self.refused(label(given), shard=0)
            assert not committed()

    def late(self, rng: Random) -> None:
        """In a row that no sentinel sees: refused, no shard holds it, and shards before it stay as they are."""
        with folder():
            given = recipe(rng, *self.members)
            self.change(given, rng)
            self.refused(label(given), shard=2)

    def trained(self, rng: Random) -> None:
        """Made when students are trained from the finished store: refused before the first step."""
        with folder():
            given = recipe(rng, *self.members)
            assert label(given) == ""
            self.change(given, rng)
            found = train(given)
            if not found:
                raise Harm("a student was trained")
            assert found == self.error, f"{found} in place of {self.error}"

    def refused(self, found: str, *, shard: int) -> None:
        """Require that a command ended with our error, and did not write this shard, which has the mistake in it."""
        if f"{shard:05}.json" in committed():
            raise Harm(f"shard {shard} was written; {found or 'no error'}")
        assert found == self.error, f"{found or 'no error'} in place of {self.error}"

    def trial(self, attack: Callable[[Random], None], when: str) -> Trial:
        return _trial(f"{self.what}, {when}", attack, self.defences, self.defence_what)


def _trial(what: str, attack: Callable[[Random], None], defences: Mapping[str, Any], defence_what: str) -> Trial:
    def control(seed: int) -> Outcome:
        with contextlib.ExitStack() as stack:
            for name, replacement in defences.items():
                stack.enter_context(mock.patch(name, replacement))
            return repeated(1, seed, attack, failing=(Harm,))

    return Trial(8, what, 10, 1, lambda count, seed: repeated(count, seed, attack), control, defence_what)


def _nothing(*args: object, **options: object) -> None:
    """What a defence is replaced by."""


def _set(**changes: Callable[[Random], Any]) -> Change:
    """Arguments of the factory."""

    def change(given: Recipe, rng: Random) -> None:
        given["transfer_set"]["factory"]["init_args"] |= {name: draw(rng) for name, draw in changes.items()}

    return change


def _unnamed(given: Recipe, rng: Random) -> None:
    del given["transfer_set"]["classes"]


def _normalised(given: Recipe, rng: Random) -> None:
    given["transfer_set"]["prepare"]["init_args"]["by"] = 1 / float(rng.uniform(2, 9))


def _names_permuted(given: Recipe, rng: Random) -> None:
    names = list(NAMES)
    while names == list(NAMES):
        rng.shuffle(names)
    given["transfer_set"]["classes"] = names


def _other_weights(given: Recipe, rng: Random) -> None:
    given["teacher"]["members"][int(rng.integers(2))] = model("Linear", int(rng.integers(1 << 21, 1 << 22)))


def _reordered(given: Recipe, rng: Random) -> None:
    given["teacher"]["members"].reverse()


def _same(given: Recipe, rng: Random) -> None:
    """The recipe stays as it is."""


def _bad_row(kind: float, rows: tuple[int, int]) -> Change:
    """A row among these whose logits cannot be."""
    return _set(bad=lambda rng: int(rng.integers(*rows)), value=lambda rng: kind)


COMMITTED = {"softlabels.jobs.labelled.check_committed": _nothing}
PLAN = COMMITTED | {
    "softlabels.store.writer.require_same_plan": _nothing,
}
PLAN_WHAT, COMMITTED_WHAT = "plan, committed shards and keys not compared", "committed shards not compared"
SENTINELS = {"softlabels.jobs.teacher_checks.check_sentinels": lambda *args, **options: {"": CLASSES}}
STORABLE = {
    "softlabels.teacher.sentinels.require_storable": _nothing,
    "softlabels.labels.blocks.Block.refuse": _nothing,
    "softlabels.labels.base.EncodingBase.check_column": _nothing,
    "tests.faults.recipes.TOPK": {},  # of sparse labels the basis and the store's own checks would refuse them, too
}
STORABLE_WHAT = "logits of dense labels not checked"
RESUMED = (
    Mistake("rows in another order", "OtherOrder", _set(order=lambda rng: int(rng.integers(1, 99))), PLAN, PLAN_WHAT),
    Mistake(
        "a row dropped",
        "OtherRows",
        _set(drop=lambda rng: int(rng.integers(64))),
        PLAN | {"softlabels.store.writer.check_record": _nothing},
        "plan, committed shards, their records and keys not compared",
    ),
    Mistake("a row altered", "OtherRows", _set(alter=lambda rng: int(rng.integers(32, 64))), PLAN, PLAN_WHAT),
    Mistake("inputs normalised otherwise", "OtherPreprocessing", _normalised, PLAN, PLAN_WHAT),
    Mistake("classes in another order", "OtherLabels", _names_permuted, PLAN, PLAN_WHAT),
    Mistake("other weights", "OtherWeights", _other_weights, PLAN, PLAN_WHAT),
    Mistake("members in another order", "OtherMemberOrder", _reordered, PLAN, PLAN_WHAT),
    Mistake(
        "hard labels numbered otherwise",
        "OtherLabels",
        _set(relabel=lambda rng: int(rng.integers(1, CLASSES))),
        COMMITTED,
        COMMITTED_WHAT,
    ),
    Mistake(
        "a prepare function that changed under its name, after the rows that the plan knows",
        "OtherLogits",
        _same,
        COMMITTED,
        COMMITTED_WHAT,
        quietly=True,
    ),
)
KINDS = (
    (1e6, "NaN", "NanLogits"),
    (2e6, "+inf", "InfiniteLogits"),
    (3e6, "-inf in every class", "NoPossibleClass"),
    (4e6, "logits beyond float16", "LogitsOverflow"),
)
BEGUN = (
    *(
        Mistake(what, "TeacherError", _same, SENTINELS, "no sentinel rows", members=("Linear", name))
        for what, name in (("dropout left on", "Dropping"), ("batch statistics left on", "BatchStatistics"))
    ),
    *(
        Mistake(f"{what} among the first rows", error, _bad_row(kind, (0, 32)), STORABLE, STORABLE_WHAT, ("Faulty",))
        for kind, what, error in KINDS
    ),
)
LATE = tuple(
    Mistake(f"{what} in the last shard", error, _bad_row(kind, (64, ROWS)), STORABLE, STORABLE_WHAT, ("Faulty",))
    for kind, what, error in KINDS
)
TRAINED = (
    Mistake(
        "classes in another order",
        "OtherLabels",
        _names_permuted,
        {"softlabels.jobs.splits._require_same_classes": _nothing},
        "class names not compared",
    ),
    Mistake(
        "hard labels numbered otherwise",
        "OtherLabels",
        _set(relabel=lambda rng: int(rng.integers(1, CLASSES))),
        {"softlabels.stream.examples.check_label_map": _nothing},
        "hard labels not compared",
    ),
    Mistake(
        "a row that the store has no labels for",
        "UnlabelledRows",
        _set(alter=lambda rng: int(rng.integers(ROWS))),
        {"softlabels.stream.examples.find_labels": lambda keys, store, *, items, **options: (items, items)},
        "rows joined by their number",
    ),
)


def joined(rng: Random) -> None:
    """Rows that were shuffled and thinned after they were labelled get the labels of their own inputs."""
    from softlabels.stream import Loader
    from softlabels.transfer import TransferSetConfig, load_transfer_set
    from softlabels_stages.schema import typed

    with folder():
        given = recipe(rng)
        assert label(given) == ""
        _set(order=lambda rng: int(rng.integers(1, 99)), drop=lambda rng: int(rng.integers(ROWS)))(given, rng)
        rows = load_transfer_set(typed(TransferSetConfig, given["transfer_set"], where="trial"), "train")
        store = open_store("store", split="train")
        at = {key.tobytes(): row for row, key in enumerate(store.column("content_key"))}
        expected = store.log_probs([at[key.tobytes()] for key in rows.keys], temperature=2.0)
        for batch in Loader(rows, store, batch_size=20, seed=int(rng.integers(99))).epoch(0):
            assert batch.soft is not None
            found = batch.soft.log_probs(2.0).double().numpy()
            if np.abs(np.exp(found) - np.exp(expected[batch.rows])).max() > 1e-5:
                raise Harm("labels of other rows")


def twice(rng: Random) -> None:
    """A shard that is written a second time, with other distributions: the first ones stay."""
    kind = str(rng.choice(samples.ALL))
    data = samples.sample(rng, 96, kind)
    with folder(), StoreWriter("store", samples.make_spec(data, kind), basis=data.basis) as writer:
        samples.fill(writer, data)
        found = error_of(lambda: samples.fill(writer, data.changed(2.0), [int(rng.integers(2))]))
        writer.seal()
        try:
            samples.assert_holds(open_store("store"), data)
        except AssertionError as error:
            raise Harm(f"the store holds other values: {error}") from error
        assert found == "RepeatedRow", found


def narrowed(rng: Random) -> None:
    """Class ids above 127 that went through int8."""
    kind = str(rng.choice(["topk-zarr", "topk-arrow"]))
    data = samples.sample(rng, 96, kind, classes=200)
    assert data.soft is not None
    ids = np.sort(data.soft["top_class"].astype(np.int8).astype(np.uint16), axis=-1)
    with folder(), StoreWriter("store", samples.make_spec(data, kind), basis=data.basis) as writer:
        wrong = data.with_columns(data.soft | {"top_class": ids})
        found = error_of(lambda: samples.fill(writer, wrong, [0]))
        if writer.path.joinpath("commits", "00000.json").exists():
            raise Harm("the shard was written")
        assert found == "ClassIdOverflow", found


def another_tokenizer(rng: Random) -> None:
    """Rows of tokens of a tokenizer with as many tokens as the one of the store, in another order."""
    kind = str(rng.choice(["sequence-zarr", "ragged-arrow", "tokens-arrow", "ragtokens-arrow"]))
    data = samples.sample(rng, 96, kind)
    spec = samples.make_spec(data, kind)
    with folder():
        with StoreWriter("store/train", spec, basis=data.basis) as writer:
            samples.fill(writer, data, [0])
        space = msgspec.structs.replace(spec.label_space, vocabulary=rng.bytes(32).hex())
        other = msgspec.structs.replace(spec, one_label_space=space)

        def resume() -> None:
            with StoreWriter("store/train", other, basis=data.basis) as writer:
                samples.fill(writer, data, [1])

        found = error_of(resume)
        if committed() != {"00000.json"}:
            raise Harm("a shard was written")
        assert found == "OtherTokenizer", found


_SHARD = StoreWriter.shard


def _forgetful(self: StoreWriter, shard: int) -> Any:
    self._taken.clear()
    return _SHARD(self, shard)


NO_MEMORY = {
    "softlabels.store.writer.StoreWriter.shard": _forgetful,
    "softlabels.system.local.LocalFolder.create": lambda self, name, data, **how: self.put(name, data) is None,
}
TRIALS = (
    *(mistake.trial(mistake.resumed, "in the middle of a store") for mistake in RESUMED),
    *(mistake.trial(mistake.begun, "at the beginning") for mistake in BEGUN),
    *(mistake.trial(mistake.late, "later") for mistake in LATE),
    *(mistake.trial(mistake.trained, "when students are trained") for mistake in TRAINED),
    _trial(
        "rows shuffled and dropped when students are trained", joined, TRAINED[-1].defences, TRAINED[-1].defence_what
    ),
    _trial(
        "a row index written twice",
        twice,
        NO_MEMORY,
        "the writer forgets what it wrote, and a record may replace another",
    ),
    _trial(
        "class ids that overflowed",
        narrowed,
        {
            "softlabels.store.arrays.check_values": _nothing,
            "softlabels.labels.base.EncodingBase.check_column": _nothing,
        },
        "values not checked",
    ),
    _trial("another tokenizer of as many tokens", another_tokenizer, PLAN, PLAN_WHAT),
)
