"""Peak memory of the commands that read every label, on a store whose labels are one shard of 512 MiB (docs/reliability.md).

Each command runs in a process of its own, once on that store and once on one of a single chunk of the same size, by which the
memory of the process itself is known.

    python -m benchmarks.memory --output benchmarks/results/memory.md
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.page import machine, publish
from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec

CLASSES, ROWS_PER_CHUNK = 1000, 1024
# Its own high-water mark: the one that the system reports of a child also counts what its parent held when it began.
RUN = """
import sys
from softlabels_stages.__main__ import main
code = main()
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split(maxsplit=1)[1], file=sys.stderr)
sys.exit(code)
"""
COMMANDS = {
    "verify": ("verify", "STORE"),
    "repair": ("repair", "STORE"),
    "convert": ("convert", "STORE", "TARGET", "--layout=arrow"),
    "encode": ("encode", "STORE", "TARGET", "--tail=uniform"),
    "evaluate": ("evaluate", "--store=STORE"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Make both stores, run every command on both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--mebibytes", type=int, default=512, help="of the labels, in one shard")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args(argv)
    rows = (options.mebibytes << 20) // (2 * CLASSES) // ROWS_PER_CHUNK * ROWS_PER_CHUNK
    lines = [
        "# Peak memory of the commands that read every label",
        "",
        f"A dense store of {rows:,} rows and {CLASSES:,} classes in one shard: {options.mebibytes} MiB of labels, in chunks of "
        f"{ROWS_PER_CHUNK:,} rows, {2 * CLASSES * ROWS_PER_CHUNK / 2**20:.1f} MiB each. MiB of resident memory at most; beside",
        "the process: less that of the same command on a store of one such chunk.",
        "",
        machine("numpy", "torch", "pyarrow"),
        "",
        "| command | layout | peak | beside the process | seconds |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
        for layout in ("zarr", "arrow"):
            large, small = Path(folder) / f"{layout}-large" / "test", Path(folder) / f"{layout}-small" / "test"
            write(large, rows, layout)
            write(small, ROWS_PER_CHUNK, layout)
            for name, words in COMMANDS.items():
                base, _ = peak(words, small, Path(folder) / "target")
                most, seconds = peak(words, large, Path(folder) / "target")
                lines.append(f"| {name} | {layout} | {most:.0f} | {most - base:.0f} | {seconds:.1f} |")
                print(lines[-1], flush=True)
            shutil.rmtree(large)
    publish("\n".join(lines) + "\n", options.output)


def write(path: Path, rows: int, layout: str) -> None:
    """A sealed store of random logits, in one shard."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 256, (rows, 16), np.uint8)
    spec = store_spec(
        teacher=TeacherSpec(name="noise", precision="float32", members=(MemberSpec(model="noise"),)),
        name="noise", split="test", keys=keys, classes=CLASSES, layout=layout, rows_per_shard=rows,
        rows_per_chunk=ROWS_PER_CHUNK,
    )  # fmt: skip
    with StoreWriter(path, spec) as writer:
        with writer.shard(0) as shard:
            for start in range(0, rows, ROWS_PER_CHUNK):
                logits = rng.normal(size=(ROWS_PER_CHUNK, 1, CLASSES)).astype(np.float32) * 4
                soft, lost = DenseEncoding().encode(torch.from_numpy(logits))
                labels = rng.integers(0, CLASSES, ROWS_PER_CHUNK)
                own = {"content_key": keys[start : start + ROWS_PER_CHUNK], "label": labels}
                shard.add(own | soft, ROWS_PER_CHUNK)
            shard.commit(lost)
        writer.seal(checked=True)


def peak(words: Sequence[str], store: Path, target: Path) -> tuple[float, float]:
    """The largest resident memory of a command in MiB, and how long it took."""
    shutil.rmtree(target, ignore_errors=True)
    given = [word.replace("STORE", str(store)).replace("TARGET", str(target / "test")) for word in words]
    begun = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", RUN, *given], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(given)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return int(done.stderr.split()[-2]) / 1024, time.perf_counter() - begun


if __name__ == "__main__":
    main()
