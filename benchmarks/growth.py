"""What a store costs to open and to use as it grows: from 10^4 to 10^7 rows, and from 10 to 20,000 shards.

Labels are tiny (dense, two classes) and keys are random. Each question is asked in a process of its own, in CPU seconds and MiB
of resident memory at most, beside those of a process that has imported as much. `--before` is a folder of another version of
this repository, which answers each question in turn with this one.

    python -m benchmarks.growth --before ../before --output benchmarks/results/growth.md
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import machine, publish
from softlabels.labels.lost import Lost
from softlabels.store import StoreWriter
from softlabels.store.new_spec import store_spec
from softlabels.store.spec import MemberSpec, TeacherSpec

ROOT = Path(__file__).parent.parent
TOP = "import resource, sys, time\nimport numpy as np\nimport torch\nfrom softlabels.store import open_store\n"
INFO = """
from softlabels_stages.__main__ import main
import softlabels_stages.info
begin()
main(["info", PATH, "--json"])
"""
FIND = """
store = open_store(PATH)
keys = np.random.default_rng(0).permutation(store.column("content_key"))
begin()
store.find(keys)
"""
BATCH = """
from softlabels.objects import ObjectSpec
from softlabels.stream import Loader
from softlabels.transfer import TransferRows
keys = open_store(PATH).column("content_key")
facts = {"name": "noise", "split": "train", "revision": None, "source": "", "class_names": None, "prepare": ObjectSpec("none")}
rows = TransferRows(inputs=np.zeros((len(keys), 1), np.uint8), keys=keys, labels=np.full(len(keys), -1), **facts)
begin()
next(Loader(rows, open_store(PATH), batch_size=512, seed=0).epoch(0))
"""
EVERY = """
store = open_store(PATH)
begin()
for chunk in range(store.chunks):
    store.read_chunk("logits", chunk)
"""
QUESTIONS = {  # what is asked of a store at PATH, with the clock from `begin` on
    "open": "begin()\nopen_store(PATH)",
    "info --json": INFO,
    "first row": "begin()\nopen_store(PATH).gather('logits', [0])",
    "find one key": "begin()\nopen_store(PATH).find(np.zeros((1, 16), np.uint8))",
    "find all keys, shuffled": FIND,
    "first batch": BATCH,
    "every chunk of labels": EVERY,
}
AROUND = """
PATH = sys.argv[1]
def peak():
    return int([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]) / 1024
def begin():
    global at, least
    at, least = time.process_time(), peak()
"""
END = '\nprint(f"\\n{time.process_time() - at} {peak() - least}")'


def main() -> None:
    """Write the stores, ask all questions of each, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 10_000_000], help="of stores of 16 shards"
    )
    parser.add_argument(
        "--shards", type=int, nargs="*", default=[10, 100, 1_000, 20_000], help="of stores of 64 rows a shard"
    )
    parser.add_argument("--before", type=Path, help="a folder of the version to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the tables here")
    options = parser.parse_args()
    versions = {"now": ROOT} if options.before is None else {"before": options.before, "now": ROOT}
    lines = []
    for rows, shards in [(rows, 16) for rows in options.rows] + [(64 * shards, shards) for shards in options.shards]:
        with tempfile.TemporaryDirectory(prefix="softlabels-benchmark-") as folder:
            write(Path(folder) / "store", rows, shards)
            for question in QUESTIONS:
                lines.append(line(f"{rows:,} | {shards:,}", question, Path(folder) / "store", versions, options.rounds))
                print(lines[-1], flush=True)
    publish(report(lines, list(versions), options.rounds), options.output)


def write(path: Path, rows: int, shards: int) -> None:
    """A sealed store of tiny labels."""
    keys = np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8)
    teacher = TeacherSpec(name="noise", precision="float16", members=(MemberSpec(model="noise"),))
    chunk = min(1024, -(-rows // shards // 16) * 16)
    size = -(-rows // shards // chunk) * chunk
    spec = store_spec(teacher=teacher, name="noise", keys=keys, classes=2, rows_per_shard=size, rows_per_chunk=chunk)
    with StoreWriter(path, spec) as writer:
        for shard in writer.pending:
            part = slice(*writer.rows_of(shard))
            count = len(keys[part])
            columns: dict[str, NDArray[Any]] = {"logits": np.zeros((count, 1, 2), np.float16)}
            columns["shift"] = np.zeros((count, 1), np.float32)
            writer.write_columns(shard, keys=keys[part], labels=np.full(count, -1), columns=columns, fidelity=Lost())
        writer.seal(checked=True)


def ask(question: str, store: Path, version: Path) -> tuple[float, float]:
    """CPU seconds and MiB of one process of a version."""
    path = os.pathsep.join(str(version / source) for source in ("pipeline", "stages"))
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", TOP + AROUND + QUESTIONS[question] + END, str(store)],
        capture_output=True, text=True, cwd=store.parent, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{question} of {store}: {done.stderr[-2000:]}")
    seconds, mebibytes = done.stdout.splitlines()[-1].split()
    return float(seconds), float(mebibytes)


def line(head: str, question: str, store: Path, versions: dict[str, Path], rounds: int) -> str:
    """The row of a table: the least of some rounds, in which the versions take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for _ in range(rounds):
        for name, version in versions.items():
            found[name].append(ask(question, store, version))
    cells = [f"{min(s for s, _ in each):.3f} | {min(m for _, m in each):.0f}" for each in found.values()]
    return f"| {head} | {question} | {' | '.join(cells)} |"


def report(lines: list[str], versions: list[str], rounds: int) -> str:
    """A Markdown page."""
    heads = " | ".join(f"CPU s, {name} | MiB, {name}" for name in versions)
    return "\n".join(
        [
            "# What a store costs to open and to use as it grows",
            "",
            f"Dense labels of two classes, zarr, page cache warm; least of {rounds}, in which the versions take turns. CPU seconds",
            "of a process of its own once all is imported, and MiB by which the peak of its memory rises meanwhile. The store is",
            "opened before the clock starts where all keys are found, or every chunk is read; keys that are asked for lie in memory.",
            "",
            machine("numpy", "torch", "blake3", "msgspec"),
            "",
            f"| rows | shards | question | {heads} |",
            f"| ---: | ---: | --- |{' ---: |' * 2 * len(versions)}",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
