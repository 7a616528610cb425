"""What a store's card says about its encoding, and the lines of Python that load it: with plain zarr or `datasets`, and with
this software. A test runs them as they stand.
"""

from __future__ import annotations

import json
import math

from softlabels.labels.class_ids import pages
from softlabels.labels.encoding import TopkEncoding
from softlabels.store.basis import BASIS_FILE
from softlabels.store.spec import Manifest, Spec

_TAILS = {
    "lowrank": "by a prior and {rank} basis vectors, with coefficients for each position",
    "prior": "by a prior that all positions share",
    "uniform": "evenly",
    "bucket": "not at all: it is one outcome (spread evenly where every class is asked for)",
}


def encoding_line(manifest: Manifest) -> str:
    """How distributions are kept, and in how many bytes."""
    spec, encoding = manifest.spec, manifest.spec.encoding
    size = f"{manifest.bytes_per_position:.1f}".removesuffix(".0")
    if not isinstance(encoding, TopkEncoding):
        what = "dense, logits minus their maximum as float16 and the maximum as float32"
    else:
        what = f"topk, the k = {encoding.k} largest logits minus the maximum as float16; {_tail(spec, encoding)}"
    return f"- Encoding: {what}, reduce: {encoding.reduce}, {size} bytes a position; layout {spec.layout}"


def _tail(spec: Spec, encoding: TopkEncoding) -> str:
    if encoding.tail == "renormalised":
        return "no tail: the stored classes' probabilities are scaled to sum to 1, all others count as impossible"
    shared = "" if spec.basis_shape is None else f" ({2 * math.prod(spec.basis_shape):,} bytes in `{BASIS_FILE}`)"
    return (
        f"the mass of the tail at any T >= {1 / encoding.beta_max:g} from {encoding.nodes} nodes; tail: {encoding.tail}, "
        f"shared among its classes {_TAILS[encoding.tail].format(rank=encoding.rank)}{shared}"
    )


def loading(manifest: Manifest, path: str) -> str:
    """The section "How to load" for the store at `path`."""
    spec = manifest.spec
    shape = "(8, classes)" if spec.positions is None else "(8, positions, classes)"
    ours = (
        f"from softlabels import open_store\n\nstore = open_store({json.dumps(path)})\n"
        f"log_p = store.log_probs(range(8), temperature=4.0)  # {shape}, the ensemble's distribution"
    )
    plain = _plain_dense(spec, path)
    how = "`softmax(logits / T)` over the last axis is a member's distribution at temperature T"
    if isinstance(spec.encoding, TopkEncoding):
        plain = "\n".join(_plain_topk(spec, spec.encoding, path))
        how = "`p` and `tail_mass` are a member's probabilities of the classes `ids`, and of all others together"
    label = "With plain zarr" if spec.layout == "zarr" else "With `datasets`"
    return (
        f"{label}; {how}:\n\n```python\n{plain}\n```\n\n"
        f"With `softlabels`, every chunk checked, members averaged:\n\n```python\n{ours}\n```"
    )


def _plain_dense(spec: Spec, path: str) -> str:
    shape = "(rows, members, classes)" if spec.positions is None else "(rows, positions, members, classes)"
    if spec.layout == "zarr":
        return f'import zarr\n\nlogits = zarr.open_group({json.dumps(path)}, mode="r")["logits"][:]  # {shape}'
    return (
        f'import datasets\n\nlogits = datasets.load_from_disk({json.dumps(path)}).with_format("arrow")["logits"]  '
        "# float16; the numpy and torch formats give float32"
    )


def _plain_topk(spec: Spec, encoding: TopkEncoding, path: str) -> list[str]:
    """One row, decoded with numpy alone; docs/format.md has the formulas."""
    kept, lead = encoding.k, "(members" if spec.positions is None else "(positions, members"
    row = (
        [
            "import zarr",
            "",
            f'group = zarr.open_group({json.dumps(path)}, mode="r")',
            "row = {name: group[name][0] for name in COLUMNS}",
        ]
        if spec.layout == "zarr"
        else ["import datasets", "", f'row = datasets.load_from_disk({json.dumps(path)}).with_format("numpy")[0]']
    )
    names = str(spec.soft_columns)
    paged = pages(spec.label_space.classes) > 0
    lines = ["import numpy as np", *(line.replace("COLUMNS", names) for line in row)]
    lines += [
        "beta = 1 / 4.0  # T = 4",
        f'z = row["top_logit"].astype(float)  # {lead}, {kept}), less the maximum',
        'ids = row["top_class"].astype(int)',
        *([f'ids += 65536 * (np.arange({kept})[:, None] >= row["top_page"][..., None, :]).sum(-1)'] if paged else []),
        "h = np.log(np.exp(beta * z).sum(-1))",
    ]
    if encoding.tail == "renormalised":
        return [*lines, "p, tail_mass = np.exp(beta * z - h[..., None]), 0.0"]
    return [
        *lines,
        f"n, beta_max = {encoding.nodes}, {encoding.beta_max}",
        'odds = np.maximum(row["tail_odds"].astype(float), -1e9)  # -inf: no tail at all',
        "first = odds[..., 0] + np.log(np.isfinite(z).sum(-1))",
        "last = odds[..., 1] + np.log(np.exp(beta_max * z).sum(-1))",
        "g = first + (last - first) * beta / beta_max",
        *_CURVE,
        "total = np.logaddexp(g, h)",
        "p, tail_mass = np.exp(beta * z - total[..., None]), np.exp(g - total)",
    ]


_CURVE = [
    "nodes = beta_max * np.sin(np.pi * np.arange(n) / (2 * (n - 1))) ** 2",
    "weights = [np.prod([(beta - nodes[j]) / (nodes[i] - nodes[j]) for j in range(n) if j != i]) for i in range(1, n)]",
    'g += row["tail_curve"] / 2048 @ np.array(weights)',
]
