"""Texts as tokens: what the tokenizer itself says, prepared again when its files change and not when they move."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from softlabels.errors import ConfigError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.recipes.tokenizer import SPECIAL, TokenizerConfig, ensure_tokenizer
from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set
from softlabels.transfer.file_arguments import file_digest, recorded
from softlabels.transfer.pretrained import is_hub_id, pretrained_folder
from softlabels.transfer.text import load_tokenizer, tokenize
from tests.models.hf_samples import sentences, texts_config, train_tokenizer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def tokenizer(tmp_path: Path, rng: np.random.Generator) -> Path:
    return train_tokenizer(tmp_path / "tokenizer", rng)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    file = tmp_path / "things.parquet"
    datasets.Dataset.from_dict(sentences(rng, 50)).to_parquet(file)
    return file


def with_token_types(tokenizer: Path) -> Path:
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def test_a_missing_text_is_an_empty_one(tokenizer: Path) -> None:
    for given, meant in ((["abc", None], ["abc", ""]), ([("abc", None), (None, "d")], [("abc", ""), ("", "d")])):
        found = tokenize(given, tokenizer=str(tokenizer))  # type: ignore[arg-type]  # as rows of one column or two
        np.testing.assert_array_equal(found, tokenize(meant, tokenizer=str(tokenizer)))  # type: ignore[arg-type]


def test_rows_are_what_the_tokenizer_says(tokenizer: Path, rng: np.random.Generator) -> None:
    texts = sentences(rng, 30)["text"]
    tokens = tokenize(texts, tokenizer=str(tokenizer), max_length=12)
    assert tokens.shape == (30, 2, 12)
    assert tokens.dtype == np.int32
    own = load_tokenizer(str(tokenizer))
    for text, (ids, mask) in zip(texts, tokens, strict=True):
        expected = own(text, truncation=True, max_length=12)["input_ids"]
        assert ids[mask == 1].tolist() == expected
        assert mask.tolist() == [1] * len(expected) + [0] * (12 - len(expected))
        assert own.convert_ids_to_tokens(expected[:1] + expected[-1:]) == ["[CLS]", "[SEP]"]
    assert any(mask.all() for _, mask in tokens)
    assert tokenize(texts[:2], tokenizer=str(tokenizer)).shape == (2, 2, 32)  # its own limit


def test_two_columns_are_a_pair_and_types_stand_in_the_middle(tokenizer: Path) -> None:
    pairs = [("Wing water", "grey"), ("stone", "sea sea sea")]
    ids, types, mask = tokenize(pairs, tokenizer=str(with_token_types(tokenizer)), max_length=16)[1]
    own = load_tokenizer(str(tokenizer))
    assert ids[mask == 1].tolist() == own("stone", "sea sea sea")["input_ids"]
    second = own.convert_ids_to_tokens(ids[(types == 1) & (mask == 1)].tolist())
    assert second == [*own.tokenize("sea sea sea"), "[SEP]"]


@pytest.mark.parametrize(
    ("rows", "init_args", "error", "words"),
    [
        ([b"bytes"], {}, TransferSetError, "one or two columns of text"),
        ([("a", "b", "c")], {}, TransferSetError, "one or two columns of text"),
        (["wing"], {"max_length": 0}, ConfigError, "max_length is 0"),
        (["wing"], {"tokenizer": "./nowhere"}, ConfigError, r"no folder \./nowhere.*train-teacher"),
        (
            ["wing"],
            {"tokenizer": "no/such/folder"},
            ConfigError,
            r"no folder no/such/folder; .*copy the folder of the tokenizer",
        ),
        (["wing"], {"tokenizer": "nobody/nothing-of-this-name"}, ConfigError, "hub does not give it.*HF_HUB_OFFLINE"),
        (["wing"], {"tokenizer": "."}, ConfigError, "no tokenizer in .*train-teacher"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(
    rows: list[object], init_args: dict[str, object], error: type[Exception], words: str, tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(error, match=words) as caught:
        tokenize(rows, **{"tokenizer": str(tokenizer), **init_args})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_cannot_pad_or_knows_no_limit_is_refused(tokenizer: Path) -> None:
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    del settings["pad_token"], settings["model_max_length"]
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="knows no limit"):
        tokenize(["wing"], tokenizer=str(tokenizer))
    with pytest.raises(ConfigError, match="padding token"):
        tokenize(["wing"], tokenizer=str(tokenizer), max_length=8)


def test_an_empty_text_without_special_tokens_is_refused(tokenizer: Path) -> None:
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    (tokenizer / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    assert tokenize(["wing"], tokenizer=str(tokenizer), max_length=8)[0, 1].sum() >= 1
    with pytest.raises(TransferSetError, match="'' has no tokens"):
        tokenize(["wing", ""], tokenizer=str(tokenizer), max_length=8)


def load(tokenizer: Path, data: Path, **init_args: object) -> TransferRows:
    return load_transfer_set(texts_config(tokenizer, str(data), **init_args), "train")


def test_edited_files_of_a_tokenizer_make_other_inputs(tokenizer: Path, data: Path) -> None:
    before = load(tokenizer, data)
    assert load(tokenizer, data).inputs.filename == before.inputs.filename  # type: ignore[attr-defined]
    content = (tokenizer / "tokenizer.json").read_text()
    (tokenizer / "tokenizer.json").write_text(content.replace('"lowercase": true', '"lowercase": false'))
    unseen = load(tokenizer, data)
    assert unseen.inputs.filename != before.inputs.filename  # type: ignore[attr-defined]
    swapped = json.loads(content)
    vocabulary = swapped["model"]["vocab"]
    first, second = (
        np.argsort(np.bincount(before.inputs[:, 0].ravel())[5:])[-2:] + 5
    )  # the most frequent, less the special
    names = {number: token for token, number in vocabulary.items()}
    vocabulary[names[first]], vocabulary[names[second]] = int(second), int(first)
    (tokenizer / "tokenizer.json").write_text(json.dumps(swapped))
    after = load(tokenizer, data)
    where = np.isin(before.inputs[:, 0], (first, second))
    assert where.any()
    assert (after.inputs[:, 0][where] == first + second - before.inputs[:, 0][where]).all()
    np.testing.assert_array_equal(after.keys, before.keys)


def test_a_tokenizer_elsewhere_is_the_same_tokenizer(tokenizer: Path, data: Path, tmp_path: Path) -> None:
    here = load(tokenizer, data)
    (tmp_path / "far").mkdir()
    shutil.move(tokenizer, tmp_path / "far" / "away")
    (tmp_path / "far" / "away" / "README.md").write_text("says nothing of the tokens")
    there = load(tmp_path / "far" / "away", data)
    assert there.inputs.filename == here.inputs.filename  # type: ignore[attr-defined]
    assert there.prepare == here.prepare
    assert str(tmp_path) not in json.dumps(here.prepare.init_args)
    assert set(here.prepare.init_args) == {"tokenizer", "max_length"}


def test_the_class_that_a_models_config_names_counts(tokenizer: Path) -> None:
    spec = ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": str(tokenizer)})
    seen = [recorded(spec)]
    for config in (
        '{"model_type": "bert"}',
        '{"model_type": "gpt2", "n_embd": 3}',
        '{"model_type": "gpt2", "n_embd": 4}',
    ):
        (tokenizer / "config.json").write_text(config)
        seen.append(recorded(spec))
    digests = [each.init_args["tokenizer"] for each in seen]
    assert len(set(digests[:3])) == 3
    assert digests[2] == digests[3]


def test_a_users_function_names_its_files(functions: Path, data: Path, tmp_path: Path) -> None:
    functions.write_text(
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from softlabels.transfer.file_arguments import file_digest, reads_files\n"
        "def _digests(*, words, scale=1):\n    return {'words': file_digest(words)}\n"
        "@reads_files(_digests)\n"
        "def count(rows, *, words, scale=1):\n"
        "    known = set(Path(words).read_text().split())\n"
        "    return np.array([[scale * sum(word in known for word in row.split())] for row in rows])\n"
    )
    words = tmp_path / "words.txt"
    words.write_text("wing fin")
    prepare = ObjectSpec(f"{functions.stem}.count", {"words": str(words), "scale": 2})
    config = TransferSetConfig(source=str(data), inputs=("text",), prepare=prepare)
    before = load_transfer_set(config, "train")
    assert before.prepare.init_args == {"words": file_digest(words), "scale": 2}
    words.write_text("wing fin hard sky sea")
    after = load_transfer_set(config, "train")
    assert (after.inputs >= before.inputs).all()
    assert (after.inputs != before.inputs).any()
    words.unlink()
    with pytest.raises(TransferSetError, match=r"no file .*words\.txt"):
        load_transfer_set(config, "train")


SPLITS = """
def texts(split):
    if split != "train":
        raise RuntimeError("the test split was read")
    return {"a": ["Wing Feather", "sea stone"] * 20, "b": ["hard road"] * 40, "label": [0, 1] * 20}
"""


def test_a_tokenizer_is_trained_once_and_on_the_training_split_alone(functions: Path, tmp_path: Path) -> None:
    functions.write_text(SPLITS)
    config = TransferSetConfig(
        factory=ObjectSpec(f"{functions.stem}.texts"),
        inputs=("a", "b"),
        prepare=ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": str(tmp_path / "deep" / "tokens")}),
    )
    assert not ensure_tokenizer(None, config)
    assert ensure_tokenizer(TokenizerConfig(vocab_size=60), config)
    assert not ensure_tokenizer(TokenizerConfig(vocab_size=70), config)  # it is there
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tokens"]
    own = load_tokenizer(str(tmp_path / "deep" / "tokens"))
    assert own.convert_ids_to_tokens(range(5)) == list(SPECIAL)
    assert own.tokenize("WING sea hard") == ["wing", "sea", "hard"]  # of both columns, in small letters
    assert own.decode(own("sea stone")["input_ids"], skip_special_tokens=True) == "sea stone"


def test_a_tokenizer_of_no_texts_is_refused(functions: Path, tmp_path: Path) -> None:
    functions.write_text("def numbers(split):\n    return {'image': [1, 2, 3], 'label': [0, 1, 0]}\n")
    prepare = ObjectSpec("softlabels.transfer.tokenize", {"tokenizer": str(tmp_path / "tokens")})
    config = TransferSetConfig(factory=ObjectSpec(f"{functions.stem}.numbers"), prepare=prepare)
    with pytest.raises(TransferSetError, match="'image' is no text"):
        ensure_tokenizer(TokenizerConfig(), config)
    assert not (tmp_path / "tokens").exists()
    with pytest.raises(ConfigError, match="vocab_size is 5"):
        TokenizerConfig(vocab_size=5)


@pytest.mark.slow
def test_the_same_texts_give_the_same_tokenizer_in_every_process(data: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom softlabels.recipes.tokenizer import *\n"
        "from tests.models.hf_samples import texts_config\n"
        "ensure_tokenizer(TokenizerConfig(vocab_size=80), texts_config(Path(sys.argv[1]), sys.argv[2]))\n"
    )
    for name, threads in (("one", "1"), ("two", "2")):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name), str(data)],
            cwd=ROOT, check=True, env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
        )  # fmt: skip
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("name", "asked"),
    [("gpt2", True), ("owner/name", True), ("owner/name/more", False), ("my folder/name", False), ("./gone", False)],
)
def test_the_hub_is_asked_for_ids_and_not_for_paths(name: str, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: object, **__: object) -> None:
        raise OSError("it was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(ConfigError, match="it was asked" if asked else f"there is no folder {name};"):
        pretrained_folder(name, revision=None, patterns=("*",))
    assert is_hub_id(name) is asked
