"""The graph of the recipe `graph` as a row, and its network against the formula, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from softlabels.errors import ConfigError, TransferSetError
from softlabels.recipes.graph_net import GraphNet
from softlabels.recipes.graph_rows import graph_rows

SPLITS = ["train"] * 8 + ["validation"] * 6 + ["test"] * 10 + ["other"] * 6


def write_graph(
    folder: Path, rng: np.random.Generator, nodes: int = 30, words: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """A graph of two classes that mostly keep to themselves; its adjacency (P, P) and its words (P, F), 0 and 1."""
    labels = np.arange(nodes) % 2
    joined = rng.random((nodes, nodes)) < np.where(labels[:, None] == labels, 0.25, 0.05)
    adjacency = np.triu(joined, 1)
    has = rng.random((nodes, words)) < np.where((np.arange(words) % 2) == labels[:, None], 0.4, 0.05)
    has[3] = False  # a paper without words
    folder.mkdir()
    columns = {
        "node_id": np.arange(nodes), "words": [np.flatnonzero(row) for row in has], "label": labels, "split": SPLITS[:nodes],
    }  # fmt: skip
    shuffled = pa.table(columns).take(rng.permutation(nodes))
    pq.write_table(shuffled.slice(0, 9), folder / "nodes-0.parquet")
    pq.write_table(shuffled.slice(9), folder / "nodes-1.parquet")
    source, target = adjacency.nonzero()
    pq.write_table(pa.table({"source": source, "target": target}), folder / "edges.parquet")
    return adjacency | adjacency.T, has


def read(nodes: np.ndarray, most_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Adjacency and words of a row (P, W + K) as a factory gives it."""
    adjacency, has = np.zeros((len(nodes), len(nodes)), bool), np.zeros((len(nodes), 20), bool)
    for node, row in enumerate(nodes):
        has[node, row[:most_words][row[:most_words] >= 0]] = True
        adjacency[node, row[most_words:][row[most_words:] >= 0]] = True
    return adjacency, has


def test_a_graph_convolution_is_that_of_the_formula(tmp_path: Path, rng: np.random.Generator) -> None:
    adjacency, has = write_graph(tmp_path / "g", rng)
    words = int(has.sum(axis=1).max())
    row = graph_rows(split="other", source=str(tmp_path / "g"))["nodes"]
    order = [*np.flatnonzero(np.array(SPLITS) == "other"), *np.flatnonzero(np.array(SPLITS) != "other")]
    net = GraphNet(20, words, [7, 5], 3, dropout=0.5).eval()
    for bias in net.biases:
        torch.nn.init.normal_(bias)
    looped = adjacency[np.ix_(order, order)] + np.eye(30)
    scale = np.diag(looped.sum(axis=1) ** -0.5)
    for neighbours, a in ((True, scale @ looped @ scale), (False, np.eye(30))):
        net.neighbours = neighbours
        rows = has[order] / np.maximum(has[order].sum(axis=1, keepdims=True), 1)
        for number, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
            rows = np.maximum(rows, 0) if number else rows
            rows = a @ rows @ weight.detach().double().numpy() + bias.detach().double().numpy()
        np.testing.assert_allclose(net(torch.from_numpy(row)).detach()[0], rows, rtol=1e-4, atol=1e-5)


def test_graphs_of_a_batch_are_apart_and_others_are_refused(rng: np.random.Generator) -> None:
    net = GraphNet(9, 2, [4], 3)
    graphs = torch.from_numpy(np.dstack([rng.integers(-1, 9, (2, 5, 2)), rng.integers(-1, 5, (2, 5, 3))]))
    torch.testing.assert_close(net(graphs), torch.cat([net(graphs[:1]), net(graphs[1:])]))
    torch.autograd.backward(net(graphs).sum())
    assert all(each.grad.abs().sum() > 0 for each in net.parameters())
    with pytest.raises(
        ConfigError, match=r"takes whole numbers \(B, P, 2 words and neighbours\), a batch has torch.float32"
    ):
        net(graphs.float())
    with pytest.raises(ConfigError, match=r"of shape \[2, 5\]"):
        net(graphs[..., 0])


def test_the_nodes_of_a_split_are_its_first_positions(tmp_path: Path, rng: np.random.Generator) -> None:
    adjacency, has = write_graph(tmp_path / "g", rng)
    words, of_split = int(has.sum(axis=1).max()), np.array(SPLITS)
    factory = {"class_path": "softlabels.transfer.graph_rows", "init_args": {"source": str(tmp_path / "g")}}
    for split, count, known in (("train", 30, 8), ("validation", 6, 6), ("test", 10, 10)):
        found = graph_rows(**factory["init_args"], split=split)
        labels = found["label"][0]
        assert (len(labels), (labels >= 0).sum()) == (count, known)
        order = [*np.flatnonzero(of_split == split), *np.flatnonzero(of_split != split)]
        assert np.array_equal(labels[:known], np.array(order)[:known] % 2)
        got, own = read(found["nodes"][0], words)
        assert np.array_equal(got, adjacency[np.ix_(order, order)])
        assert np.array_equal(own, has[order])
    with pytest.raises(
        TransferSetError, match="has no node in split 'unseen'; its splits are other, test, train, validation"
    ):
        graph_rows(split="unseen", source=str(tmp_path / "g"))


def test_nobody_sees_the_unseen(tmp_path: Path, rng: np.random.Generator) -> None:
    adjacency, has = write_graph(tmp_path / "g", rng)
    words, given = int(has.sum(axis=1).max()), {"source": str(tmp_path / "g"), "unseen": 0.3}
    train, seen, late = (graph_rows(split=split, **given) for split in ("train", "test", "unseen"))
    assert [len(each["label"][0]) for each in (train, seen, late)] == [27, 7, 3]
    assert (train["nodes"][0, 27:] == -1).all()
    got, own = read(late["nodes"][0], words)
    assert (got.sum(), own.sum()) == (adjacency.sum(), has.sum())  # who is judged on them has the whole graph
    assert np.array_equal(own[:3], has[[node for node in range(14, 24) if not any((own[3:] == has[node]).all(axis=1))]])
    observed, left = read(train["nodes"][0], words)
    assert np.array_equal(np.sort(left[:27].sum(axis=1)), np.sort(own[3:].sum(axis=1)))
    assert observed.sum() == got[3:, 3:].sum() < adjacency.sum()


def test_tables_that_are_no_graph(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(TransferSetError, match=r"none has no file nodes\*.parquet; give the folder of the two tables"):
        graph_rows(split="train", source=str(tmp_path / "none"))
    write_graph(tmp_path / "g", rng)
    pq.write_table(pa.table({"source": [0], "target": [30]}), tmp_path / "g" / "edges.parquet")
    with pytest.raises(TransferSetError, match="not numbered from 0 to 29, or an edge ends at none of them"):
        graph_rows(split="train", source=str(tmp_path / "g"))
    pq.write_table(pa.table({"source": [0]}), tmp_path / "g" / "edges.parquet")
    with pytest.raises(TransferSetError, match="it needs the columns source, target"):
        graph_rows(split="train", source=str(tmp_path / "g"))
