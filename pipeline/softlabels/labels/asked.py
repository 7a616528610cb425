"""What encodings say when they are asked about stored labels: how far two are apart, and what a few classes have at many
temperatures.

N positions, M members, J temperatures, C classes, k classes that are asked for, S others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Gap(NamedTuple):
    """How far the classes of pairs of distributions are apart, (..., M, classes) each or (..., M, 1): |z - z'| and |p - p'| at
    T = 1, or next to it where they are known, the size of z, and of the numbers that z is rounded with. Of values z are these
    in usual sizes, and p parts of them.
    """

    z: NDArray[np.floating]
    p: NDArray[np.floating]
    size: NDArray[np.floating]
    scale: NDArray[np.floating]


class Summary(NamedTuple):
    """Of N positions at J temperatures, what `EncodingBase.summary` gives; float64 but for `in_tail`.

    Attributes:
        log_p: (J, N, M, k), each member's of the classes that were asked for; of no class anything.
        in_tail: (N, M, k), which a member keeps in its tail.
        shift: (J, N, M, 2), with log p = z / T + shift: first with the z of stored classes, then with those of the tail.
        own_entropy, own_top: (J, N, M), each member's entropy in nats and its largest probability.
        entropy, top: (J, N), those of the members' arithmetic mean.
        cross: (S, J, N), the mean's cross entropy to each of the others.
        norm: (S, J, N), the log of the sum of exp(z / T) over their logits z.
        total: (J, C), the sum of the mean over the positions.
    """

    log_p: NDArray[np.float64]
    in_tail: NDArray[np.bool_]
    shift: NDArray[np.float64]
    own_entropy: NDArray[np.float64]
    own_top: NDArray[np.float64]
    entropy: NDArray[np.float64]
    top: NDArray[np.float64]
    cross: NDArray[np.float64]
    norm: NDArray[np.float64]
    total: NDArray[np.float64]


class KeptProbabilities(NamedTuple):
    """The probabilities of n distributions, class by class where they are kept so.

    Attributes:
        ids: (n, K) int64, each class once; -1 for no class. p: (n, K) float32, 0 of no class.
        rest: (n,) float32, the probability of each other class, as if these were alike.
    """

    ids: NDArray[np.int64]
    p: NDArray[np.float32]
    rest: NDArray[np.float32]
