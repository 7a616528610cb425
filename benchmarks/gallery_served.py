"""A picture of docs/gallery.md: how far labels are from the model's own that a server gave, by temperature.

    python -m benchmarks.gallery_served test-00000-of-00001.parquet

The model predicts the next of the 2,000 most frequent words of WikiText-2 from the word before. A stand-in of tests answers for
it as vLLM does, over HTTP, with the k largest log-probabilities of each position. Half a minute of one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.gallery import DOCS, OTHER, STUDENT
from softlabels import LabelsConfig, array_keys, label, open_store
from softlabels.objects import ObjectSpec
from softlabels.report.figure import figure_in
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import SequenceInfo
from tests.teacher.stand_in import StandIn, running

WORDS, LENGTH, ROWS = 2000, 32, 32
TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 3.0)
Floats = NDArray[np.float64]


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a Parquet file with a column of text")
    parser.add_argument("--output", type=Path, default=DOCS / "gallery" / "served.png", help="the picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = " ".join(pq.read_table(options.text)["text"].to_pylist()).split()
    known = {word: number for number, (word, _) in enumerate(Counter(words).most_common(WORDS - 1), start=1)}
    tokens = np.array([known.get(word, 0) for word in words])
    model = next_word(tokens)
    inputs = np.stack([tokens[: ROWS * LENGTH].reshape(ROWS, LENGTH), np.ones((ROWS, LENGTH), int)], axis=1).astype(
        np.int32
    )
    with figure_in(options.output, width=4.6, height=2.0) as figure, tempfile.TemporaryDirectory() as scratch:
        axes = figure.subplots()
        for k, colour in ((5, OTHER), (20, STUDENT)):
            found = distance(model, inputs, k, Path(scratch) / str(k))
            axes.plot(TEMPERATURES, found, "o-", color=colour, label=f"the {k} largest of {WORDS:,}")
        axes.axvspan(1.0, TEMPERATURES[-1], color="#f2f2f2", zorder=0)
        axes.set(xlabel="temperature T; above 1 a bound", ylabel="KL, nats", ylim=(0, None))
        axes.legend()


def next_word(tokens: NDArray[np.int64]) -> Floats:
    """Log-probabilities (word, next word): counts of pairs, smoothed by those of words."""
    pairs = np.zeros((WORDS, WORDS))
    np.add.at(pairs, (tokens[:-1], tokens[1:]), 1.0)
    alone = np.bincount(tokens, minlength=WORDS) + 0.5
    found: Floats = np.log((pairs + 20 * alone / alone.sum()) / (pairs.sum(axis=1, keepdims=True) + 20))
    return found


def distance(model: Floats, inputs: NDArray[np.int32], k: int, path: Path) -> list[float]:
    """Mean KL of the model's own distributions to those of the store, at each temperature."""

    def said(tokens: Sequence[int]) -> Floats:
        found: Floats = model[list(tokens)]
        return found

    info = SequenceInfo(LENGTH, WORDS, "0" * 64)
    prepare = ObjectSpec("softlabels.transfer.sequences.token_rows")
    keys, hard = array_keys(inputs), np.full(len(inputs), -1)
    rows = TransferRows("wikitext", "train", None, "here", inputs, keys, hard, None, prepare, info)
    with running(StandIn(said)) as server:
        label(rows, Served(server.url, "tiny", dtype="float32"), LabelsConfig(encoding="topk", k=k), path)
    store, (row, place) = open_store(path, split="train", tail_bound=True), np.nonzero(alignment(inputs).mask)
    found = []
    for temperature in TEMPERATURES:
        z = model[inputs[row, 0, place]] / temperature
        log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        log_q = store.log_probs(range(len(inputs)), temperature=temperature)[row, place]
        found.append(float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()))
    return found


if __name__ == "__main__":
    main()
