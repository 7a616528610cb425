"""What begins a text and a row: the tokenizer's own habit, the recipe's word, or what a store that is there already says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from softlabels.errors import ConfigError
from softlabels.store.spec import Preprocessing
from softlabels.transfer import TransferRows, TransferSetConfig, array_keys, load_transfer_set
from softlabels.transfer.alignment import alignment
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.sequences import TOKEN_ROWS, as_stored
from softlabels.transfer.text import load_tokenizer
from tests.models.hf_samples import word_texts, word_tokenizer

LENGTH, BOS, EOS = 9, 1, 2


@pytest.fixture
def texts(rng: np.random.Generator) -> list[str]:
    """Short ones, one that fills a row to its last token, long ones and empty ones."""
    found = word_texts(rng, 40, longest=30)
    return [*found[:3], "", " ".join(["w5"] * (LENGTH - 2)), *found[3:], "", "w1"]


def rows_of(folder: Path, texts: list[str], *, own: bool = True, **options: Any) -> TransferRows:
    """The rows of the texts, of a tokenizer that begins them with <bos> (`own`) or not."""
    datasets.Dataset.from_dict({"text": texts}).to_parquet(folder / "texts.parquet")
    tokenizer = word_tokenizer(folder / f"tokenizer-{own}", bos=own)
    sequences = SequencesConfig(str(tokenizer), **({"length": LENGTH} | options))
    config = TransferSetConfig(
        source=str(folder / "texts.parquet"),
        inputs=("text",),
        label=None,
        splits={"train": "train"},
        sequences=sequences,
    )
    return load_transfer_set(config, "train", cache=folder / "cache")


def by_hand(tokenizer: Path, texts: list[str], *, pack: bool) -> list[list[tuple[int, int]]]:
    """(token, text) of each row, a token at a time, from what the tokenizer makes of a text; a bos that is put before the
    rest of a text has number -1.
    """
    own, rows = load_tokenizer(str(tokenizer)), [[]]
    for number, text in enumerate(texts):
        ids = [*own(text)["input_ids"], EOS] if text else []
        if not pack and rows[-1]:
            rows.append([])
        for place, token in enumerate(ids):
            if len(rows[-1]) == LENGTH:
                rows.append([])
            if not rows[-1] and place > 0:
                rows[-1].append((BOS, -1))
            rows[-1].append((token, number))
    return [row for row in rows if row]


@pytest.mark.parametrize("pack", [True, False])
def test_every_text_and_every_row_begins_with_it(pack: bool, texts: list[str], tmp_path: Path) -> None:
    rows = rows_of(tmp_path, texts, pack=pack)
    expected = by_hand(tmp_path / "tokenizer-True", texts, pack=pack)
    assert len(rows.inputs) == len(expected)
    assert (rows.inputs[:, 0, 0] == BOS).all()
    assert any(row[0][1] == -1 for row in expected)
    assert any(row[0][1] != -1 for row in expected)
    found = alignment(rows.inputs)
    for number, ((ids, documents), row) in enumerate(zip(rows.inputs, expected, strict=True)):
        assert ids[documents > 0].tolist() == [token for token, _ in row]
        groups = [text for _, text in row]
        order = list(dict.fromkeys(groups))
        assert documents[: len(row)].tolist() == [order.index(text) + 1 for text in groups]
        for place in range(LENGTH - 1):  # a position counts where the next token is of the same text
            counts = place + 1 < len(row) and groups[place] == groups[place + 1]
            assert found.mask[number, place] == counts
            assert found.next_token[number, place] == (row[place + 1][0] if counts else -1)
    assert (rows.keys == np.concatenate([array_keys(np.array([[t for t, _ in row]])) for row in expected])).all()
    first = next(row for row in expected if row[0][1] != -1)
    assert first[1][0] == alignment(rows.inputs[:1]).next_token[0, 0]  # a text's first word is predicted, from the bos


@pytest.mark.parametrize("pack", [True, False])
def test_without_it_rows_and_what_is_written_of_them_are_as_before(
    pack: bool, texts: list[str], tmp_path: Path
) -> None:
    plain = rows_of(tmp_path, texts, own=False, pack=pack)
    off = rows_of(tmp_path, texts, own=True, pack=pack, bos="none")
    np.testing.assert_array_equal(plain.inputs, off.inputs)
    np.testing.assert_array_equal(plain.keys, off.keys)
    for rows in (plain, off):
        assert set(rows.prepare.init_args) == {"tokenizer", "length", "pack", "separator"}
    named = rows_of(tmp_path, texts, own=False, pack=pack, bos="<bos>")
    habit = rows_of(tmp_path, texts, own=True, pack=pack)
    np.testing.assert_array_equal(named.inputs, habit.inputs)
    assert named.prepare.init_args["bos"] == habit.prepare.init_args["bos"] == "<bos>"
    assert habit.sequence is not None
    assert habit.sequence.bos == "<bos>"


def test_several_tokens_may_begin_a_row(texts: list[str], tmp_path: Path) -> None:
    rows = rows_of(tmp_path, texts, own=False, bos="<bos> w0")
    assert (rows.inputs[:, 0, :2] == [BOS, 4]).all()
    assert rows.prepare.init_args["bos"] == "<bos> w0"
    with pytest.raises(ConfigError, match="rows of 3 tokens begin with 2"):
        rows_of(tmp_path, texts, own=False, bos="<bos> w0", length=3)
    with pytest.raises(ConfigError, match=r"no token '<s>' to begin a text with.*sequences.bos"):
        rows_of(tmp_path, texts, bos="<s>")
    with pytest.raises(ConfigError, match="bos is empty"):
        SequencesConfig("t", 9, bos="")


def test_a_store_that_is_there_decides() -> None:
    config = TransferSetConfig(source="a", inputs=("text",), sequences=SequencesConfig("t", 9))
    for function, arguments, expected in (
        (TOKEN_ROWS, {"bos": "<bos>"}, "<bos>"),
        (TOKEN_ROWS, {}, "none"),  # made before there was one
        ("pipeline.transfer.sequences.token_rows", {}, "none"),
    ):
        found = as_stored(config, Preprocessing(function=function, arguments=arguments)).sequences
        assert found is not None
        assert found.bos == expected
        assert config.sequences is not None
        own = replace(config, sequences=replace(config.sequences, bos="w1"))
        assert as_stored(own, Preprocessing(function=function, arguments=arguments)) == own
    plain = TransferSetConfig(source="a")
    assert as_stored(plain, Preprocessing(function=TOKEN_ROWS)) == plain
