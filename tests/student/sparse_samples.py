"""Sparse labels as an encoder might have written them, and what they say, from the numpy reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from softlabels.labels.class_ids import widen
from softlabels.labels.encoding import TopkEncoding
from softlabels.labels.soft import SoftLabels
from softlabels.labels.topk_reference import stored_log_probs, topk_log_probs
from tests.store.samples import topk

TAILS = ("lowrank", "prior", "uniform", "bucket", "renormalised")


class Sparse:
    """N positions of random sparse labels over C classes: `soft` is what the library takes, the methods are the reference.

    Some positions have no tail, but with `always`.
    """

    def __init__(
        self, rng: np.random.Generator, tail: str, *, positions: int = 9, classes: int = 13, k: int = 4, members: int = 1,
        beta_max: float = 1.0, always: bool = False,
    ) -> None:  # fmt: skip
        self.encoding = TopkEncoding(
            k=k, tail=tail, nodes=0 if tail == "renormalised" else 4, rank=4 if tail == "lowrank" else 0,
            fine=1 if tail == "lowrank" else 0, beta_max=beta_max,
        )  # type: ignore[arg-type]  # fmt: skip
        self.classes, self.members = classes, members
        self.columns, self.basis = topk(rng, (positions,), self.encoding, members=members, classes=classes)
        if tail != "renormalised":  # a tail that weighs about as much as the stored classes
            given = self.columns["tail_odds"]
            empty = np.isneginf(given) & (not always)
            self.columns["tail_odds"] = np.where(empty, -np.inf, 0.5 * rng.normal(size=given.shape)).astype(np.float16)
        share = rng.uniform(0.3, 1, members)
        self.share = share / share.sum()
        self.soft = self.as_soft()

    def as_soft(self, **changes: np.ndarray) -> SoftLabels:
        columns: Any = {name: torch.from_numpy(values) for name, values in (self.columns | changes).items()}
        basis = None if self.basis is None else torch.from_numpy(self.basis)
        weights = torch.tensor(self.share, dtype=torch.float32)
        return SoftLabels(self.encoding.members(columns, self.classes, basis), weights)

    def probabilities(self, temperature: float) -> np.ndarray:
        """(N, C), the members' arithmetic mean."""
        log_p = topk_log_probs(self.columns, self.encoding, self.classes, self.basis, temperature)
        return np.einsum("m,nmc->nc", self.share, np.exp(log_p))

    def outcomes(self, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (N, K), their probabilities (N, K) and the tail's (N,), of one member."""
        ids, log_p, log_tail = stored_log_probs(self.columns, self.encoding, self.classes, temperature)
        assert (ids == widen(self.columns, self.classes)).all()
        return ids[:, 0], np.exp(log_p[:, 0]), np.exp(log_tail[:, 0])
