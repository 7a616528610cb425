"""What encodings say when they are asked about stored labels: how far two are apart, and what a few classes have at many
temperatures.

N positions, M members, J temperatures, k classes that are asked for, S others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Gap(NamedTuple):
    """How far the classes of pairs of distributions are apart, (..., M, classes) each or (..., M, 1): |z - z'| and |p - p'| at
    T = 1, the size of z, and of the numbers that z is rounded with. Of values z are these in usual sizes, and p parts of them.
    """

    z: NDArray[np.floating]
    p: NDArray[np.floating]
    size: NDArray[np.floating]
    scale: NDArray[np.floating]


class Summary(NamedTuple):
    """Of N positions of one member at J temperatures, what `EncodingBase.summary` gives.

    Attributes:
        log_p: (J, N, k) of the classes that were asked for; of no class anything. in_tail: (N, k), which are not stored.
        shift: (J, N, 2), with log p = z / T + shift: the first with the z of stored classes, the second with those of the tail.
        top: (J, N), log p of the most probable class. entropy: (J, N) in nats.
        cross: (S, J, N), the cross entropy to each of the others.
        norm: (S, J, N), the log of the sum of exp(z / T) over their logits z.
        total: (J, C), the sum of p over the positions.
    """

    log_p: NDArray[np.float64]
    in_tail: NDArray[np.bool_]
    shift: NDArray[np.float64]
    top: NDArray[np.float64]
    entropy: NDArray[np.float64]
    cross: NDArray[np.float64]
    norm: NDArray[np.float64]
    total: NDArray[np.float64]
