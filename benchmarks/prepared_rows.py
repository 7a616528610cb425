"""What it costs to open prepared rows, with and without 64 of them prepared anew (docs/checks.md, "Prepare functions").

Rows are opened as each command opens them: the source through `datasets`, the digests of the cached files, the check. Without
the check cached rows are believed. Both ways take turns in one run. The check costs the same for any number of rows, and more
where a row takes longer to decode.

    python -m benchmarks.prepared_rows --output benchmarks/results/prepared_rows.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.page import machine, publish
from softlabels.objects import ObjectSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set

WAYS = ("with the check", "without")


def main(argv: Sequence[str] | None = None) -> None:
    """Time both ways in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=60_000, help="small pictures")
    parser.add_argument("--photographs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7, help="every way runs once a round")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    datasets.disable_progress_bars()
    lines = [
        "# What opening prepared rows costs",
        "",
        f"Seconds, best and median of {options.rounds} rounds, in each of which both ways run once; page cache warm.",
        "",
        machine("numpy", "pillow", "pyarrow", "datasets"),
        "",
        "| rows | with the check, best | without, best | the check, of the best | of the median |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    shapes = ((options.rows, "PNG", (28, 28)), (options.photographs, "JPEG", (375, 500, 3)))
    for rows, kind, shape in shapes:
        with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
            write(Path(folder) / "data", rows, kind, shape)
            found = opened(Path(folder), options.rounds)
        best, median = ([measure(found[way]) for way in WAYS] for measure in (min, statistics.median))
        size = " x ".join(map(str, shape))
        lines.append(
            f"| {rows:,} {kind} of {size} | {best[0]:.3f} | {best[1]:.3f} | {best[0] - best[1]:.3f} | "
            f"{median[0] - median[1]:.3f} |"
        )
    publish("\n".join(lines) + "\n", options.output)


def write(folder: Path, rows: int, kind: str, shape: tuple[int, ...]) -> None:
    """A Parquet file of pictures: smooth noise, so that they are as large as real ones."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(rows):
        coarse = rng.integers(0, 256, (7, 7, *shape[2:])).astype(np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(coarse).resize((shape[1], shape[0])).save(buffer, kind)
        files.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
    features = datasets.Features({"image": datasets.Image()})
    folder.mkdir()
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), folder / "train.parquet")


def opened(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds that opening takes, each way; the rows are prepared beforehand."""
    config = TransferSetConfig(
        source=str(folder / "data"),
        label=None,
        splits={"train": "train"},
        prepare=ObjectSpec("softlabels.transfer.image"),
    )
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with mock.patch("datasets.config.HF_DATASETS_CACHE", folder / "datasets"):
        load_transfer_set(config, "train", cache=folder / "cache")
        for _ in range(rounds):
            for way in WAYS:
                believed = mock.patch("softlabels.transfer.rows.is_current", return_value=True)
                with believed if way == "without" else contextlib.nullcontext():
                    began = time.perf_counter()
                    load_transfer_set(config, "train", cache=folder / "cache")
                    found[way].append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
