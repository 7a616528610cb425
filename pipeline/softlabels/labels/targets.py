"""The kinds of targets: softmax (one distribution over the classes), sigmoid (a Bernoulli a class), values (a real vector); and
the error for a question that a kind has no answer to.
"""

from __future__ import annotations

from typing import Literal

from softlabels.errors import ConfigError

Target = Literal["softmax", "sigmoid", "values"]
_WHAT = {
    "softmax": ("distributions over the classes (softmax)", "ask for log_probs"),
    "sigmoid": ("a Bernoulli a class (sigmoid)", "ask for its logits or probabilities"),
    "values": (
        "real vectors (values)",
        "ask for values, which have no temperature and one mean of members, the weighted one",
    ),
}


def require_target(target: Target, what: str, *targets: Target) -> None:
    """Raise `ConfigError` unless labels of the kind `target`, which are asked for `what`, are of one of these kinds."""
    if target not in targets:
        are, instead = _WHAT[target]
        raise ConfigError(f"the labels are {are} and have no {what}", remedy=instead)
