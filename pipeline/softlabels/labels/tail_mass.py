"""The mass of a distribution's tail at any temperature, from a few numbers.

With z the logits, K stored classes and all others the tail, two functions of beta = 1/T say how the mass is shared:

    h(beta) = log sum over the stored classes of exp(beta (z_i - max z))
    g(beta) = log sum over the tail           of exp(beta (z_i - max z))

h follows from the stored logits; g is smooth and convex, so a polynomial through its values at Chebyshev-Lobatto nodes on
[0, beta_max] gives it everywhere between. Kept are n numbers: the log odds d = g - h at beta = 0 and at beta_max, so that
float16 is finest where tail and stored classes weigh the same, and at every node but the first what g differs there from the
straight line through these ends, in steps of 1 / `CURVE_STEPS`. Between the ends that is at most 0 by convexity, and at least
-log of the tail's classes, so that 16 bits hold it; at beta_max it is what float16 rounded off the odds. The interpolation is
the barycentric one (Berrut and Trefethen 2004, SIAM Review 46).

This file knows nodes and weights; what is done with them in numpy is in `topk_reference`, in torch in `topk_soft`.
"""

from __future__ import annotations

import math

from softlabels.errors import ConfigError
from softlabels.labels.ensemble import check_temperature
from softlabels.labels.topk_fields import TopkFields

CURVE_STEPS = 2048  # a nat


def nodes(count: int, beta_max: float) -> tuple[float, ...]:
    """Chebyshev-Lobatto nodes on [0, beta_max], ascending, both ends among them; `count` >= 2."""
    last = count - 1
    inner = (beta_max * math.sin(math.pi * j / (2 * last)) ** 2 for j in range(1, last))
    return (0.0, *inner, beta_max)


def curve_weights(beta: float, count: int, beta_max: float) -> tuple[float, ...]:
    """What each entry of `tail_curve` counts for at `beta` in [0, beta_max]: the nodes' Lagrange polynomials but the first."""
    places = nodes(count, beta_max)
    if beta in places:
        return tuple(float(place == beta) for place in places[1:])
    signs = ((-1) ** j * (0.5 if j in (0, count - 1) else 1.0) for j in range(count))
    parts = [sign / (beta - place) for sign, place in zip(signs, places, strict=True)]
    total = math.fsum(parts)
    return tuple(part / total for part in parts[1:])


def check_beta(encoding: TopkFields, temperature: float) -> float:
    """beta = 1 / `temperature`.

    Raises:
        ConfigError: the temperature is no finite number above 0, or lower than the tail is known for.
    """
    check_temperature(temperature)
    beta = 1.0 / temperature
    if encoding.tail == "renormalised" or beta <= encoding.beta_max:
        return beta
    if beta <= encoding.beta_max * (1 + 1e-12):  # 1 / (1 / x) need not be x
        return encoding.beta_max
    raise ConfigError(
        f"the labels know the mass of their tail at temperatures from {1 / encoding.beta_max:g} up, not at {temperature:g}",
        remedy=f"take a temperature of at least {1 / encoding.beta_max:g}, or encode the labels again for lower ones",
    )
