"""What students lose when their labels take a hundredth of the room: the same students from dense labels, from sparse ones of
128 and of 48 bytes a position, from as many bytes of plain top-k scaled to sum to 1, and from hard labels alone.

    softlabels teacher-logits --config=lm --labels.encoding=dense --labels.inputs=embed --store=stores/dense
    python -m benchmarks.sparse_students --store=stores/dense --out=runs/sparse_students

Each way of keeping the labels encodes the dense store's training split anew and trains a student for every temperature and
seed. Seed by seed they share first weights, dropout and batches, so that differences are paired. All are judged on the dense
labels of the test split. Bytes are those of a store of 151,936 classes. Stopped, the command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from softlabels.report.spread import paired_difference, spread
from softlabels_stages import encode, train_student

WAYS: dict[str, tuple[str, ...] | None] = {  # name, the words of `softlabels encode`
    "dense": None,
    "128 bytes": (),
    "48 bytes": ("--k=2", "--nodes=4", "--rank=42", "--fine=0"),
    "top 30 scaled to 1, 127 bytes": ("--tail=renormalised", "--k=30"),
    "top 10 scaled to 1, 47 bytes": ("--tail=renormalised", "--k=10"),
}


def main() -> None:
    """Encode, train, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the dense store, a folder of splits train and test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="lm")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--temperature", default="1,2")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    scores: dict[tuple[str, str], list[float]] = {}
    for way, words in WAYS.items():
        for student in trained(way, words, args):
            label = f"T = {student['settings']['temperature']:g}" if student["settings"] else ""
            kind = way if student["kind"] == "distilled" else "hard labels alone"
            scores[kind, label] = [found["nll"] for found in student["scores"]]
    print(table(scores))


def trained(way: str, words: tuple[str, ...] | None, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The students of one way of keeping labels, as results.json lists them; those of dense labels with the hard ones."""
    name = "-".join(way.replace(",", "").split())
    store, out = args.store, args.out / name
    if words is not None:
        store = args.out / "stores" / name
        if not (store / "test").exists():
            shutil.copytree(args.store / "test", store / "test", copy_function=os.link)
        done = encode.main([f"--from={args.store / 'train'}", f"--store={store / 'train'}", *words])
        if done:
            raise SystemExit(done)
    options = [f"--epochs={args.epochs}", f"--temperature={args.temperature}", f"--seeds={args.seeds}"]
    options += [f"--baseline={'true' if words is None else 'false'}"]
    done = train_student.main([f"--config={args.config}", f"--store={store}", f"--out={out}", *options])
    if done:
        raise SystemExit(done)
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["students"]
    return found


def table(scores: dict[tuple[str, str], list[float]]) -> str:
    """Held-out loss of each, and how far it is behind the student from dense labels, with the standard error of that."""
    lines = ["| labels | T | held-out loss, nats a token | behind dense labels |", "| --- | --- | ---: | ---: |"]
    for (way, temperature), found in scores.items():
        mean, behind = spread(found), ""
        if way != "dense":
            same = scores["dense", temperature] if temperature else scores["dense", "T = 1"]
            difference = paired_difference(found, same)
            behind = f"{difference.mean:+.4f} ± {difference.standard_error:.4f}"
        lines.append(f"| {way} | {temperature} | {mean.mean:.4f} ± {mean.deviation:.4f} | {behind} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
