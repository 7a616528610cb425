"""Rows of tokens: every token of every text, in order, once; keys over real tokens; and the cache that knows its tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from blake3 import blake3

from softlabels.errors import ConfigError, TransferSetError
from softlabels.objects import ObjectSpec
from softlabels.recipes.tokenizer import END_OF_TEXT, TokenizerConfig, ensure_tokenizer
from softlabels.transfer import TransferRows, TransferSetConfig, array_keys, load_transfer_set, sequences
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.text import load_tokenizer
from tests.models.hf_samples import sentences, train_tokenizer

ROOT = Path(__file__).parent.parent.parent
LENGTH = 12


@pytest.fixture
def texts(rng: np.random.Generator) -> list[str]:
    """Texts of 1 to 25 words, with empty ones between them, of letters that no training text has."""
    found = [f" {text}é\n" for text in sentences(rng, 60)["text"]]
    for place in (0, 7, 7, 30, 64):
        found.insert(place, "")
    return found


@pytest.fixture
def source(tmp_path: Path, texts: list[str]) -> Path:
    return write(tmp_path / "texts.parquet", texts)


def write(file: Path, texts: list[Any]) -> Path:
    datasets.Dataset.from_dict({"text": texts, "label": [0] * len(texts)}).to_parquet(file)
    return file


def config(source: Path, tokenizer: Path, **options: Any) -> TransferSetConfig:
    return TransferSetConfig(
        source=str(source),
        inputs=("text",),
        splits={"train": "train"},
        sequences=SequencesConfig(str(tokenizer), **({"length": LENGTH} | options)),
    )


@pytest.fixture
def tokenizer(tmp_path: Path, source: Path) -> Path:
    """A byte-level tokenizer of the texts."""
    folder = tmp_path / "tokenizer"
    assert ensure_tokenizer(TokenizerConfig(kind="bpe", vocab_size=300, max_length=64), config(source, folder))
    return folder


def expected_ids(tokenizer: Path, texts: list[str]) -> list[list[int]]:
    """The ids of each text that has any, with the separator."""
    own = load_tokenizer(str(tokenizer))
    return [[*own(text, add_special_tokens=False)["input_ids"], own.eos_token_id] for text in texts if text]


def real(rows: TransferRows) -> list[list[int]]:
    return [ids[documents > 0].tolist() for ids, documents in rows.inputs]


def test_packed_rows_are_the_stream_of_all_texts(source: Path, tokenizer: Path, texts: list[str]) -> None:
    rows = load_transfer_set(config(source, tokenizer), "train")
    stream = [(token, n) for n, ids in enumerate(expected_ids(tokenizer, texts)) for token in ids]
    assert rows.inputs.dtype == np.int32
    assert rows.inputs.shape == (-(-len(stream) // LENGTH), 2, LENGTH)
    assert [token for row in real(rows) for token in row] == [token for token, _ in stream]
    assert len(stream) % LENGTH == 0 or (rows.inputs[-1, 1] == 0).any()  # the last row is kept
    for number, (ids, documents) in enumerate(rows.inputs):
        part = stream[number * LENGTH : (number + 1) * LENGTH]
        wanted = [text - part[0][1] + 1 for _, text in part]
        assert documents.tolist() == wanted + [0] * (LENGTH - len(part))
        assert ids[len(part) :].tolist() == [0] * (LENGTH - len(part))
    assert (rows.labels == -1).all()
    assert len(rows.labels) == len(rows.inputs)
    assert rows.class_names is None


def test_without_packing_every_text_begins_a_row(source: Path, tokenizer: Path, texts: list[str]) -> None:
    rows = load_transfer_set(config(source, tokenizer, pack=False), "train")
    wanted = [ids[at : at + LENGTH] for ids in expected_ids(tokenizer, texts) for at in range(0, len(ids), LENGTH)]
    assert real(rows) == wanted
    assert any(len(row) < LENGTH for row in wanted)
    assert any(len(row) == LENGTH for row in wanted)
    assert set(np.unique(rows.inputs[:, 1])) == {0, 1}


@pytest.mark.parametrize("pack", [True, False])
def test_blocks_do_not_show(
    pack: bool, source: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = load_transfer_set(config(source, tokenizer, pack=pack), "train", cache=tmp_path / "one")
    monkeypatch.setattr(sequences, "_BLOCK_TOKENS", LENGTH * 3)
    monkeypatch.setattr("softlabels.transfer.fill.BLOCK_BYTES", 100)
    parts = load_transfer_set(config(source, tokenizer, pack=pack), "train", cache=tmp_path / "two")
    np.testing.assert_array_equal(parts.inputs, whole.inputs)
    np.testing.assert_array_equal(parts.keys, whole.keys)
    assert not list((tmp_path / "two").rglob("tokens"))  # the file of tokens is gone


def test_keys_are_over_the_real_tokens(source: Path, tokenizer: Path) -> None:
    rows = load_transfer_set(config(source, tokenizer, pack=False), "train")
    longer = load_transfer_set(config(source, tokenizer, pack=False, length=200), "train")
    for ids, key in zip(real(rows), rows.keys, strict=True):
        assert (array_keys(np.array([ids]))[0] == key).all()
    shared = {tuple(ids) for ids in real(rows)} & {tuple(ids) for ids in real(longer)}
    own, other = (
        {tuple(ids): bytes(key) for ids, key in zip(real(each), each.keys, strict=True)} for each in (rows, longer)
    )
    assert shared
    assert all(own[ids] == other[ids] for ids in shared)  # how far a row is padded says nothing of it


def test_what_it_says_of_itself(source: Path, tokenizer: Path) -> None:
    rows = load_transfer_set(config(source, tokenizer), "train")
    own = load_tokenizer(str(tokenizer))
    assert rows.sequence is not None
    assert (rows.sequence.length, rows.sequence.positions) == (LENGTH, LENGTH - 1)
    assert rows.sequence.classes == len(own) == 300
    words = json.dumps(own.get_vocab(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert rows.sequence.vocabulary == blake3(words.encode()).hexdigest()
    assert set(rows.prepare.init_args) == {"tokenizer", "length", "pack", "separator"}
    assert str(tokenizer.parent) not in repr(rows.prepare)


def test_every_setting_makes_rows_of_its_own(source: Path, tokenizer: Path) -> None:
    def name(**options: Any) -> str:
        return str(load_transfer_set(config(source, tokenizer, **options), "train").inputs.filename)  # type: ignore[attr-defined]

    settings: list[dict[str, Any]] = [{}, {"length": 13}, {"pack": False}, {"separator": "a"}]
    names = [name(**each) for each in settings]
    assert len(set(names)) == 4
    assert name(separator=END_OF_TEXT) == names[0]  # what the default is
    file = tokenizer / "tokenizer.json"
    file.write_text(file.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    assert name() not in names


def test_another_separator_ends_the_texts(source: Path, tokenizer: Path, texts: list[str]) -> None:
    rows = load_transfer_set(config(source, tokenizer, pack=False, length=500, separator="!"), "train")
    ends = {ids[-1] for ids in real(rows)}
    assert ends == {load_tokenizer(str(tokenizer)).convert_tokens_to_ids("!")}
    assert len(rows.inputs) == sum(bool(text) for text in texts)


def test_a_tokenizer_that_cannot_end_texts_is_refused(
    source: Path, tokenizer: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    with pytest.raises(ConfigError, match=r"no token '<end>' to end a text with.*separator"):
        load_transfer_set(config(source, tokenizer, separator="<end>"), "train")
    bert = train_tokenizer(tmp_path / "bert", rng)
    with pytest.raises(ConfigError, match="has no eos token"):
        load_transfer_set(config(source, bert), "train")
    rows = load_transfer_set(config(source, bert, separator="[SEP]"), "train")
    assert rows.sequence is not None
    ids, documents = rows.inputs[:, 0], rows.inputs[:, 1]
    assert (
        ids[:, 0] == 2
    ).all()  # [CLS]: this tokenizer's own beginning; of special tokens nothing but it and the separator
    assert not np.isin(ids[documents > 0], [0, 1, 4]).any()
    with pytest.raises(ConfigError, match=r"there is no tokenizer in|no folder"):
        load_transfer_set(config(source, tmp_path / "nowhere"), "train")


def test_texts_without_tokens_are_no_transfer_set(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(TransferSetError, match="the texts have no tokens"):
        load_transfer_set(config(write(tmp_path / "none.parquet", ["", ""]), tokenizer), "train")
    with pytest.raises(TransferSetError, match="token rows are made of text"):
        load_transfer_set(config(write(tmp_path / "numbers.parquet", [1, 2]), tokenizer), "train")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": ("a", "b")}, "inputs names 2 columns"),
        (
            {"prepare": ObjectSpec("softlabels.transfer.vector")},
            r"prepare is softlabels\.transfer\.vector",
        ),
        ({"label": "topic"}, "label is 'topic'"),
        ({"key": "id"}, "key is 'id'"),
        ({"classes": ("x", "y")}, "classes are named"),
    ],
)
def test_what_rows_of_tokens_have_no_use_for_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"{words}, and transfer_set.sequences"):
        TransferSetConfig(source="a", sequences=SequencesConfig("t", 8), **({"inputs": ("text",)} | settings))


@pytest.mark.parametrize("length", [1, 0, (1 << 16) + 1])
def test_lengths_that_no_row_has_are_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"length is {length}"):
        SequencesConfig("t", length)


def test_bpe_is_lossless_and_begins_with_its_special_token(tokenizer: Path) -> None:
    own = load_tokenizer(str(tokenizer))
    assert own.convert_ids_to_tokens(0) == END_OF_TEXT
    assert own.eos_token_id == own.pad_token_id == own.bos_token_id == 0
    assert own.model_max_length == 64
    text = " Ünïcode 漢字 \U0001f600\t\n\x00 end"
    ids = own(text)["input_ids"]
    assert own.decode(ids) == text
    assert 0 not in ids
    alphabet = {token for token, number in own.get_vocab().items() if 1 <= number <= 256}
    assert all(len(letter) == 1 for letter in alphabet)


@pytest.mark.slow
def test_bpe_is_the_same_in_every_process(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom softlabels.recipes.tokenizer import *\n"
        "from tests.transfer.test_sequences import config\n"
        "made = ensure_tokenizer(TokenizerConfig(kind='bpe', vocab_size=400), config(Path(sys.argv[2]), Path(sys.argv[1])))\n"
        "assert made\n"
    )
    for name, seed in (("one", "1"), ("two", "2")):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name), str(source)],
            cwd=ROOT, check=True, env={**os.environ, "RAYON_NUM_THREADS": seed, "PYTHONHASHSEED": seed},
        )  # fmt: skip
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_bpe_tokenizer_smaller_than_its_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size is 256; give 257 or more"):
        TokenizerConfig(kind="bpe", vocab_size=256)
