"""Stores of texts and of tokens, made by the real code from our own words: a teacher of two members that counts
words labels the texts, one with random weights the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from softlabels import Ensemble, LabelsConfig, TransferSetConfig, label, load_transfer_set, open_store, write_store
from softlabels.objects import ObjectSpec
from softlabels.recipes.tokenizer import ensure_tokenizer
from softlabels.recipes.tokenizer_config import TokenizerConfig
from softlabels.store import Store
from softlabels.transfer.config import SequencesConfig
from softlabels.transfer.text import load_tokenizer

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "LICENSE", *sorted(ROOT.glob("docs/decisions/000*.md"))]
TOPICS = {"work": "contribut", "licence": "grant", "patent": "claim", "notice": "copyright"}
TOKENS, LENGTH = 3000, 24


def paragraphs() -> list[str]:
    """Texts that nobody changes: the licence, and old decisions."""
    parts = (" ".join(part.split()) for page in PAGES for part in page.read_text(encoding="utf-8").split("\n\n"))
    return [*dict.fromkeys(part for part in parts if len(part) > 40)]


def config(folder: Path, texts: Sequence[str] = (), **settings: object) -> TransferSetConfig:
    """A transfer set of some texts, by default these paragraphs, one split."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts or paragraphs()}), folder / "test.parquet")
    given = settings or {"prepare": ObjectSpec(f"{__name__}.counts")}
    return TransferSetConfig(
        name="pages",
        source=str(folder),
        inputs=("text",),
        label=None,
        splits={"test": "test"},
        **given,  # type: ignore[arg-type]
    )


def counts(texts: list[str]) -> np.ndarray:
    """(B, words) how often each topic's words stand in a text."""
    words = [word for pair in TOPICS.items() for word in pair]
    return np.array([[text.lower().count(word) for word in words] for text in texts], np.float32)


def of_texts(work: Path) -> tuple[Store, TransferSetConfig]:
    """Dense labels of four topics."""
    texts = config(work / "texts")
    rows = load_transfer_set(texts, "test", cache=work / "cache")
    found = np.array(rows.inputs)
    logits = np.stack([found[:, ::2] + 0.5 * found[:, 1::2], 0.3 * found[:, ::2]], axis=1)
    logits = logits + np.random.default_rng(0).normal(size=logits.shape) * 0.2
    return write_store(
        work / "topics" / "test", logits, keys=np.array(rows.keys), labels=logits[:, 0].argmax(axis=1), classes=[*TOPICS]
    ), texts  # fmt: skip


class Bigrams(torch.nn.Module):
    """The next token by the last one: (B, 2, L) ids and documents to logits (B, L - 1, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.next = torch.nn.Embedding(TOKENS, 16), torch.nn.Linear(16, TOKENS)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.next(self.seen(rows[:, 0, :-1])) * 6


def of_tokens(work: Path, added: Sequence[str] = ()) -> tuple[Store, TransferSetConfig]:
    """Top-k labels of the tokens of a few texts, by a tokenizer that is trained on all; `added`: tokens that it has beside."""
    texts = [*added, *paragraphs()]
    whole = config(work / "tokens", texts, sequences=SequencesConfig(str(work / "tokenizer"), LENGTH))
    ensure_tokenizer(TokenizerConfig(kind="bpe", vocab_size=TOKENS, max_length=LENGTH), whole, split="test")
    if added:
        tokenizer = load_tokenizer(str(work / "tokenizer"), None)
        tokenizer.add_tokens([*added])
        tokenizer.save_pretrained(work / "tokenizer")
    tokens = replace(whole, splits={"test": f"test[:{len(added) + 4}]"})
    torch.manual_seed(0)
    label(tokens, Ensemble.of([Bigrams()], name="bigrams"), LabelsConfig(encoding="topk", k=12, rank=8), work / "lm")
    return open_store(work / "lm" / "test"), tokens
