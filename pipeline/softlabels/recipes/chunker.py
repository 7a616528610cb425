"""History compression (recipe `chunker`): an automatizer, and a chunker that sees only what it did not foresee.

Schmidhuber 1992, Learning complex, extended sequences using the principle of history compression (Neural Computation 4): a
recurrent network learns to predict its next input; a second one, the chunker, is given only the inputs that the first did not
predict, so that what lies many steps apart for the one lies few steps apart for the other. Then the first one is taught the
states of the second, and needs it no longer.

B sequences, P symbols of each, V symbols there are, H units, S units of the chunker's state, C answers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError


class _Recurrent(nn.Module):
    """Elman's network: a unit is the tanh of what symbol and units before it give."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, hidden)
        self.memory = nn.RNN(hidden, hidden, batch_first=True)

    def forward(self, symbols: Tensor) -> Tensor:
        """Units (B, P, H) after each of the symbols (B, P). Raises ConfigError for other inputs."""
        if symbols.ndim != 2 or symbols.is_floating_point():
            raise ConfigError(
                f"sequences are whole numbers (B, P), a batch has {symbols.dtype} of shape {list(symbols.shape)}",
                remedy="name one column of lists of symbols in transfer_set.inputs",
            )
        units, _ = self.memory(self.symbols(symbols))
        found: Tensor = units
        return found


class Automatizer(nn.Module):
    """A recurrent network that says of each position the next symbol, the answer, and the chunker's state.

    Args:
        symbols: V.
        hidden: H.
        answers: C.
        state: S.
    """

    def __init__(self, symbols: int, hidden: int, answers: int, state: int) -> None:
        super().__init__()
        self.units = _Recurrent(symbols, hidden)
        self.next = nn.Linear(hidden, symbols)
        self.answer = nn.Linear(hidden, answers)
        self.state = nn.Linear(hidden, state)

    def forward(self, symbols: Tensor) -> dict[str, Tensor]:
        """next (B, P, V), answer (B, P, C) and state (B, P, S) of symbols (B, P)."""
        units = self.units(symbols)
        return {"next": self.next(units), "answer": self.answer(units), "state": self.state(units)}


class Chunker(nn.Module):
    """An automatizer of next symbols, and a chunker that answers from those alone that it did not foresee.

    A symbol is unforeseen where the automatizer gave it a probability below `foreseen`; the first one of a sequence always is.
    Between such symbols the chunker's state stays as it is. The two learn side by side: the better the one predicts, the
    shorter is what the other has to remember.

    Args:
        symbols: V.
        hidden: H, of the automatizer.
        answers: C.
        state: S.
        foreseen: the probability from which on a symbol is foreseen.
    """

    def __init__(self, symbols: int, hidden: int, answers: int, state: int, foreseen: float = 0.5) -> None:
        super().__init__()
        self.foreseen = foreseen
        self.units = _Recurrent(symbols, hidden)
        self.next = nn.Linear(hidden, symbols)
        self.symbols = nn.Embedding(symbols, state)
        self.cell = nn.RNNCell(state, state)
        self.answer = nn.Linear(state, answers)

    def forward(self, symbols: Tensor) -> dict[str, Tensor]:
        """next (B, P, V), of the automatizer; answer (B, P, C) and state (B, P, S), of the chunker; of symbols (B, P)."""
        coming = self.next(self.units(symbols))
        state = self._states(symbols, self.unforeseen(symbols, coming))
        return {"next": coming, "answer": self.answer(state), "state": state}

    def unforeseen(self, symbols: Tensor, coming: Tensor) -> Tensor:
        """Which of the symbols (B, P) the automatizer's logits of next symbols (B, P, V) did not foresee: (B, P) bool."""
        given = coming[:, :-1].softmax(dim=-1).gather(2, symbols[:, 1:, None])[..., 0]
        return torch.cat([torch.ones_like(symbols[:, :1], dtype=torch.bool), given < self.foreseen], dim=1)

    def _states(self, symbols: Tensor, unforeseen: Tensor) -> Tensor:
        """The chunker's state (B, P, S) after each position."""
        inputs, states = self.symbols(symbols), []
        state = inputs.new_zeros(inputs[:, 0].shape)
        for position, is_new in enumerate(unforeseen.unbind(dim=1)):
            state = torch.where(is_new[:, None], self.cell(inputs[:, position], state), state)
            states.append(state)
        return torch.stack(states, dim=1)
