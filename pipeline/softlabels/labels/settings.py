"""`EncodingSettings`: what a recipe or a command line says of how a target is kept, and the encoding that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from softlabels.errors import ConfigError
from softlabels.labels.decoder import Inputs, Reduce
from softlabels.labels.encoding import DenseEncoding, Encoding, SigmoidEncoding, Tail, TopkEncoding, ValuesEncoding
from softlabels.labels.targets import Target

FINE = 16  # coefficients that have 8 bits where nothing else is asked for


@dataclass(frozen=True)
class EncodingSettings:
    """How a target is kept. docs/targets.md says what kinds there are, docs/any-temperature.md how a softmax is kept;
    `softlabels encode` tries settings on a dense store.

    Attributes:
        encoding: for a softmax: dense keeps the logit of every class; topk keeps the k largest and the tail, for large label
            spaces.
        k: for topk: how many classes are stored individually.
        tail: for topk: the shape of the tail: lowrank, prior, uniform, bucket; or renormalised (no tail at all).
        rank: for lowrank tails: coefficients per distribution.
        fine: for lowrank tails: how many leading coefficients have 8 bits; the others have 4. By default 16, or all if there
            are fewer.
        nodes: for topk: number of temperatures at which the tail's mass is stored, 2 or more.
        min_temperature: for topk: the lowest temperature at which the labels can be used.
        kind: what the teacher's outputs are: softmax (logits of one distribution over the classes), sigmoid (one independent
            logit per class) or values (real numbers).
        dtype: for sigmoid and values: float16 or float32; by default float16 for sigmoid, float32 for values.
    """

    encoding: Literal["dense", "topk"] = "dense"
    k: int = 8
    tail: Tail = "lowrank"
    rank: int = 102
    fine: int | None = None
    nodes: int = 12
    min_temperature: float = 1.0
    kind: Target = "softmax"
    dtype: Literal["float16", "float32"] | None = None

    def made(
        self, members: int, *, classes: int | None = None, reduce: Reduce = "none", inputs: Inputs = "reference"
    ) -> Encoding:
        """The encoding of a teacher of so many members (and classes, where they are known), its basis not found yet; settings
        that its tail has no use for are left out.

        Raises:
            ConfigError: a setting out of range, or settings that do not go together, see `EncodingBase.check`.
        """
        self._check_kind()
        if self.kind == "sigmoid":
            found: Encoding = SigmoidEncoding(dtype=self.dtype or "float16", reduce=reduce, inputs=inputs)
        elif self.kind == "values":
            found = ValuesEncoding(dtype=self.dtype or "float32", reduce=reduce, inputs=inputs)
        elif self.encoding == "dense":
            found = DenseEncoding(reduce=reduce, inputs=inputs)
        else:
            found = self._topk(reduce, inputs)
        found.check(1 if found.is_reduced else members, classes)
        return found

    def _topk(self, reduce: Reduce, inputs: Inputs) -> Encoding:
        self._check_ranges()
        rank = self.rank if self.tail == "lowrank" else 0
        return TopkEncoding(
            k=self.k,
            tail=self.tail,
            nodes=0 if self.tail == "renormalised" else self.nodes,
            beta_max=1 / self.min_temperature,
            rank=rank,
            fine=min(FINE if self.fine is None else self.fine, rank),
            reduce=reduce,
            inputs=inputs,
        )

    def _check_kind(self) -> None:
        """Raise `ConfigError` for settings of another kind than what is kept."""
        if self.kind == "softmax":
            if self.dtype is not None:
                raise ConfigError(
                    f"dtype is {self.dtype}, and a softmax's logits are kept as float16",
                    remedy="leave dtype out; it is for kind=sigmoid and kind=values",
                )
            return
        of_softmax = [field for field in fields(EncodingSettings) if field.name not in ("kind", "dtype")]
        given = [field.name for field in of_softmax if getattr(self, field.name) != field.default]
        if given:
            raise ConfigError(
                f"kind is {self.kind}, and {', '.join(given)} say how a softmax is kept",
                remedy=f"leave out {', '.join(given)}; {self.kind} keeps every number",
            )

    def _check_ranges(self) -> None:
        ranges = (
            ("k", self.k, 1, 1 << 16),
            ("rank", self.rank, 0, 4096),
            ("fine", self.fine or 0, 0, 4096),
            ("nodes", self.nodes, 2, 32),
            # Students are judged at T = 1, whatever they are trained at.
            ("min_temperature", self.min_temperature, 2.0**-10, 1),
        )
        for name, value, least, most in ranges:
            if not least <= value <= most:
                raise ConfigError(f"{name} is {value}", remedy=f"give a number from {least:g} to {most:g}")
        if self.tail == "lowrank" and (self.fine or 0) > self.rank:
            raise ConfigError(
                f"fine is {self.fine}, and there are {self.rank} coefficients (rank)",
                remedy=f"give at most {self.rank}, or leave fine out",
            )
