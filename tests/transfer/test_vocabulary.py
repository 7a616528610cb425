"""Two tokenizers number their tokens alike, or they do not: added ones at the end do not count."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from blake3 import blake3

from softlabels.errors import OtherTokenizer
from softlabels.models.classes import require_vocabulary
from softlabels.transfer.sequences import SequenceInfo
from softlabels.transfer.text import load_tokenizer
from softlabels.transfer.vocabulary import Vocabulary
from tests.models.hf_samples import SIXTY, SPECIALS, word_tokenizer


def opened(folder: Path) -> Vocabulary:
    return Vocabulary(load_tokenizer(str(folder)))


def test_the_digest_is_over_tokens_and_ids_below_a_number(tmp_path: Path) -> None:
    plain, more = (opened(word_tokenizer(tmp_path / str(n), added=("<image>", "<x>")[:n])) for n in (0, 2))
    tokens = {token: number for number, token in enumerate((*SPECIALS, *SIXTY))}
    assert (plain.size, more.size) == (64, 66)
    for found, given in (
        (plain.digest(), tokens),
        (more.digest(64), tokens),
        (more.digest(), tokens | {"<image>": 64, "<x>": 65}),
        (plain.digest(10), {token: number for token, number in tokens.items() if number < 10}),
    ):
        words = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert found == blake3(words.encode()).hexdigest()
    assert more.name(64) == "<image>"


def agree(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether a model of one vocabulary takes rows of the other."""
    model = torch.nn.Module()
    model.vocabulary, model.words = one.digest(), one
    try:
        require_vocabulary(model, SequenceInfo(2, other.size, other.digest(), words=other), who="it")
    except OtherTokenizer:
        return False
    return True


def test_only_added_tokens_may_be_missing_from_one(tmp_path: Path) -> None:
    plain, more = (opened(word_tokenizer(tmp_path / str(n), added=("<image>",)[:n])) for n in (0, 1))
    other = opened(word_tokenizer(tmp_path / "other", added=("<audio>",)))
    assert agree(plain, more)
    assert agree(more, plain)
    assert not agree(more, other)
    file = word_tokenizer(tmp_path / "fewer") / "tokenizer.json"  # without its last word: texts are cut otherwise
    said = json.loads(file.read_text())
    del said["model"]["vocab"]["w59"]
    file.write_text(json.dumps(said))
    assert opened(file.parent).digest() == plain.digest(63)
    assert not agree(plain, opened(file.parent))
