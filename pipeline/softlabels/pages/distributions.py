"""What a page needs of a position to show its distribution at any temperature of the slider: log-probabilities at one
temperature of the classes that can be among the largest, and the few numbers that carry them to any other.

With b = 1 / T and b' that of the reference temperature, a member's class i has log p_i(T) = (b / b') log p_i(T') + s(T), with
the same s for all classes whose logits are stored, and another for those of a topk tail. Such curves, entropies and divergences
are kept at `temperatures`, Chebyshev's nodes in log T, and read between them by the barycentric formula (Berrut and Trefethen
2004, SIAM Review 46). They are analytic functions of log T, and as a factor of the logits only moves them, the error does not
depend on the logits' size. It depends on how many classes there are: one class beside C - 1 that are equal gives poles
atan(pi / log(C - 1)) away from the axis, which is the nearest that they come. `temperatures` has as many nodes as that takes.

N positions, M members, C classes, K kept classes, J nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softlabels.labels.bernoulli import sigmoid
from softlabels.labels.decoder import Columns
from softlabels.labels.encoding import Encoding
from softlabels.labels.ensemble import log_softmax
from softlabels.labels.members import Members

NODES = 16  # at least
_ERROR = 1e-3  # of a probability that is read between nodes
HIGHEST, LOWEST = 20.0, 0.5  # temperatures of the slider where labels allow it
ALL = 64  # classes up to which all are kept
TOP = 12  # classes of which every one is kept that is among so many at the ends or the middle of the slider
_BYTES = 1 << 25  # of a block's distributions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def span(encoding: Encoding) -> tuple[float, float]:
    """Between what temperatures a page shows labels that are known at more than one."""
    lowest = max(LOWEST if encoding.keeps_all else 1.0, encoding.lowest_temperature)
    return lowest, max(HIGHEST, 2 * lowest)


def temperatures(encoding: Encoding, classes: int) -> Floats:
    """(J,), ascending; the one temperature at which labels are known, where there is one."""
    if encoding.only_at is not None:
        return np.array([encoding.only_at])
    lowest, highest = span(encoding)
    middle, half = np.log(highest * lowest) / 2, np.log(highest / lowest) / 2
    # The error falls as rho^-J, where rho is the sum of the half axes of the ellipse through the nearest pole
    pole = np.pi / 2 if encoding.target == "sigmoid" else np.arctan(np.pi / np.log(max(classes, 3) - 1))
    count = max(NODES, 1 + int(np.ceil(-np.log(_ERROR) / np.arcsinh(pole / half))))
    found = np.exp(middle - half * np.cos(np.pi * np.arange(count) / (count - 1)))
    found[0], found[-1] = lowest, highest
    return np.asarray(found)


@dataclass(frozen=True, eq=False)
class Carried:
    """What it takes beside log-probabilities of some classes; float32, at the nodes of `temperatures`.

    Attributes:
        curves: (N, M, 2, J), s of stored classes and of those of a tail; None of a sigmoid. in_tail: (N, M, K) uint8.
        entropy: (N, J) of the ensemble in nats; of a sigmoid the sum over its classes.
        disagreement: (N, J), the members' mean KL to the ensemble (Jensen and Shannon's divergence).
        student_curves: (S, N, J). kl: (S, N, J), KL of the ensemble to each student.
    """

    curves: NDArray[np.float32] | None
    in_tail: NDArray[np.uint8]
    entropy: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    student_curves: NDArray[np.float32]
    kl: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shown:
    """N positions of a store's one target.

    Attributes:
        ids: (N, K) int32, the classes that are kept, ascending, -1 before a position's own.
        log_p: (N, M, K) float32, of members at the reference temperature; of a sigmoid their logits at T = 1.
        students: (S, N, K) float32, the same of students. students_top: (S, N) int32, their most probable class.
        carried: None where all classes are kept as logits, which is all it takes.
    """

    ids: NDArray[np.int32]
    log_p: NDArray[np.float32]
    students: NDArray[np.float32]
    students_top: NDArray[np.int32]
    carried: Carried | None


@dataclass(frozen=True)
class Teacher:
    """How the columns of one target are read.

    Attributes:
        encoding, classes, basis: of the store.
        weights: (M,), summing to 1.
    """

    encoding: Encoding
    classes: int
    basis: NDArray[np.float16] | None
    weights: Floats

    def member_log_probs(self, columns: Columns, temperature: float) -> Floats:
        """(N, M, C) of members; of a sigmoid their logits."""
        z = self.encoding.member_logits(columns, self.classes, self.basis, temperature)
        return log_softmax(z) if self.encoding.target == "softmax" else z

    def probabilities(self, columns: Columns, temperature: float) -> NDArray[np.float32]:
        """The ensemble's (N, C) of a softmax, in float32."""
        return self._averaged(columns, temperature).exp_().numpy()

    def _averaged(self, columns: Columns, temperature: float) -> torch.Tensor:
        weights = torch.from_numpy(self.weights.astype(np.float32))
        return self.soft(columns).averaged(weights, temperature, self.mean_name)

    def mean_flags(self, columns: Columns, temperature: float) -> Floats:
        """The ensemble's probability of each class (N, C) of a sigmoid."""
        return np.asarray(
            self.encoding.probabilities(
                columns, self.classes, self.basis, temperature=temperature, mean=self.mean_name, weights=self.weights
            )
        )

    def largest(self, columns: Columns, temperature: float, count: int) -> Ints:
        """The most probable classes (N, count) of a softmax's ensemble, the most probable first; in float32."""
        if len(self.weights) == 1:  # of topk labels they are kept
            found, _ = self.encoding.largest_log_probs(
                columns, self.classes, self.basis, temperature=temperature, mean=self.mean_name, weights=self.weights,
                k=count,
            )  # fmt: skip
            return found
        return np.asarray(self._averaged(columns, temperature).topk(count, dim=-1).indices.numpy(), np.int64)

    def soft(self, columns: Columns) -> Members:
        """The members in torch."""
        signed = {
            name: each.view(f"i{each.itemsize}") if each.dtype.kind == "u" else each for name, each in columns.items()
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in signed.items()}
        basis = None if self.basis is None else torch.from_numpy(self.basis.astype(np.float32))
        return self.encoding.members(tensors, self.classes, basis)

    @property
    def mean_name(self) -> str:
        """The mean that `store.log_probs` gives unasked; of labels that were reduced the one that they are."""
        return "geometric" if self.encoding.is_reduced else "arithmetic"

    @property
    def nodes(self) -> Floats:
        """(J,), see `temperatures`."""
        return temperatures(self.encoding, self.classes)

    @property
    def row_bytes(self) -> int:
        """Of one position's distribution."""
        return 8 * self.classes * len(self.weights)


def shown(teacher: Teacher, columns: Columns, labels: Ints, students: Sequence[NDArray[np.floating]] = ()) -> Shown:
    """What is shown of positions.

    Args:
        teacher: of the store.
        columns: (N, M, ...), of its soft columns.
        labels: (N,) hard labels, -1 for none; each one's class is kept.
        students: logits (N, C) of each.
    """
    step = max(1, _BYTES // teacher.row_bytes)
    parts = [
        _block(
            teacher,
            {name: values[start : start + step] for name, values in columns.items()},
            labels[start : start + step],
            [np.asarray(each[start : start + step], np.float64) for each in students],
        )
        for start in range(0, max(1, len(labels)), step)
    ]
    return parts[0] if len(parts) == 1 else _together(parts)


def _block(teacher: Teacher, columns: Columns, labels: Ints, students: Sequence[Floats]) -> Shown:
    if teacher.encoding.target == "sigmoid":
        return _flags(teacher, columns, students)
    nodes = teacher.nodes
    if teacher.encoding.keeps_all and teacher.classes <= ALL:
        return _whole(teacher, columns, students, float(nodes[reference_node(nodes)]))
    ids = _kept(teacher, columns, labels, students, nodes)
    found = teacher.encoding.summary(
        columns, teacher.classes, teacher.basis, weights=teacher.weights, temperatures=nodes.tolist(), ids=ids, others=students
    )  # fmt: skip
    reference = reference_node(nodes)
    ratio = nodes[reference] / nodes
    with np.errstate(invalid="ignore"):  # -inf of a tail that is empty
        curves = found.shift - ratio[:, None, None, None] * found.shift[reference]
    norm = found.norm.transpose(0, 2, 1)  # (S, N, J)
    gathered = np.stack([np.take_along_axis(z, ids.clip(min=0), axis=1) for z in students] or [np.zeros(ids.shape)])
    said = gathered[: len(students)] / nodes[reference] - norm[:, :, [reference]]
    carried = Carried(
        curves=np.nan_to_num(curves).transpose(1, 2, 3, 0).astype(np.float32),
        in_tail=found.in_tail.astype(np.uint8),
        entropy=found.entropy.T.astype(np.float32),
        disagreement=(found.entropy - found.own_entropy @ teacher.weights).T.clip(min=0).astype(np.float32),
        student_curves=(ratio * norm[:, :, [reference]] - norm).astype(np.float32),
        kl=(found.cross - found.entropy).clip(min=0).transpose(0, 2, 1).astype(np.float32),
    )
    log_p = np.where(ids[:, None] < 0, -np.inf, found.log_p[reference]).astype(np.float32)
    said = np.where(ids < 0, -np.inf, said).astype(np.float32)
    return Shown(ids.astype(np.int32), log_p, said, _tops(students, len(ids)), carried)


def _whole(teacher: Teacher, columns: Columns, students: Sequence[Floats], at: float) -> Shown:
    """All classes of a softmax."""
    log_p = teacher.member_log_probs(columns, at)
    count, _, classes = log_p.shape
    ids = np.broadcast_to(np.arange(classes, dtype=np.int32), (count, classes))
    said = np.stack([log_softmax(z / at) for z in students] or [np.zeros(ids.shape)])[: len(students)]
    return Shown(ids, log_p.astype(np.float32), said.astype(np.float32), _tops(students, count), None)


def flag_entropy(p: Floats) -> Floats:
    """Of a Bernoulli a class in nats, summed over the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = np.where(p > 0, p * np.log(p), 0.0), np.where(p < 1, (1 - p) * np.log1p(-p), 0.0)
    return np.asarray(-(one + other).sum(axis=-1))


def _finite(values: Floats) -> Floats:
    return np.asarray(np.where(np.isneginf(values), 0.0, values))


def _tops(students: Sequence[Floats], count: int) -> NDArray[np.int32]:
    return np.stack([z.argmax(axis=-1) for z in students] or [np.zeros(count)])[: len(students)].astype(np.int32)


def _kept(teacher: Teacher, columns: Columns, labels: Ints, students: Sequence[Floats], nodes: Floats) -> Ints:
    """Ids (N, K) of classes that are kept, ascending; -1 fills up in front."""
    classes, count = teacher.classes, len(labels)
    if classes <= ALL:
        return np.broadcast_to(np.arange(classes), (count, classes)).copy()
    found = [labels[:, None]] + [_largest(z) for z in students]
    for temperature in {float(nodes[0]), float(nodes[len(nodes) // 2]), float(nodes[-1])}:
        found.append(teacher.largest(columns, temperature, TOP))
    every = np.sort(np.concatenate(found, axis=1), axis=1)
    every[:, 1:][every[:, 1:] == every[:, :-1]] = -1
    every = np.sort(every, axis=1)
    return every[:, (every >= 0).any(axis=0)]


def _largest(z: Floats) -> Ints:
    return np.argpartition(-z, TOP - 1, axis=-1)[:, :TOP].astype(np.int64)


def reference_node(nodes: Floats) -> int:
    """The node next to T = 1, at which log-probabilities are kept."""
    return int(np.abs(np.log(nodes)).argmin())


def _flags(teacher: Teacher, columns: Columns, students: Sequence[Floats]) -> Shown:
    """The same of sigmoids: logits carry themselves."""
    nodes = teacher.nodes
    at = 1.0 if teacher.encoding.only_at is None else float(nodes[0])
    z = teacher.member_log_probs(columns, at) * at
    count, _, classes = z.shape
    ids = np.broadcast_to(np.arange(classes), (count, classes))
    if classes > ALL:
        mean = np.tensordot(_finite(z), teacher.weights, axes=([1], [0]))
        ids = np.sort(np.argpartition(-mean, 31, axis=-1)[:, :32], axis=-1)
    gathered = [np.take_along_axis(each, ids, axis=-1) for each in students]
    return Shown(
        ids=ids.astype(np.int32),
        log_p=np.take_along_axis(z, ids[:, None], axis=-1).astype(np.float32),
        students=np.stack(gathered or [np.zeros(ids.shape)])[: len(students)].astype(np.float32),
        students_top=_tops(students, count),
        carried=None if classes <= ALL else _flag_scores(teacher, z, ids, students, nodes),
    )


def _flag_scores(teacher: Teacher, z: Floats, ids: Ints, students: Sequence[Floats], nodes: Floats) -> Carried:
    """The scores over all classes."""
    entropy, apart = np.zeros((2, len(z), len(nodes)))
    kl = np.zeros((len(students), len(z), len(nodes)))
    for number, temperature in enumerate(nodes.tolist()):
        p = sigmoid(z / temperature)
        own = np.tensordot(p, teacher.weights, axes=([1], [0]))
        entropy[:, number] = flag_entropy(own)
        apart[:, number] = entropy[:, number] - flag_entropy(p) @ teacher.weights
        for student, logits in enumerate(students):
            z_student = logits / temperature  # not its probabilities, which round to 0 and 1
            cross = own * np.logaddexp(0, -z_student) + (1 - own) * np.logaddexp(0, z_student)
            kl[student, :, number] = cross.sum(-1) - entropy[:, number]
    return Carried(
        curves=None,
        in_tail=np.zeros((len(z), z.shape[1], ids.shape[1]), np.uint8),
        entropy=entropy.astype(np.float32),
        disagreement=apart.clip(min=0).astype(np.float32),
        student_curves=np.zeros(kl.shape, np.float32),
        kl=kl.clip(min=0).astype(np.float32),
    )


def _together(parts: Sequence[Shown]) -> Shown:
    """Blocks behind each other; of fewer kept classes than others are filled up in front."""
    most = max(part.ids.shape[1] for part in parts)

    def filled(values: NDArray[Any], fill: float) -> NDArray[Any]:
        before = [(0, 0)] * (values.ndim - 1) + [(most - values.shape[-1], 0)]
        return np.pad(values, before, constant_values=fill)

    carried = [part.carried for part in parts if part.carried is not None]
    return Shown(
        ids=np.concatenate([filled(part.ids, -1) for part in parts]),
        log_p=np.concatenate([filled(part.log_p, -np.inf) for part in parts]),
        students=np.concatenate([filled(part.students, -np.inf) for part in parts], axis=1),
        students_top=np.concatenate([part.students_top for part in parts], axis=1),
        carried=Carried(
            curves=None if carried[0].curves is None else np.concatenate([each.curves for each in carried]),
            in_tail=np.concatenate([filled(each.in_tail, 0) for each in carried]),
            entropy=np.concatenate([each.entropy for each in carried]),
            disagreement=np.concatenate([each.disagreement for each in carried]),
            student_curves=np.concatenate([each.student_curves for each in carried], axis=1),
            kl=np.concatenate([each.kl for each in carried], axis=1),
        )
        if carried
        else None,
    )


def weights_at(temperature: float, nodes: Floats) -> Floats:
    """(J,): what each node counts for at a temperature; as `static/page.js` computes it."""
    x, places = np.log(temperature), np.log(nodes)
    if len(nodes) == 1 or np.isclose(x, places, rtol=0, atol=1e-12).any():
        return np.asarray(np.isclose(x, places, rtol=0, atol=1e-12) | (len(nodes) == 1), np.float64)
    signs = (-1.0) ** np.arange(len(nodes))
    signs[[0, -1]] /= 2
    parts = signs / (x - places)
    return np.asarray(parts / parts.sum())
