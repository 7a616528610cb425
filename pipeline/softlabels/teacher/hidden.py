"""A served teacher's hidden states and its output matrix, whose product is its logits: labels of any temperature, as of a model
that runs here. The states are believed where they give the log-probabilities that the server says in the same answer.

N distributions of a batch, n of them that count, K tokens of each whose log-probability the server says, V rows of the matrix,
d its width, C classes: rows of the matrix beyond C are padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabels.errors import TeacherError
from softlabels.foreign.hidden import WHOLE
from softlabels.foreign.rows import ForeignRow, Unfit
from softlabels.models.device import arithmetic, resolve_device, warm_up
from softlabels.models.product import read_matrix
from softlabels.models.weights import weights_digest
from softlabels.teacher.outputs import Outputs, Product

CHECKED = 8  # of the largest log-probabilities are asked for, beside the next token's
ROW, MOST = 4, 20  # times the tolerance that a row may differ by on average, and one log-probability
OTHER_MATRIX = (
    "give the output matrix of the served model, with its bias (output_weight, output_bias); a model that scales or caps its "
    f"logits, as Gemma does, or gives states from before its last norm cannot be asked so: leave output_matrix out; {WHOLE}"
)


@dataclass(frozen=True, eq=False)
class States:
    """What a server says of positions: hidden (n, d); and of the tokens ids (n, K), the next one first, log_p (n, K)."""

    hidden: NDArray[np.float32]
    ids: NDArray[np.int64]
    log_p: NDArray[np.float64]


class Head:
    """The output matrix, in float32 on the device.

    Attributes:
        digest: of the tensors as the file has them, by which the store knows it.
    """

    def __init__(self, path: str, weight: str | None, bias: str | None) -> None:
        warm_up()
        matrix, self.device = read_matrix(Path(path), weight, bias), resolve_device("auto")
        self.digest = weights_digest(matrix)
        self._weight = matrix.weight.to(self.device, torch.float32)
        self._bias = None if matrix.bias is None else matrix.bias.to(self.device, torch.float32)

    @property
    def classes(self) -> int:
        """V."""
        return len(self._weight)

    @property
    def width(self) -> int:
        """d."""
        return self._weight.shape[1]

    def require_width(self, row: ForeignRow) -> None:
        """Raise `Unfit` where the states of an answer are none that the matrix takes."""
        width = None if row.hidden is None else row.hidden.shape[-1]
        if width != self.width:
            what = f"hidden states have {width} numbers, and the output matrix takes {self.width}"
            raise Unfit(TeacherError, "states of another width", what, OTHER_MATRIX)

    def blocks(
        self, given: Sequence[States | None], at: NDArray[np.int64], total: int, classes: int, where: Callable[[int], str],
        tolerance: float,
    ) -> Iterator[tuple[slice, Tensor]]:  # fmt: skip
        """The logits (N, 1, C) of `total` distributions, a block at a time, as `Outputs.blocks`: of those `at` (n,), ascending,
        which are those of the rows `given` in order; the others are 0 but for the bias. `where` calls a row, by its number.

        Raises:
            TeacherError: after the last block, where they are not what the server says.
        """
        said = [states for states in given if states is not None]
        hidden, apart = np.zeros((total, self.width), np.float32), []
        if said:
            hidden[at] = np.concatenate([states.hidden for states in said])
        for block, logits in self._logits(hidden):
            if said:
                mine = slice(*np.searchsorted(at, [block.start, block.stop]))
                apart.append(_apart(logits[torch.from_numpy(at[mine] - block.start).to(logits.device), 0], said, mine))
            yield block, logits[..., :classes].contiguous()
        if said:
            whole, row = np.concatenate(apart), np.repeat(np.arange(len(said)), [len(states.ids) for states in said])
            _require_each(whole, row, [where(number) for number, one in enumerate(given) if one is not None], tolerance)

    def require(self, given: Sequence[States | None], where: str, tolerance: float) -> None:
        """Raise `TeacherError` where the logits of the rows together are not what the server says."""
        said = [states for states in given if states is not None]
        if not said:
            return
        found = self._logits(np.concatenate([states.hidden for states in said]))
        _require(np.concatenate([_apart(logits[:, 0], said, at) for at, logits in found]), where, tolerance, tolerance)

    def _logits(self, hidden: NDArray[np.float32]) -> Iterator[tuple[slice, Tensor]]:
        """(N, 1, V) of states (N, d), a block at a time."""
        product = Product(torch.from_numpy(hidden).to(self.device), self._weight, self._bias)
        return Outputs((product,), self.classes, partial(arithmetic, self.device, "float32")).blocks()


def _apart(logits: Tensor, said: Sequence[States], at: slice) -> NDArray[np.float64]:
    """(n, K) by how much log-probabilities of logits (n, V) differ from what the server says of these positions."""
    ids, log_p = (np.concatenate([getattr(states, name) for states in said])[at] for name in ("ids", "log_p"))
    ours = logits.gather(1, torch.from_numpy(ids).to(logits.device)) - logits.logsumexp(dim=1, keepdim=True)
    return np.asarray(np.abs(ours.double().cpu().numpy() - log_p))


def _require_each(apart: NDArray[np.float64], row: NDArray[np.int64], names: Sequence[str], tolerance: float) -> None:
    for number, name in enumerate(names):
        _require(apart[row == number], name, ROW * tolerance, tolerance)


def _require(apart: NDArray[np.float64], where: str, mean: float, tolerance: float) -> None:
    """Raise `TeacherError` unless log-probabilities differ by at most `mean` on average, none by `MOST` tolerances."""
    found, most = float(apart.mean()), float(apart.max())
    if not (found <= mean and most <= MOST * tolerance):
        raise TeacherError(
            f"{where}: hidden states times the output matrix give other log-probabilities than the server says: they differ by "
            f"{found:.3g} on average, {most:.3g} at most (allowed: {mean:.3g} and {MOST * tolerance:.3g})",
            remedy=OTHER_MATRIX,
        )
