"""Which ways there are to keep a teacher's labels: what each would take of the whole transfer set, by its specification, and
what it would lose, by a pilot.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from softlabels.errors import ConfigError
from softlabels.jobs.labelled import Labelled
from softlabels.jobs.plan_pass import PilotPass, bytes_in, positions_held, weighed
from softlabels.labels.encoding import Encoding
from softlabels.labels.fidelity import by_temperature
from softlabels.labels.tail_basis import find_basis
from softlabels.labels.tail_fit import TailBasis
from softlabels.report.estimates import Weighed, whole_bytes
from softlabels.report.plan import Size
from softlabels.store import open_store
from softlabels.store.convert import convert
from softlabels.store.spec import Spec
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.examine import Examined, examine
from softlabels.teacher.pilot import Pilot, pilot_mask, pilot_rows
from softlabels.transfer import TransferRows

KS = (8, 16, 32, 64, 128)  # of topk labels that are tried
LAYOUTS: tuple[Literal["zarr", "arrow"], ...] = ("zarr", "arrow")
ENOUGH = 0.002  # nats of mean KL that students do not notice (docs/results.md)
_WORTH = 0.5  # of dense labels' bytes that topk ones may take to be tried

Ways = Mapping[str, tuple[Encoding, LabelsConfig]]  # encoding and settings by what tables call them


def ways(job: Labelled[Any], rows: TransferRows) -> dict[str, tuple[Encoding, LabelsConfig]]:
    """The recipe's own way first; of one softmax without a name the others: dense, and topk with each k that takes less than
    half the bytes, its basis found in a sample of `rows`.
    """
    own, labels = job.encodings, job.labels
    if {*own} != {""}:
        return {"as the recipe says": (next(iter(own.values())), labels)}
    (mine,) = own.values()
    name = f"topk, k={labels.k}" if mine.kind == "topk" else mine.kind
    found = {name: (mine, labels)}
    if mine.target != "softmax" or job.teacher.weights is None:
        return found
    members = len(job.teacher.spec.members)
    classes = _classes(job)
    made: dict[str, Any] = {"classes": classes, "reduce": mine.reduce, "inputs": mine.inputs}
    dense = dataclasses.replace(labels, encoding="dense", k=8)
    found.setdefault("dense", (dense.made(members, **made), dense))
    stored = 1 if mine.is_reduced else members
    most = _WORTH * _row_bytes(found["dense"][0], classes, stored)
    rank = min(labels.rank, classes, int(pilot_mask(rows, pilot_rows(rows)[::2]).sum()))
    fine = labels.fine if rank == labels.rank else None
    for k in KS:
        try:
            topk = dataclasses.replace(labels, encoding="topk", k=k, rank=rank, fine=fine)
            encoding = topk.made(members, **made)
        except ConfigError:  # more than there are classes, say
            continue
        if _row_bytes(encoding, classes, stored) < most:
            found.setdefault(f"topk, k={k}", (encoding, topk))
    return found


def sizes(job: Labelled[Any], tried: Ways, found: Examined | None, pilot: PilotPass, folder: Path) -> list[Size]:
    """Bytes of each way in both layouts, of all splits, and what it lost; the recipe's own first. The pilot's stores say what
    files take beside the arrays; `folder` is for them in the other layout.
    """
    own, made, held = job.labels, list[Size](), dict[str, int]()
    measured = {
        (split, layout): _measured(pilot, split, layout, own.layout, folder / split)
        for split in job.rows
        for layout in LAYOUTS
    }
    for name, (encoding, labels) in tried.items():
        encodings = {"": encoding} if "" in job.encodings else job.encodings
        for layout in sorted(LAYOUTS, key=lambda each: each != own.layout):
            compression = own.compression if layout == own.layout else "none"
            settings = dataclasses.replace(labels, layout=layout, compression=compression)
            way = dataclasses.replace(job, labels=settings, encodings=encodings)
            total = 0
            for split in job.rows:
                spec = way.spec(split, _blank(way))
                lean, files, stored = measured[split, layout]
                if spec.ragged and split not in held:  # which all ways have alike
                    held[split] = positions_held(spec, job.rows[split])
                whole = weighed(spec, held[split] if spec.ragged else None)
                total += whole_bytes(whole, lean, files=files, stored=stored) + _basis_bytes(spec)
            made.append(Size(name, layout, total, _kl(name, found), not made))
    return made


def _measured(pilot: PilotPass, split: str, layout: str, own: str, folder: Path) -> tuple[Weighed, int, int]:
    """What a pilot's store is by its specification, and the bytes of its files, and of these by arrays, but for the basis.
    Ragged rows are in one layout only: in the other one nothing is saved.
    """
    store, files = pilot.stores[split], pilot.files[split]
    if layout != own and store.spec.ragged:
        lean = weighed(store.spec)
        return lean, files - store.manifest.bytes + lean.data, lean.data
    if layout != own:
        convert(pilot.folder / split, folder, layout=layout)
        store, files = open_store(folder), bytes_in(folder)
    basis = _basis_bytes(store.spec)
    held = int(np.asarray(store.column("positions")).sum()) if store.spec.ragged else None
    return weighed(store.spec, held), files - basis, store.manifest.bytes - basis


def _basis_bytes(spec: Spec) -> int:
    return 2 * math.prod(spec.basis_shape or (0,))


def examined(rows: TransferRows, job: Labelled[Any], tried: Ways) -> Examined | None:
    """What a sample of the rows says of the first softmax target, and of the ways. The basis of tails is found in every other
    row of the sample, and they are tried on the rest; where half the sample is too small for it, both in all of it. None where
    the teacher gives no logits.
    """
    teacher = job.teacher
    weights, own = teacher.weights, {name: each for name, each in job.encodings.items() if each.target == "softmax"}
    if weights is None or not own:
        return None
    name, kept = next(iter(own.items()))
    classes = min(each[name] for each in job.classes.values())
    at = pilot_rows(rows)
    ranks = {rank for each, _ in tried.values() if (rank := each.basis_rank) is not None}
    is_enough = len(at) > 1 and pilot_mask(rows, at[::2]).sum() >= max(ranks, default=0)
    fits, tries = (rows.take(at[::2]), rows.take(at[1::2])) if is_enough else (rows, rows)
    basis = None
    if ranks:
        found = find_basis(Pilot(fits, teacher, kept, name), max(ranks))
        basis = TailBasis(torch.from_numpy(np.array(found)).to(teacher.device))
    shares = np.ones(1) if kept.is_reduced else np.asarray(weights, np.float64)
    return examine(
        Pilot(tries, teacher, kept, name),
        shares,
        encodings={way: each for way, (each, _) in tried.items() if "" in own},
        basis=basis,
        tails=[k for k in KS if k < classes],
    )


def chosen(found: Iterable[Size], temperatures: Iterable[float]) -> tuple[str, str]:
    """The way to take, and why: of those that lose no more than students notice, at 1 and at the students' temperature, the one
    of the fewest bytes.
    """
    every, at = list(found), [f"{t:g}" for t in sorted({1.0, *temperatures})]
    own = [each for each in every if each.layout == every[0].layout]
    if len(own) == 1:
        return own[0].name, "there is no other way to keep these labels"

    def lost(size: Size) -> float:
        known = [kl for t, kl in (size.kl or {}).items() if t in at]
        return max((float("inf") if kl is None else kl for kl in known), default=float("inf"))

    good = [each for each in own if lost(each) <= ENOUGH] or [each for each in own if each.name == "dense"]
    best = min(good, key=lambda each: each.bytes)
    if best.name == "dense":
        return (
            "dense",
            "it keeps every class, and no topk labels that were tried lose as little as students do not notice",
        )
    return best.name, (
        f"of the ways that lose at most {ENOUGH} nats on average at temperature {' and '.join(at)} (here {lost(best):.1e}) "
        "it takes the fewest bytes"
    )


def _kl(name: str, found: Examined | None) -> dict[str, float | None] | None:
    if found is None or name not in found.lost:
        return None
    return {t: each.kl_mean for t, each in by_temperature(found.lost[name])}


def _blank(job: Labelled[Any]) -> np.ndarray | None:
    """A basis of the right shape."""
    ranks = {name: rank for name, each in job.encodings.items() if (rank := each.basis_rank) is not None}
    for name, rank in ranks.items():
        return np.zeros((1 + rank, min(each[name] for each in job.classes.values())), np.float16)
    return None


def _classes(job: Labelled[Any]) -> int:
    """Of the first target."""
    return min(next(iter(each.values())) for each in job.classes.values())


def _row_bytes(encoding: Encoding, classes: int, members: int) -> int:
    return sum(
        np.dtype(dtype).itemsize * int(np.prod(shape)) for _, dtype, shape, _ in encoding.columns(classes, members)
    )
