"""What keys and hard labels of a whole transfer set say before its teacher runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from softlabels.jobs.splits import say_how_splits_relate
from softlabels.jobs.watch import Watch
from softlabels.labels.hard import are_labelled
from softlabels.labels.targets import Target
from softlabels.report.plan import Data
from softlabels.teacher.ensemble import TRAIN
from softlabels.teacher.expected import hard_of
from softlabels.transfer import TransferRows


def data_of(rows: Mapping[str, TransferRows], kinds: Mapping[str, Target], watch: Watch) -> Data:
    """Of the rows of each split, whose targets are of these kinds."""
    lines: list[str] = []
    first = rows.get(TRAIN) or next(iter(rows.values()))
    tokens = first.sequence is not None
    repeated = say_how_splits_relate(rows, None, dataclasses.replace(watch, say=lines.append), tokens=tokens)
    unlabelled, shares = dict[str, int](), np.empty(0)
    for split, each in rows.items() if not tokens else ():
        known = [
            are_labelled(np.asarray(labels), kinds[name]).reshape(len(each.keys), -1).any(axis=1)
            for name, labels in hard_of(each, kinds).items()
        ]
        without = len(each.keys) - (int(np.logical_or.reduce(known).sum()) if known else 0)
        if without:
            unlabelled[split] = without
    if not tokens and kinds.get("") == "softmax":
        labels = np.asarray(first.hard[""], np.int64).reshape(-1)
        counts = np.bincount(labels[labels >= 0])
        shares = counts[counts > 0] / max(1, counts.sum())
    return Data(
        rows={split: len(each.keys) for split, each in rows.items()},
        unlabelled=unlabelled,
        leaks=tuple(lines),
        repeated=repeated,
        largest=float(shares.max()) if shares.size else None,
        smallest=float(shares.min()) if shares.size else None,
        classes=len(shares),
    )
