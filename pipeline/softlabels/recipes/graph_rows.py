"""A graph as a row whose positions are its nodes: the factory of the recipe `graph`.

A source is a folder of two tables, Parquet files whose names begin so: `nodes` (`node_id`, 0 to P - 1; `words`, a list of their
numbers; `label`, a class; `split`) and `edges` (`source`, `target`, each edge once).

P nodes, E edges, W and K the most words and neighbours of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softlabels.errors import TransferSetError, some
from softlabels.labels import NO_LABEL
from softlabels.transfer.pretrained import one_line

TRAIN, UNSEEN = "train", "unseen"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """What the tables hold.

    Attributes:
        words: numbers of each node's words.
        labels: (P,) the class of each node.
        splits: (P,) the name of the split that it belongs to.
        edges: (E, 2) numbers of the nodes that they join.
    """

    words: Sequence[Sequence[int]]
    labels: Ints
    splits: NDArray[np.str_]
    edges: Ints

    def row(self, nodes: Ints) -> Ints:
        """The graph of these nodes, in this order, and the edges between them: (P, W + K), words and neighbours, -1 = none.

        W, K and P are those of the whole graph: rows of nodes that are left out come last, and are -1.
        """
        number = np.full(len(self.labels), -1)
        number[nodes] = np.arange(len(nodes))
        words = _filled([self.words[node] for node in nodes], most=max(map(len, self.words)))
        degrees = np.bincount(self.edges.reshape(-1), minlength=len(self.labels))
        ends = number[self.edges]
        ends = ends[(ends >= 0).all(axis=1)]
        neighbours: list[list[int]] = [[] for _ in nodes]
        for one, other in ends.tolist():
            neighbours[one].append(other)
            neighbours[other].append(one)
        row = np.full((len(self.labels), words.shape[1] + int(degrees.max())), -1)
        row[: len(nodes)] = np.hstack([words, _filled(neighbours, most=int(degrees.max()))])
        return row


def graph_rows(*, split: str, source: str, unseen: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """One row: the graph, with the nodes of the split first, which are its positions.

    The positions of `train` are all nodes, for a student learns from what the teacher says of each; those of that split have a
    hard label. A share of the nodes of `test` may be unseen: only the split `unseen` has them and their edges.

    Args:
        split: train, another split of the table, or unseen.
        source: the folder.
        unseen: share of the nodes of `test` that are unseen.
        seed: of which ones these are.

    Returns:
        nodes (1, P, W + K) int64, see `Graph.row`; label, a list of the positions' classes, -1 = none.

    Raises:
        TransferSetError: the folder lacks a table or a column, nodes and edges make no graph, or there is no such split.
    """
    graph = read_graph(source)
    left_out = np.zeros(len(graph.labels), bool)
    tests = np.flatnonzero(graph.splits == "test")
    left_out[np.random.default_rng(seed).permutation(tests)[: round(unseen * len(tests))]] = True
    is_own = left_out if split == UNSEEN else (graph.splits == split) & ~left_out
    if not is_own.any():
        known = [*np.unique(graph.splits).tolist(), *[UNSEEN] * bool(left_out.any())]
        raise TransferSetError(f"{source} has no node in split {split!r}", remedy=f"its splits are {some(known)}")
    first = np.flatnonzero(is_own)
    others = np.flatnonzero(~is_own if split == UNSEEN else ~is_own & ~left_out)
    nodes = np.concatenate([first, others])
    labels = graph.labels[first]
    if split == TRAIN:
        labels = np.concatenate([labels, np.full(len(others), NO_LABEL)])
    return {"nodes": graph.row(nodes)[None], "label": labels[None]}


def read_graph(source: str) -> Graph:
    """The tables of a folder. Raises TransferSetError."""
    nodes = _table(source, "nodes", ("node_id", "words", "label", "split")).sort_by("node_id")
    edges = _table(source, "edges", ("source", "target"))
    count = len(nodes)
    ends = np.stack([edges[name].to_numpy() for name in ("source", "target")], axis=1).astype(np.int64)
    if not np.array_equal(nodes["node_id"].to_numpy(), np.arange(count)) or not np.isin(ends, np.arange(count)).all():
        raise TransferSetError(
            f"the nodes of {source} are not numbered from 0 to {count - 1}, or an edge ends at none of them",
            remedy="number them so in node_id, source and target",
        )
    splits = np.array(nodes["split"].to_pylist(), np.str_)
    return Graph(nodes["words"].to_pylist(), nodes["label"].to_numpy().astype(np.int64), splits, ends)


def _table(source: str, name: str, columns: Sequence[str]) -> pa.Table:
    files = sorted(Path(source).expanduser().glob(f"{name}*.parquet"))
    if not files:
        raise TransferSetError(
            f"{source} has no file {name}*.parquet",
            remedy="give the folder of the two tables; docs/uses/graph.md says how",
        )
    try:
        return pa.concat_tables([pq.read_table(file, columns=list(columns)) for file in files]).select(list(columns))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise TransferSetError(
            f"{files[0]}: {one_line(error)}", remedy=f"it needs the columns {', '.join(columns)}"
        ) from None


def _filled(lists: Sequence[Sequence[int]], *, most: int) -> Ints:
    """Lists of numbers as (len(lists), most), -1 after the last."""
    return np.array([[*each, *[-1] * (most - len(each))] for each in lists], np.int64).reshape(len(lists), most)
