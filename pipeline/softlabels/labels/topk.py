"""The top-k encoding: the K largest logits of a distribution, its tail's mass at any temperature, and its tail's shape.

What may be chosen, and what columns follow, is in `topk_fields`; what these mean in `topk_reference` (float64 numpy).
`topk_encode` makes them, `topk_soft` decodes them in torch.

R rows or positions (any number of leading axes), M members, C classes, K stored classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import ArrayLike, NDArray

from softlabels.labels.asked import Gap, KeptProbabilities, Summary
from softlabels.labels.base import Encoded
from softlabels.labels.class_ids import PAGE, narrow, pages, widen
from softlabels.labels.compare import topk_gap
from softlabels.labels.decoder import Basis, Columns, Floats, Ints
from softlabels.labels.fidelity import MASS_OFF, Fidelity
from softlabels.labels.tail_mass import check_beta
from softlabels.labels.topk_fields import TopkFields, check_ids, check_others
from softlabels.labels.topk_reference import stored_log_probs, topk_log_probs
from softlabels.labels.topk_words import tail_words, topk_code

if TYPE_CHECKING:
    from torch import Tensor

    from softlabels.labels.blocks import Block
    from softlabels.labels.tail_fit import TailBasis
    from softlabels.labels.topk_soft import TopkMembers


class TopkEncoding(TopkFields, frozen=True, kw_only=True, tag="topk"):
    """See `TopkFields`.

    Example:
        >>> from softlabels.labels.encoding import TopkEncoding
        >>> few = store_spec(
        ...     teacher="mine", name="noise", keys=array_keys(inputs), classes=5, encoding=TopkEncoding(k=2, tail="uniform")
        ... )
        >>> few.encoding.k, few.encoding.tail
        (2, 'uniform')
    """

    first_format: ClassVar[int] = 2
    keeps_all: ClassVar[bool] = False
    read_hint: ClassVar[str] = (
        "the largest logits of each distribution and its tail; README.md and docs/format.md say how they are decoded"
    )
    how: ClassVar[str] = (
        "`p` and `tail_mass` are a member's probabilities of the classes `ids`, and of all others together"
    )

    def with_basis(self, digest: str) -> Self:
        return msgspec.structs.replace(self, basis=digest)

    def beside(self, name: str, classes: int) -> str | None:
        return "top_page" if name == "top_class" and pages(classes) else None

    def blank(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The first K classes, all logits 0, no label."""
        if name == "top_class":
            return np.broadcast_to(np.arange(self.k) % (1 << 8 * dtype.itemsize), shape).astype(dtype)
        if name == "top_page":
            return np.broadcast_to(np.minimum(self.k, PAGE * np.arange(1, shape[-1] + 1)), shape).astype(dtype)
        return np.full(shape, np.nan if name == "label_logit" else 0, dtype)

    def check_values(
        self, name: str, values: NDArray[Any], classes: int, beside: NDArray[Any] | None, first_row: int
    ) -> None:
        if name == "top_class":
            check_ids(values, beside, classes, first_row)
        else:
            check_others(name, values, self, first_row)

    def encoder(self, classes: int, basis: TailBasis | None, labels: Tensor | None) -> Callable[[Block], Encoded]:
        from softlabels.labels.topk_encode import TopkEncoder

        return TopkEncoder(self, classes, basis, labels)

    def check_temperature(self, temperature: float) -> None:
        super().check_temperature(temperature)
        check_beta(self, temperature)

    def bounded(self) -> Self:
        """See `EncodingBase.bounded`. If the mass of the tail is known at only one temperature T (`one_temperature`), the
        straight line from it to beta = 0 lies above g, which is convex. So above T the tail has at most the mass of that line.
        """
        if self.known_at is not UNSET and self.tail != "renormalised" and self.nodes == 2:
            return msgspec.structs.replace(self, known_at=UNSET)
        return super().bounded()

    def member_logits(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, temperature: float
    ) -> NDArray[np.float64]:
        return topk_log_probs(columns, self, classes, basis, temperature)

    def kept(self, classes: int) -> int:
        return self.k

    def largest_log_probs(
        self, columns: Columns, classes: int, basis: NDArray[np.float16] | None, *, temperature: float, mean: str,
        weights: ArrayLike, k: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:  # fmt: skip
        """See `EncodingBase.largest_log_probs`; for one member the classes of its tail are not read."""
        if columns["top_logit"].shape[1] != 1 or k > self.k:
            return super().largest_log_probs(
                columns, classes, basis, temperature=temperature, mean=mean, weights=weights, k=k
            )
        self.check_temperature(temperature)
        ids, log_p, _ = stored_log_probs(columns, self, classes, temperature)
        ids, log_p = ids[:, 0], log_p[:, 0]
        order = np.lexsort((ids, -log_p), axis=-1)[:, :k]
        return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(log_p, order, axis=-1)

    def summary(
        self, columns: Columns, classes: int, basis: Basis, *, weights: Floats, temperatures: Sequence[float], ids: Ints,
        others: Sequence[NDArray[np.floating]] = (),
    ) -> Summary:  # fmt: skip
        from softlabels.labels.topk_summary import topk_summary

        return topk_summary(
            columns, self, classes, basis, weights=weights, temperatures=temperatures, ids=ids, others=others
        )

    def summary_numbers(self, classes: int, members: int) -> int:
        each = classes if self.has_shapes(classes) else 16 * self.k  # which are sorted and looked for
        return members * each

    def kept_probabilities(
        self, columns: Columns, classes: int, weights: Floats, *, temperature: float, labels: Ints | None = None
    ) -> KeptProbabilities:
        from softlabels.labels.topk_kept import kept_probabilities

        return kept_probabilities(columns, self, classes, weights, temperature, labels)

    def members(self, columns: Mapping[str, Tensor], classes: int, basis: Tensor | None = None) -> TopkMembers:
        from softlabels.labels.topk_soft import TopkMembers

        return TopkMembers.of(columns, encoding=self, classes=classes, basis=basis)

    def largest(self, columns: Columns, classes: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `EncodingBase.largest`; of the classes that any member stores, where one in another's tail has an even share."""
        found = self.kept_probabilities(columns, classes, weights, temperature=self.near_1)
        return np.take_along_axis(found.ids, found.p.argmax(axis=1)[:, None], axis=1)[:, 0]

    def gaps(self, one: Columns, other: Columns, classes: int) -> list[Gap]:
        first, second = (stored_log_probs(side, self, classes, self.near_1) for side in (one, other))
        return [topk_gap(one, other, first, second, classes), topk_gap(other, one, second, first, classes)]

    def reordered(self, columns: Columns, order: NDArray[np.int64], classes: int) -> Columns:
        ids = np.argsort(order)[widen(columns, classes)]
        ascending = np.argsort(ids, axis=-1)
        logit = np.take_along_axis(columns["top_logit"], ascending, axis=-1)
        return {**columns, **narrow(np.take_along_axis(ids, ascending, axis=-1), classes), "top_logit": logit}

    def words(self, classes: int, basis_file: str) -> str:
        tail = tail_words(self, classes, basis_file)
        return f"topk, the k = {self.k} largest logits minus the maximum as float16; {tail}"

    def code(self, layout: str, path: str, classes: int, *, positions: bool) -> str:
        return "\n".join(topk_code(self, layout, path, classes, positions=positions))

    def warning(self, fidelity: Mapping[str, Fidelity]) -> str | None:
        worst = max(fidelity, key=lambda t: fidelity[t].tail_mass_error, default="")
        if not worst or self.tail == "renormalised" or fidelity[worst].tail_mass_error <= MASS_OFF:
            return None
        return (
            f"the tail's mass is off by up to {fidelity[worst].tail_mass_error:.2g} (at T={worst}): keep more nodes, and mark "
            "impossible classes with -inf where the teacher marks them with a large negative number, which few nodes cannot "
            "follow"
        )
