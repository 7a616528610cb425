"""Recipes with `encoding: topk`, through the stages: language models, and classifiers of large label spaces."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml

from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.models.causal_lm import CausalLM
from softlabels.recipes.tokenizer import TokenizerConfig, ensure_tokenizer
from softlabels.store import Store, open_store, store_splits
from softlabels.store.basis import resumable_basis
from softlabels.store.verify import verify
from softlabels.teacher import pilot
from softlabels.teacher.config import LabelsConfig
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels.transfer.alignment import alignment
from softlabels_stages import evaluate, teacher_logits, train_teacher
from softlabels_stages import verify as verify_stage
from softlabels_stages.recipe import load
from softlabels_stages.schema import typed
from tests.stages import lm, toy
from tests.stages.kills import digests, survives_kills

WORDS = ["--config=recipe.yaml", "store"]


@pytest.fixture(autouse=True)
def texts(work: Path) -> Path:
    """The texts of the language-model recipe."""
    transformers.utils.logging.disable_progress_bar()
    return lm.write_texts(work / "texts")


def ready(**changes: Any) -> dict[str, Any]:
    """The recipe in recipe.yaml, with a tokenizer that is trained and a teacher of random weights."""
    made = lm.write_recipe(Path("recipe.yaml"), **changes)
    ensure_tokenizer(TokenizerConfig(**made["tokenizer"]), rows_of(made))
    torch.manual_seed(0)
    member = made["teacher"]["members"][0]
    save_weights(build_model(ModelConfig(member["class_path"], member["init_args"])), Path(member["weights"]))
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is ready, and its store."""
    folder = tmp_path_factory.mktemp("written")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABELS_CACHE", str(folder / "cache"))
        lm.write_texts(Path("texts"))
        ready()
        assert teacher_logits.main(WORDS) == 0
    return folder


def rows_of(recipe: dict[str, Any]) -> TransferSetConfig:
    return typed(TransferSetConfig, recipe["transfer_set"], where="")


def write(recipe: dict[str, Any]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))


def live(recipe: dict[str, Any], split: str) -> tuple[Any, np.ndarray]:
    """The alignment of a split, and transformers' own logits (R, P, V) of its rows, without anything of the stage."""
    rows = load_transfer_set(rows_of(recipe), split)
    member = recipe["teacher"]["members"][0]
    model = build_model(ModelConfig(member["class_path"], member["init_args"], member["weights"])).eval()
    assert isinstance(model, CausalLM)
    tokens = torch.from_numpy(np.array(rows.inputs)).long()
    with torch.no_grad():
        logits = model.network(input_ids=tokens[:, 0], attention_mask=(tokens[:, 1] > 0).long()).logits[:, :-1]
    return alignment(rows.inputs), logits.numpy()


@pytest.mark.parametrize("layout", [pytest.param("zarr", marks=pytest.mark.slow), "arrow"])
def test_a_language_model_is_labelled_at_every_position(
    layout: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ready(labels={"encoding": "topk", "k": 8, "rank": 16, "rows_per_shard": 64, "layout": layout})
    recipe["transfer_set"]["source"] = str(work / "texts")
    write(recipe)
    assert teacher_logits.main(WORDS) == 0
    for name in ("plan.json", "manifest.json", "README.md"):  # where the texts lay is nobody's business
        assert str(work) not in Path("store/train", name).read_text()
    out = capsys.readouterr().out
    assert re.search(r"pilot: [\d,]+ rows \([\d,]+ positions\) of train, for the shape of the tails", out)
    assert re.search(
        r"train: \d+ rows, .*\n\d+\.\d bytes a position; KL\(exact \|\| stored\) in nats:\nT +mean KL", out
    )
    assert [line.split()[0] for line in out.splitlines() if re.match(r"[\d.]+ +\d\.\d\de", line)] == ["1", "2", "4"] * 2
    for split, path in store_splits("store").items():
        store = open_store(path)
        assert verify(path) == []
        found, logits = live(recipe, split)
        assert store.classes < logits.shape[2]  # outputs beyond the tokenizer's tokens are padding
        z = logits[..., : store.classes].astype(np.float64)
        z -= z.max(axis=-1, keepdims=True)
        counts = found.mask.astype(bool)
        np.testing.assert_array_equal(store.column("position_mask"), found.mask)
        ids = np.asarray(store.column("top_class"))[:, :, 0]
        stored = np.asarray(store.column("top_logit"))[:, :, 0].astype(float)
        assert np.abs(np.take_along_axis(z, ids.astype(np.int64), -1) - stored)[counts].max() < 2e-3
        own = np.take_along_axis(z, found.next_token[..., None].clip(0), -1)[..., 0]
        assert np.abs(store.column("label_logit")[..., 0].astype(float) - own)[counts].max() < 4e-3
        exact = np.log(np.exp(z / 2).sum(-1, keepdims=True))
        given = store.log_probs(range(store.rows), temperature=2.0)
        assert np.abs(np.exp(given) - np.exp(z / 2 - exact))[counts].max() < 2e-3
    assert store.spec.label_space.vocabulary == load_transfer_set(rows_of(recipe), "train").sequence.vocabulary  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["zarr", pytest.param("arrow", marks=pytest.mark.slow)])
def test_kills_of_a_language_model_lose_nothing(layout: str, work: Path) -> None:
    """At random moments, the pilot's among them."""
    made = ready()
    write(made | {"labels": made["labels"] | {"layout": layout}})
    assert teacher_logits.main([*WORDS[:1], "unbroken"]) == 0
    survives_kills(WORDS, "unbroken", kills=8, finish=lambda: teacher_logits.main(WORDS))


def test_going_on_never_finds_a_basis_anew(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = ready()
    assert teacher_logits.main(WORDS) == 0
    whole = digests("store")
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with monkeypatch.context() as patch:
        patch.setattr(teacher_logits, "should_stop", soon)
        assert teacher_logits.main(["--config=recipe.yaml", "other"]) == 75
    assert any(Path("other/train/commits").iterdir())
    assert not Path("other/test/commits").exists()

    def never(*_: Any) -> Any:
        raise AssertionError("the basis was found anew")

    with monkeypatch.context() as patch:
        patch.setattr("softlabels.jobs.stores.find_basis", never)
        assert teacher_logits.main(["--config=recipe.yaml", "other"]) == 0
        assert teacher_logits.main(["--config=recipe.yaml", "other"]) == 0  # sealed
        write(recipe | {"labels": recipe["labels"] | {"rank": 5}})
        assert teacher_logits.main(["--config=recipe.yaml", "other"]) == 2  # refused before the pilot is run
    assert digests("other") == whole
    one, two = (resumable_basis(f"other/{split}") for split in ("train", "test"))
    assert one is not None
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 5}, "(labels.rank: 12 here, 5 in this run)"),
        pytest.param({"fine": 5}, "labels.fine: 4 here, 5 in this run", marks=pytest.mark.slow),
        pytest.param({"k": 9}, "labels.k: 8 here, 9 in this run", marks=pytest.mark.slow),
        ({"tail": "uniform"}, 'labels.tail: "lowrank" here, "uniform" in this run'),
        pytest.param(
            {"min_temperature": 0.5}, "labels.min_temperature: 1.0 here, 0.5 in this run", marks=pytest.mark.slow
        ),
        ({"encoding": "dense"}, '(labels.encoding, kind: "topk" here, "dense" in this run'),
    ],
)
def test_another_encoding_is_refused_field_by_field(
    change: dict[str, Any], message: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = lm.again(written)
    before = digests("store")
    recipe["labels"] |= change
    write(recipe)
    assert teacher_logits.main(WORDS) == 2
    assert message in capsys.readouterr().err
    assert digests("store") == before


def test_rows_cut_otherwise_are_another_specification(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = lm.again(written)
    for change, message in (
        ({"length": 12}, "transfer_set.sequences.length: 16 here, 12 in this run; transfer_set"),
        ({"pack": False}, "(transfer_set.sequences.pack: true here, false in this run;"),
    ):
        recipe["transfer_set"]["sequences"] = {"tokenizer": "own/tokenizer", "length": 16, **change}
        write(recipe)
        assert teacher_logits.main(WORDS) == 2
        assert message in capsys.readouterr().err


def test_rows_that_are_not_packed_are_ragged_in_arrow(work: Path) -> None:
    recipe = ready(labels={"encoding": "topk", "k": 4, "rank": 4, "rows_per_shard": 64, "layout": "arrow"})
    recipe["transfer_set"]["sequences"]["pack"] = False
    write(recipe)
    assert teacher_logits.main(WORDS) == 0
    store = open_store("store", split="test")
    assert store.spec.ragged
    rows = load_transfer_set(rows_of(recipe), "test")
    np.testing.assert_array_equal(store.column("position_mask"), alignment(rows.inputs).mask)
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml"]) == 0


def test_another_teacher_is_noticed_by_verify(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = lm.again(written)
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml", "--teacher_rows=40"]) == 0
    assert "of the tail's mass" in capsys.readouterr().out
    torch.manual_seed(1)
    member = recipe["teacher"]["members"][0]
    save_weights(build_model(ModelConfig(member["class_path"], member["init_args"])), Path(member["weights"]))
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml"]) == 2
    assert "are not those that made the store" in capsys.readouterr().err


def test_a_teacher_of_another_vocabulary_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ready()
    torch.manual_seed(0)
    CausalLM(config=lm.NET).network.save_pretrained("given")
    other = {**recipe["transfer_set"], "sequences": {"tokenizer": "given-tokenizer", "length": 16}}
    ensure_tokenizer(TokenizerConfig(kind="bpe", vocab_size=290), typed(TransferSetConfig, other, where=""))
    for file in Path("given-tokenizer").iterdir():
        file.rename(Path("given") / file.name)
    recipe["teacher"]["members"] = [{"class_path": lm.CLASS, "init_args": {"model": "given"}}]
    write(recipe)
    assert teacher_logits.main(WORDS) == 2
    assert "OtherTokenizer: member 0 (softlabels.models.CausalLM) has a tokenizer of another" in capsys.readouterr().err
    assert not Path("store/train/plan.json").exists()
    recipe["transfer_set"]["sequences"]["tokenizer"] = "given"  # its own
    write(recipe)
    assert teacher_logits.main(WORDS) == 0


@pytest.mark.parametrize("classes", [70_000, 140_000])
def test_a_large_label_space(classes: int, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class ids beyond 65,535 and 131,071 are what the teacher said."""
    names = ["teacher.safetensors"]
    member = {"class_path": "softlabels.models.MLP", "init_args": {"inputs": 6, "hidden": [4], "classes": classes}}
    torch.manual_seed(0)
    model = build_model(ModelConfig(member["class_path"], member["init_args"])).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor *= 3
    save_weights(model, Path(names[0]))
    transfer_set = {**toy.recipe()["transfer_set"], "splits": {"validation": "validation"}}
    del transfer_set["classes"]
    labels = {"encoding": "topk", "k": 16, "rank": 5, "rows_per_shard": 32, "rows_per_chunk": 16}
    teacher = {"members": [{**member, "weights": names[0]}], "batch_size": 16, "device": "cpu"}
    toy.write_recipe(Path("recipe.yaml"), transfer_set=transfer_set, labels=labels, teacher=teacher)
    assert teacher_logits.main(WORDS) == 0
    store = open_store("store", split="validation")
    rows = load_transfer_set(typed(TransferSetConfig, transfer_set, where=""), "validation")
    with torch.no_grad():
        z = model(torch.from_numpy(np.array(rows.inputs))).double()
    z -= z.amax(-1, keepdim=True)
    top = z.topk(16)
    given = stored_ids(store)
    assert (np.sort(given, -1) == np.sort(top.indices.numpy(), -1)).mean() > 0.99  # ties in float16 aside
    assert given.max() > (131_071 if classes > 131_072 else 65_535)
    exact = torch.log_softmax(z / 2, -1).numpy()
    assert np.abs(np.exp(store.log_probs(range(store.rows), temperature=2.0)) - np.exp(exact)).max() < 1e-3
    own = np.take_along_axis(z.numpy(), np.asarray(rows.labels)[:, None], -1)
    assert np.abs(store.column("label_logit").astype(float) - own).max() < np.abs(own).max() * 2**-10
    assert verify_stage.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert "bytes a position" in capsys.readouterr().out


def stored_ids(store: Store) -> np.ndarray:
    """Ids (R, K), put together from their low 16 bits and the counts below each multiple of 65,536."""
    low = np.asarray(store.column("top_class"))[:, 0].astype(np.int64)
    below = np.asarray(store.column("top_page"))[:, 0].astype(np.int64)
    return low + 65_536 * (np.arange(low.shape[1])[None, :, None] >= below[:, None]).sum(-1)


def test_the_pilot_is_not_run_for_tails_without_a_basis(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(labels={"encoding": "topk", "k": 4, "tail": "bucket", "rows_per_shard": 64})
    monkeypatch.setattr(pilot, "pilot_rows", lambda rows: 1 / 0)
    assert teacher_logits.main(WORDS) == 0
    assert not Path("store/train/tail_basis").exists()


def test_teacher_and_tokenizer_are_trained_from_the_texts(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm.write_recipe(Path("recipe.yaml"))
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer: trained on the training rows, own/tokenizer" in out
    found = re.search(r"own/0.safetensors, (\d\.\d+) nats a token on the validation rows \(perplexity", out)
    assert found is not None
    assert float(found[1]) < 1.5  # log 300 is 5.7: what follows is mostly said
    assert json.loads(Path("own/tokenizer/tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert "teacher 0: own/0.safetensors exists and is kept" in capsys.readouterr().out


def test_the_language_model_recipe_is_what_it_says() -> None:
    recipe = load("lm")
    teacher, student = recipe["teacher"]["members"][0]["init_args"]["config"], recipe["student"]["init_args"]["config"]
    sizes = [sum(t.numel() for t in CausalLM(config=config).parameters()) for config in (teacher, student)]
    assert 9 * sizes[1] <= sizes[0] < 15e6
    assert teacher["n_embd"] >= 512
    rows = typed(TransferSetConfig, recipe["transfer_set"], where="lm")
    assert rows.splits == {"train": "validation", "test": "test"}
    assert rows.sequences is not None
    assert (
        rows.sequences.length == teacher["n_positions"] == student["n_positions"] == recipe["tokenizer"]["max_length"]
    )
    assert teacher["vocab_size"] == student["vocab_size"] == recipe["tokenizer"]["vocab_size"]
    assert typed(LabelsConfig, recipe["labels"], where="lm").encodings(1)[""].reduce == "none"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"k": 0}, "k is 0"),
        ({"rank": 0}, "'lowrank' cannot have rank 0"),
        ({"rank": -1}, "rank is -1"),
        ({"nodes": 1}, "nodes is 1"),
        ({"min_temperature": 0}, "min_temperature is 0"),
        ({"min_temperature": 2}, "min_temperature is 2"),
        ({"nodes": 33}, "nodes is 33"),
        ({"tail": "bukket"}, "labels.tail is 'bukket'"),
        ({"k": 70_000}, "k is 70000"),
        ({"k": 6_000}, "k is 6000, and there are"),
        ({"rank": 400}, "cannot give a basis of rank 400"),
    ],
)
def test_settings_that_make_no_sense(
    labels: dict[str, Any], words: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(labels={"encoding": "topk", "rank": 4, **labels})
    assert teacher_logits.main(WORDS) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("inputs", ["reference", "embed"])
def test_the_stored_teacher_is_judged_without_the_transfer_set(
    inputs: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the store holds the tokens, by them as well."""
    ready(labels={"encoding": "topk", "k": 4, "rank": 4, "inputs": inputs})
    assert teacher_logits.main(WORDS) == 0
    capsys.readouterr()
    assert evaluate.main(["--store=store", "--config=recipe.yaml", "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["agreement"] == 1
    assert ("nll" in said) == (inputs == "embed")
    told = (
        ""
        if "nll" in said
        else "store/test holds no tokens (inputs: reference): without the next token there are no errors"
    )
    assert captured.err.startswith(told)
    assert bool(captured.err) == bool(told)
