"""The mean probabilities of the classes that topk labels keep, and of hard labels, without a look at the tails class by class.

n distributions, M members, C classes, K classes that each keeps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softlabels.labels.asked import KeptProbabilities
from softlabels.labels.decoder import Columns
from softlabels.labels.kept_union import KeptUnion
from softlabels.labels.topk_fields import TopkFields
from softlabels.labels.topk_reference import stored_log_probs

Floats = NDArray[np.float64]


def kept_probabilities(
    columns: Columns, encoding: TopkFields, classes: int, weights: Floats, temperature: float,
    labels: NDArray[np.int64] | None,
) -> KeptProbabilities:  # fmt: skip
    """See `EncodingBase.kept_probabilities`. The other classes of a member's tail share its mass evenly; a label there has the
    probability that its own stored logit gives it.
    """
    ids, log_p, log_tail = stored_log_probs(columns, encoding, classes, temperature)
    p, rest = np.exp(log_p), np.exp(log_tail) / max(classes - encoding.k, 1)  # (n, M, K), (n, M)
    union = KeptUnion(ids)
    even = rest @ weights
    mean, first = even[:, None] + union.sums(weights[:, None] * (p - rest[:, :, None])), union.first
    found = [np.where(first, union.ids, -1)], [np.where(first, mean, 0.0)]
    if labels is not None:
        logit = columns["label_logit"].astype(np.float64) / temperature
        exact = np.exp(np.minimum(logit + log_p.max(axis=2), log_tail))
        is_kept = ids == labels[:, None, None]
        beyond = np.where(np.isnan(exact), rest, exact)
        own = np.where(is_kept.any(axis=2), np.where(is_kept, p, 0.0).sum(axis=2), beyond) @ weights
        others = first & (union.ids != labels[:, None])
        found = [labels[:, None], np.where(others, union.ids, -1)], [own[:, None], np.where(others, mean, 0.0)]
    ids, p = (np.concatenate(each, axis=1) for each in found)
    return KeptProbabilities(ids, p.astype(np.float32), even.astype(np.float32))
