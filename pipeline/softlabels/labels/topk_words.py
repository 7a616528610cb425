"""What a store's card says of a top-k encoding, and the lines of Python that decode one row with numpy alone; docs/format.md
has the formulas, and a test runs the lines as they stand.
"""

from __future__ import annotations

from softlabels.labels.class_ids import pages
from softlabels.labels.topk_fields import TopkFields

_TAILS = {
    "lowrank": "by a prior and {rank} basis vectors, with coefficients for each position",
    "prior": "by a prior that all positions share",
    "uniform": "evenly",
    "bucket": "not at all: it is one outcome (spread evenly where every class is asked for)",
}
_CURVE = [
    "nodes = beta_max * np.sin(np.pi * np.arange(n) / (2 * (n - 1))) ** 2",
    "weights = [np.prod([(beta - nodes[j]) / (nodes[i] - nodes[j]) for j in range(n) if j != i]) for i in range(1, n)]",
    'g += row["tail_curve"] / 2048 @ np.array(weights)',
]


def tail_words(encoding: TopkFields, classes: int, basis_file: str) -> str:
    """What is kept of the tail."""
    if encoding.tail == "renormalised":
        return "no tail: the stored classes' probabilities are scaled to sum to 1, all others count as impossible"
    shape = encoding.basis_shape(classes)
    shared = "" if shape is None else f" ({2 * shape[0] * shape[1]:,} bytes in `{basis_file}`)"
    return (
        f"the mass of the tail at any T >= {1 / encoding.beta_max:g} from {encoding.nodes} nodes; tail: {encoding.tail}, "
        f"shared among its classes {_TAILS[encoding.tail].format(rank=encoding.rank)}{shared}"
    )


def topk_code(encoding: TopkFields, layout: str, path: str, classes: int, *, positions: bool) -> list[str]:
    """One row, decoded with numpy alone."""
    kept, lead = encoding.k, "(positions, members" if positions else "(members"
    names = str(tuple(name for name, *_ in encoding.columns(classes, 1)))
    row = ["import datasets", "", f'row = datasets.load_from_disk({path}).with_format("numpy")[0]']
    if layout == "zarr":
        row = [
            "import zarr",
            "",
            f'group = zarr.open_group({path}, mode="r")',
            f"row = {{name: group[name][0] for name in {names}}}",
        ]
    paged = f'ids += 65536 * (np.arange({kept})[:, None] >= row["top_page"][..., None, :]).sum(-1)'
    lines = [
        "import numpy as np",
        *row,
        "beta = 1 / 4.0  # T = 4",
        f'z = row["top_logit"].astype(float)  # {lead}, {kept}), less the maximum',
        'ids = row["top_class"].astype(int)',
        *([paged] if pages(classes) else []),
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
