"""A network over the nodes of a graph (recipe `graph`): of their words and their neighbours', or of their own words alone.

B graphs, P nodes of a graph, W words a node may have, K neighbours it may have, F words there are, H units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from softlabels.errors import ConfigError


class GraphNet(nn.Module):
    """Layers H' = A H V + b with ReLU and dropout between them; the first H is each node's words, scaled to sum to 1.

    With neighbours it is the graph convolutional network of Kipf & Welling 2017 (arXiv 1609.02907, eq. 2): A = D^-1/2 (G + 1)
    D^-1/2, G being the adjacency matrix and D the row sums of G + 1. Without, A = 1: a perceptron that sees no neighbour.

    Args:
        features: F.
        words: W.
        hidden: widths of the hidden layers.
        classes: C.
        dropout: probability before each layer, on a node's words too.
        neighbours: whether neighbours count.
    """

    def __init__(
        self,
        features: int,
        words: int,
        hidden: Sequence[int],
        classes: int,
        dropout: float = 0.0,
        neighbours: bool = True,
    ) -> None:
        super().__init__()
        self.features, self.words, self.neighbours = features, words, neighbours
        self.dropout = nn.Dropout(dropout)
        widths = [features, *hidden, classes]
        self.weights = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(pair)) for pair in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths[1:])

    def forward(self, nodes: Tensor) -> Tensor:
        """Logits (B, P, C) of nodes (B, P, W + K): numbers of their words, then of their neighbours in the graph, -1 = none.

        Raises:
            ConfigError: inputs of another shape or dtype.
        """
        if nodes.ndim != 3 or nodes.is_floating_point() or nodes.shape[-1] < self.words:
            raise ConfigError(
                f"this GraphNet takes whole numbers (B, P, {self.words} words and neighbours), a batch has {nodes.dtype} of "
                f"shape {list(nodes.shape)}",
                remedy="write in words of its init_args how many of a row's numbers are words",
            )
        edges = _edges(nodes[..., self.words :]) if self.neighbours else None
        rows = self._bags(nodes[..., : self.words].flatten(0, 1))
        for number, bias in enumerate(self.biases):
            if number:
                rows = self.dropout(functional.relu(rows)) @ self.weights[number]
            rows = (rows if edges is None else _spread(rows, *edges)) + bias
        return rows.reshape(*nodes.shape[:2], -1)

    def _bags(self, words: Tensor) -> Tensor:
        """The first layer's product (B P, H) of the words (B P, W) of nodes: the mean of their rows of the matrix."""
        is_word = (words >= 0).to(self.weights[0].dtype)
        shares = self.dropout(is_word / is_word.sum(dim=1, keepdim=True).clamp(min=1))
        found: Tensor = functional.embedding_bag(
            words.clamp(min=0), self.weights[0], mode="sum", per_sample_weights=shares
        )
        return found


def _edges(neighbours: Tensor) -> tuple[Tensor, Tensor]:
    """The edges (E,) from and to nodes of all graphs, numbered through, of their neighbours (B, P, K); each node's own too."""
    graph, node, at = (neighbours >= 0).nonzero(as_tuple=True)
    first, loops = graph * neighbours.shape[1], torch.arange(neighbours[..., 0].numel(), device=neighbours.device)
    return torch.cat([first + neighbours[graph, node, at], loops]), torch.cat([first + node, loops])


def _spread(rows: Tensor, sources: Tensor, ends: Tensor) -> Tensor:
    """A H: (B P, H) of rows (B P, H)."""
    scale = torch.bincount(ends, minlength=len(rows)).to(rows.dtype).rsqrt()
    weights = (scale[sources] * scale[ends])[:, None]
    return torch.zeros_like(rows).index_add(0, ends, rows.index_select(0, sources) * weights)
