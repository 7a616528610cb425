"""From live teacher to judged student through sparse stores: the KL that train-student reports is that of the live models.

Commands alone cross everything on the way (teacher-logits, encode, convert; train-student with learning rate 0): a label off
by a row, a position or a class anywhere, or a mass at the wrong temperature, is another KL. The expected numbers are computed
here, from the models' own outputs.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from softlabels.errors import MeanUnavailable
from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.recipes.tokenizer import TokenizerConfig, ensure_tokenizer
from softlabels.store import open_store
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels_stages import convert, correct, encode, teacher_logits, train_student, verify
from softlabels_stages.schema import typed
from tests.stages import lm, toy

STILL = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
TEMPERATURE = 3.0
TRAINING = {
    "epochs": 1, "batch_size": 16, "seeds": [0], "temperature": TEMPERATURE, "baseline": False, "threads": 1, "device": "cpu",
    "optimizer": STILL,
}  # fmt: skip


def softmax(z: np.ndarray, temperature: float) -> np.ndarray:
    z = z.astype(np.float64) / temperature
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Mean KL(p || q) of probabilities (N, C), some of p 0."""
    return float((p * np.log(np.where(p > 0, p / q, 1.0))).sum(axis=-1).mean())


def sharpened(config: ModelConfig, path: str, seed: int, by: float) -> None:
    """Random weights that have opinions."""
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(by)
    Path(path).parent.mkdir(exist_ok=True)
    save_weights(model, Path(path))


def reported(store: str = "store") -> dict[str, Any]:
    """The student's scores on the held-out split."""
    assert train_student.main(["--config=recipe.yaml", store, "--out=out"]) == 0
    found = json.loads(Path("out/results.json").read_text())
    scores: dict[str, Any] = found["students"][0]["scores"][0]
    return scores | {"teacher": found["teacher"]["ensemble"][0]}


def assert_is(scores: dict[str, Any], teacher: np.ndarray, student: np.ndarray, labels: np.ndarray, off: float) -> None:
    """Scores of `student` logits (N, C) against the arithmetic mean of the teacher's (N, M, C), both live."""
    assert (scores["rows"], scores["labelled"]) == (len(teacher), (labels >= 0).sum())
    for temperature in (1.0, TEMPERATURE):
        expected = kl(softmax(teacher, temperature).mean(axis=1), softmax(student, temperature))
        assert expected > 0.2
        assert scores["kl"][f"{temperature:g}"] == pytest.approx(expected, abs=off)
    given = labels >= 0
    own = softmax(student, 1.0)[given, labels[given]]
    assert scores["nll"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    wrong = softmax(teacher, 1.0).mean(axis=1).argmax(axis=-1) != labels
    assert scores["teacher"]["errors"] == pytest.approx(wrong[given].sum(), abs=1)


# Sequences.


def language_models(**changes: Any) -> dict[str, Any]:
    """A recipe with a teacher of 320 outputs and a student of 310, over fewer tokens: both are padded, not alike."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    lm.write_texts(Path("texts"))
    made = lm.recipe(training=TRAINING, **changes)
    made["student"]["weights"] = "own/student.safetensors"
    lm.write_recipe(Path("recipe.yaml"), **made)
    ensure_tokenizer(TokenizerConfig(**made["tokenizer"]), typed(TransferSetConfig, made["transfer_set"], where=""))
    member = made["teacher"]["members"][0]
    sharpened(ModelConfig(member["class_path"], member["init_args"]), member["weights"], 0, 8.0)
    student = made["student"]
    sharpened(ModelConfig(student["class_path"], student["init_args"]), student["weights"], 1, 8.0)
    return made


def live(recipe: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the test split's tokens that follow one of their own document: logits of teacher (N, 1, C) and student (N, C), token.

    Rows are walked token by token; logits are transformers' own.
    """
    rows = load_transfer_set(typed(TransferSetConfig, recipe["transfer_set"], where=""), "test")
    outputs = []
    for config in (recipe["teacher"]["members"][0], recipe["student"]):
        model: Any = build_model(ModelConfig(config["class_path"], config["init_args"], config["weights"])).eval()
        tokens = torch.from_numpy(np.array(rows.inputs)).long()
        with torch.no_grad():
            found = model.network(input_ids=tokens[:, 0], attention_mask=(tokens[:, 1] > 0).long()).logits
        outputs.append(found.numpy())
    assert rows.sequence is not None
    classes = rows.sequence.classes
    teacher, student, labels = [], [], []
    for row, (tokens, documents) in enumerate(np.array(rows.inputs)):
        for place in range(1, len(tokens)):
            if documents[place] > 0 and documents[place] == documents[place - 1]:
                teacher.append(outputs[0][row, place - 1, None, :classes])
                student.append(outputs[1][row, place - 1, :classes])
                labels.append(tokens[place])
    return np.array(teacher), np.array(student), np.array(labels)


LABELS = {"encoding": "topk", "k": 8, "rank": 16, "rows_per_shard": 64, "rows_per_chunk": 16}


@pytest.mark.parametrize(
    ("labels", "pack"),
    [
        pytest.param({"layout": "zarr"}, True, marks=pytest.mark.slow),
        pytest.param({"layout": "arrow"}, True, marks=pytest.mark.slow),
        ({"layout": "arrow"}, False),  # ragged
        pytest.param({"layout": "zarr", "compression": "zstd", "inputs": "embed"}, False, marks=pytest.mark.slow),
        pytest.param({"k": 296, "tail": "uniform"}, True, marks=pytest.mark.slow),  # k = C
    ],
    ids=str,
)
def test_language_models(work: Path, labels: dict[str, Any], pack: bool) -> None:
    recipe = language_models(labels=LABELS | labels)
    recipe["transfer_set"]["sequences"]["pack"] = pack
    lm.write_recipe(Path("recipe.yaml"), **recipe)
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    assert_is(reported(), *live(recipe), off=5e-3)


@pytest.mark.parametrize("layout", [pytest.param("zarr", marks=pytest.mark.slow), "arrow"])
def test_language_models_by_way_of_a_dense_store_and_the_other_layout(work: Path, layout: str) -> None:
    recipe = language_models(labels={"rows_per_shard": 64, "rows_per_chunk": 16, "layout": layout})
    assert teacher_logits.main(["--config=recipe.yaml", "dense"]) == 0
    assert encode.main(["--from=dense", "--store=store", "--k=8", "--rank=16"]) == 0
    assert convert.main(["store", "converted"]) == 0
    assert verify.main(["converted"]) == 0
    assert_is(reported("converted"), *live(recipe), off=5e-3)


@pytest.mark.parametrize(
    ("layout", "loss"), [("zarr", "forward_kl"), pytest.param("arrow", "js", marks=pytest.mark.slow)]
)
def test_a_teacher_has_nothing_to_learn_from_its_own_labels(work: Path, layout: str, loss: str) -> None:
    """The loss that is trained, by way of the fused product, is 0 of the teacher itself and not of another model."""
    recipe = language_models(labels=LABELS | {"layout": layout})
    recipe["transfer_set"]["sequences"]["pack"] = layout == "zarr"
    recipe["training"] = TRAINING | {"alpha": 1.0, "loss": loss}
    lm.write_recipe(Path("recipe.yaml"), **recipe)
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    found = {}
    for name, student in (("other", recipe["student"]), ("own", recipe["teacher"]["members"][0])):
        lm.write_recipe(Path("recipe.yaml"), **recipe | {"student": student})
        assert train_student.main(["--config=recipe.yaml", "store", f"--out=run-{name}"]) == 0
        first = json.loads(Path(f"run-{name}", "distilled-seed0/metrics.jsonl").read_text().splitlines()[0])
        found[name] = first["train_loss"], first["validation_loss"]
    assert max(found["own"]) < 1e-2 < 1 < min(found["other"])


def other_tokenizer(recipe: dict[str, Any]) -> None:
    other = {**recipe["transfer_set"], "sequences": {"tokenizer": "other/tokenizer", "length": 16}}
    ensure_tokenizer(TokenizerConfig(kind="bpe", vocab_size=290), typed(TransferSetConfig, other, where=""))
    recipe["transfer_set"] = other


def shifted_vocabulary(recipe: dict[str, Any]) -> None:
    """The same tokens; two of them have changed places."""
    shutil.copytree("own/tokenizer", "own/shifted")
    file = Path("own/shifted/tokenizer.json")
    found = json.loads(file.read_text())
    vocabulary = found["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    file.write_text(json.dumps(found))
    recipe["transfer_set"]["sequences"]["tokenizer"] = "own/shifted"


def another_length(recipe: dict[str, Any]) -> None:
    recipe["transfer_set"]["sequences"]["length"] = 12


def low_temperature(recipe: dict[str, Any]) -> None:
    recipe["training"] = TRAINING | {"temperature": "linear:4:0.5"}


def loss_of_all_logits(recipe: dict[str, Any]) -> None:
    recipe["training"] = TRAINING | {"loss": "logit_mse"}


def too_few_outputs(recipe: dict[str, Any]) -> None:
    recipe["student"]["init_args"]["config"]["vocab_size"] = 280
    del recipe["student"]["weights"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with language models, their recipe and their store."""
    folder = tmp_path_factory.mktemp("stored")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABELS_CACHE", str(folder / "cache"))
        language_models(labels=LABELS)
        assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_tokenizer, "OtherTokenizer: the tokenizer of texts has .* tokens with the vocabulary digest"),
        pytest.param(
            shifted_vocabulary,
            "OtherTokenizer: the tokenizer of texts has .* tokens with the vocabulary digest",
            marks=pytest.mark.slow,
        ),
        (another_length, "AlignmentError: rows of texts have 11 positions, those of store/test 15"),
        (low_temperature, r"ConfigError: .* at temperatures from 1 up, not .*0\.5"),
        (loss_of_all_logits, "ConfigError: the loss logit_mse is not available for labels with encoding topk"),
        (too_few_outputs, r"token ids from \d+ to \d+ and GPT2LMHeadModel embeddings for 280"),
    ],
)
def test_what_does_not_fit_the_store_is_not_trained_on(
    change: Callable[[dict[str, Any]], None], message: str, work: Path, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = lm.again(stored)
    change(recipe)
    lm.write_recipe(Path("recipe.yaml"), **recipe)
    assert train_student.main(["--config=recipe.yaml", "store", "--out=out"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("out").exists()


def test_rows_of_tokens_have_no_shares_of_classes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm.write_recipe(Path("recipe.yaml"), **language_models(labels=LABELS))
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    Path("out").mkdir()
    shutil.copy("recipe.yaml", "out/config.yaml")
    assert correct.main(["out", "--store=store"]) == 2
    assert "ConfigError: store labels rows of tokens" in capsys.readouterr().err


# One distribution a row.


class Opinionated(torch.nn.Module):
    """Logits of rank 6; to half of the rows every third class is `impossible`, or all but one where it is `certain`."""

    def __init__(self, classes: int, sharp: float = 1.0, impossible: bool = False, certain: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, classes)
        self.sharp, self.impossible, self.certain = sharp, impossible, certain

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs) * self.sharp
        number = torch.arange(logits.shape[1])
        if self.impossible:
            logits = logits.masked_fill((inputs[:, :1] > 0) & (number % 3 == 1), -torch.inf)
        if self.certain:
            logits = logits.masked_fill((inputs[:, :1] > 0) & (number != logits.argmax(1, keepdim=True)), -torch.inf)
        return logits


def points(split: str, classes: int) -> dict[str, np.ndarray]:
    """The factory of the transfer set: some rows have no label, some the last class."""
    rng = np.random.default_rng(len(split))
    labels = rng.integers(-1, classes, 50)
    labels[:5] = classes - 1
    return {"x": rng.normal(size=(50, 6)).astype(np.float32), "label": labels}


def classifiers(teacher: dict[str, Any], labels: dict[str, Any], members: int = 1) -> dict[str, Any]:
    """A recipe of these labels, with weights for teacher and student."""
    classes = teacher["classes"]
    made = toy.recipe(
        labels={"encoding": "topk", "rows_per_shard": 32, "rows_per_chunk": 16, **labels}, training=TRAINING
    )
    made["transfer_set"] |= {
        "factory": {"class_path": f"{__name__}.points", "init_args": {"classes": classes}},
        "splits": {split: split for split in ("train", "test")},
    }
    del made["transfer_set"]["classes"]
    parts = [
        {"class_path": f"{__name__}.Opinionated", "init_args": teacher, "weights": f"own/{m}.safetensors"}
        for m in range(members)
    ]
    made["teacher"] = {"members": parts, "batch_size": 16, "device": "cpu"}
    made["student"] = {**parts[0], "init_args": {"classes": classes}, "weights": "own/student.safetensors"}
    for seed, part in enumerate([*parts, made["student"]]):
        sharpened(ModelConfig(part["class_path"], part["init_args"]), part["weights"], seed, 6.0)
    lm.write_recipe(Path("recipe.yaml"), **made)
    return made


def outputs(recipe: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The test split's logits of the teacher's members (N, M, C), of the student (N, C), and labels."""
    data = points("test", recipe["student"]["init_args"]["classes"])
    parts = [*recipe["teacher"]["members"], recipe["student"]]
    models = [build_model(ModelConfig(part["class_path"], part["init_args"], part["weights"])).eval() for part in parts]
    with torch.no_grad():
        *members, student = (model(torch.from_numpy(data["x"])).numpy() for model in models)
    return np.stack(members, axis=1), student, data["label"]


ZARR, ARROW = {"layout": "zarr"}, {"layout": "arrow"}
SMALL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"classes": 2}, {"k": 1, "tail": "bucket"}),
    ({"classes": 2}, {"k": 1, "tail": "lowrank", "rank": 1}),
    ({"classes": 2}, {"k": 2, "tail": "renormalised"}),
    ({"classes": 5, "impossible": True}, {"k": 5, "tail": "uniform"}),
    ({"classes": 5, "impossible": True}, {"k": 5, "tail": "lowrank", "rank": 2}),
    ({"classes": 5, "certain": True}, {"k": 1, "tail": "lowrank", "rank": 4}),
    ({"classes": 40, "sharp": 50.0}, {"k": 4, "tail": "lowrank", "rank": 7}),  # one class has all the mass at T = 1
]
LARGE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"classes": 70_000}, {"k": 16, "tail": "lowrank", "rank": 7, "inputs": "embed", **ZARR}),
    ({"classes": 140_000}, {"k": 260, "tail": "lowrank", "rank": 7, **ARROW}),
]
CLASSIFIERS = [
    *((t, each | (ARROW if number % 2 else ZARR)) for number, (t, each) in enumerate(SMALL)),
    *(
        pytest.param(t, each | (ZARR if number % 2 else ARROW), marks=pytest.mark.slow)
        for number, (t, each) in enumerate(SMALL)
    ),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in LARGE),
]


@pytest.mark.parametrize(("teacher", "labels"), CLASSIFIERS, ids=str)
def test_classifiers(work: Path, teacher: dict[str, Any], labels: dict[str, Any]) -> None:
    recipe = classifiers(teacher, labels)
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    assert_is(reported(), *outputs(recipe), off=5e-3)


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
def test_an_ensemble_of_classifiers_by_way_of_a_dense_store(work: Path, layout: str) -> None:
    recipe = classifiers({"classes": 40}, {"encoding": "dense", "layout": layout}, members=3)
    assert teacher_logits.main(["--config=recipe.yaml", "dense"]) == 0
    assert encode.main(["--from=dense", "--store=store", "--k=4", "--rank=21"]) == 0
    assert_is(reported(), *outputs(recipe), off=5e-3)


def test_more_stored_classes_than_there_are_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifiers({"classes": 5}, {"k": 6, "tail": "uniform"})
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 2
    assert "k is 6, and there are 5 classes" in capsys.readouterr().err


def test_no_geometric_mean_of_renormalised_members(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = classifiers({"classes": 5}, {"k": 2, "tail": "renormalised"}, members=2)
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    lm.write_recipe(Path("recipe.yaml"), **recipe | {"training": TRAINING | {"mean": "geometric"}})
    assert train_student.main(["--config=recipe.yaml", "store", "--out=out"]) == 2
    assert "MeanUnavailable: the geometric mean of 2 members needs" in capsys.readouterr().err
    assert not Path("out").exists()
    store = open_store("store", split="train")
    with pytest.raises(MeanUnavailable, match="the geometric mean of 2 members needs"):
        store.log_probs([0], temperature=2.0, mean="geometric")
    one = store.log_probs([0], temperature=2.0, mean="geometric", weights=[1, 0])  # only the first member counts
    assert np.array_equal(one, store.log_probs([0], temperature=2.0, weights=[1, 0]))


def test_a_geometric_mean_of_renormalised_members_that_keep_every_class(work: Path) -> None:
    recipe = classifiers({"classes": 5}, {"k": 5, "tail": "renormalised"}, members=2)
    assert teacher_logits.main(["--config=recipe.yaml", "store"]) == 0
    lm.write_recipe(Path("recipe.yaml"), **recipe | {"training": TRAINING | {"mean": "geometric"}})
    assert train_student.main(["--config=recipe.yaml", "store", "--out=out"]) == 0
    p = np.exp(open_store("store", split="train").log_probs([0], temperature=2.0, mean="geometric"))
    assert p.sum() == pytest.approx(1)
