"""Models that tests use as teachers, good ones and ones with the faults that the teacher stage must notice."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """z = W x."""

    def __init__(self, features: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)


class Dropping(Linear):
    """Drops out in evaluation mode too."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(inputs, 0.3, training=True))


class BatchStatistics(Linear):
    """Normalises by the batch in evaluation mode too: the same batch twice gives the same, another batch does not."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer((inputs - inputs.mean(0)) / (inputs.std(0, correction=0) + 1e-3))


class NanAt(Linear):
    """NaN for inputs whose first feature exceeds a bound."""

    def __init__(self, features: int = 6, classes: int = 5, bound: float = 1e30) -> None:
        super().__init__(features, classes)
        self.bound = bound

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs[:, :1] > self.bound, torch.nan, self.layer(inputs))


class Faulty(Linear):
    """Gives logits that cannot be, of a kind that the first feature names."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits, kind = self.layer(inputs), inputs[:, :1]
        first = torch.arange(logits.shape[1], device=logits.device) == 0
        logits = torch.where((kind == 1e6) & first, torch.nan, logits)
        logits = torch.where((kind == 2e6) & first, torch.inf, logits)
        logits = torch.where(kind == 3e6, -torch.inf, logits)
        return torch.where((kind == 4e6) & first, logits - 1e6, logits)


class Slow(Linear):
    """Takes its time, so that a test can stop it in the middle."""

    def __init__(self, features: int = 6, classes: int = 5, seconds: float = 0.02) -> None:
        super().__init__(features, classes)
        self.seconds = seconds

    def forward(self, inputs: Tensor) -> Tensor:
        import time

        time.sleep(self.seconds)
        return self.layer(inputs)


class Deep(nn.Sequential):
    """Four layers with normalisation and dropout, and logits about as far apart as a trained teacher's."""

    def __init__(self, features: int = 6, classes: int = 5, width: int = 32) -> None:
        widths = [features, *[width] * 4]
        layers = [
            layer
            for number in range(4)
            for layer in (nn.Linear(widths[number], width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(0.1))
        ]
        super().__init__(*layers, nn.Linear(width, classes))
        with torch.no_grad():
            self[-1].weight *= 4


class Cancelling(Linear):
    """Logits of about a thousandth of the terms that they are sums of."""

    def forward(self, inputs: Tensor) -> Tensor:
        pairs = torch.cat([inputs, inputs], dim=1)
        weights = torch.cat([self.layer.weight, -0.999 * self.layer.weight], dim=1)
        return nn.functional.linear(pairs, weights)


class BatchMask(Linear):
    """Class 1 is impossible for the second half of a batch."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.layer(inputs)
        logits[len(inputs) // 2 :, 1] = -torch.inf
        return logits


class Votes(Linear):
    """Gives the top class as whole numbers, which are no logits."""

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.one_hot(self.layer(inputs).argmax(1), self.layer.out_features)


class Pair(Linear):
    """Gives a tuple, which is no logits."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.layer(inputs), inputs


class TinyLM(nn.Module):
    """A causal language model: the mean of the tokens so far, and the last one, through tanh, times a matrix."""

    def __init__(self, vocabulary: int = 40, width: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.middle = nn.Linear(width, width)
        self.out = nn.Linear(width, vocabulary)
        with torch.no_grad():
            self.out.weight *= 4

    def hidden(self, inputs: Tensor) -> Tensor:
        tokens = self.embedding(inputs[:, 0, :-1].long())
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return torch.tanh(self.middle(tokens.cumsum(1) / count) + tokens)

    def output_matrix(self) -> tuple[Tensor, Tensor] | None:
        return self.out.weight, self.out.bias

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.hidden(inputs))


class OnlyForward(TinyLM):
    """The same without a matrix, as of an architecture that does more to its logits."""

    def output_matrix(self) -> None:
        return None


class DroppingLM(TinyLM):
    """Drops out in evaluation mode too."""

    def hidden(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(super().hidden(inputs), 0.3, training=True)


class LoosePadding(OnlyForward):
    """Its logits in padding depend on the batch; those that count do not."""

    def forward(self, inputs: Tensor) -> Tensor:
        padding = inputs[:, 1, :-1] == 0
        return super().forward(inputs) + padding[..., None] * len(inputs)


class WholeRow(OnlyForward):
    """Gives logits of all L tokens, one position too many."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(inputs, (0, 1)))


class NanAtToken(OnlyForward):
    """NaN where the token is 13."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs[:, 0, :-1, None] == 13, torch.nan, super().forward(inputs))
