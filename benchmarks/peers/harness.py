"""Asks every peer one question after the other, each in its own interpreter, and keeps the answers for pages and pictures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import machine, publish
from benchmarks.peers import environments
from benchmarks.peers.columns import make

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """Its name, its module of `benchmarks.peers`, and its environment, or None where that is the project's own."""

    name: str
    module: str
    environment: str | None = None


PEERS = (
    Peer("softlabels", "with_softlabels"),
    Peer("NumPy", "with_numpy"),
    Peer("zarr-python", "with_zarr"),
    Peer("tensorstore", "with_tensorstore", "tensorstore"),
    Peer("datasets", "with_datasets"),
    Peer("MosaicML streaming", "with_streaming", "streaming"),
    Peer("litdata", "with_litdata", "litdata"),
    Peer("grain", "with_grain", "grain"),
    Peer("Lance", "with_lance", "lance"),
    Peer("webdataset", "with_webdataset", "webdataset"),
)
Answers = dict[str, dict[str, Any]]  # by the peer's name: what it found, or {} where it did not run


@dataclass
class Session:
    """A folder of data, the peers that are asked, what versions answered, and why others did not."""

    folder: Path
    peers: Sequence[Peer] = PEERS
    versions: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def ask(self, modes: str, kind: str, rows: int, *arguments: str) -> dict[str, Answers]:
        """What each peer answers of rows of a kind, by modes of `run.py`; in its first one it has to write them."""
        source = self.folder / f"{kind}-{rows}"
        if not source.exists():
            make(source, kind, rows)
        asked = [peer for peer in self.peers if peer.name not in self.failed]
        answers = {peer.name: self._ask(peer, modes, source, *arguments) for peer in asked}
        answered = {name: answer for name, answer in answers.items() if name not in self.failed}
        return {mode: {name: each[mode] for name, each in answered.items()} for mode in modes.split(",")}

    def _ask(self, peer: Peer, modes: str, source: Path, *arguments: str) -> dict[str, Any]:
        why = environments.reason(peer.environment) if peer.environment else None
        place = source.with_name(f"{source.name}-{peer.module}")
        if why is None:
            python = [str(environments.python(peer.environment)), "-W", "ignore", "-m", "benchmarks.peers.run"]
            command = [
                *python,
                modes,
                peer.module,
                str(source),
                str(place / "data"),
                f"--place={place / 'place'}",
                *arguments,
            ]
            done = subprocess.run(  # noqa: S603  names of our own
                command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment()
            )
            if not done.returncode:
                answer = json.loads(done.stdout.splitlines()[-1])
                self.versions |= answer["versions"]
                found: dict[str, Any] = answer["found"]
                return found
            why = f"failed at `{modes}`: {environments.last_line(done.stderr)}"
        self.failed[peer.name] = why
        return {}

    def notes(self) -> list[str]:
        """Lines of a page on who answered, who did not and why, and on the machine."""
        versions = ", ".join(f"{name} {each}" for name, each in sorted(self.versions.items()))
        missing = [f"{name}: not measured, {why}." for name, why in self.failed.items()]
        return [
            f"Versions: {versions}.",
            "",
            machine("torch", "numpy"),
            *(line for why in missing for line in ("", why)),
        ]


def environment() -> dict[str, str]:
    """One thread for arithmetic, no network, and the sources beside the environment."""
    paths = [str(ROOT), str(ROOT / "pipeline"), os.environ.get("PYTHONPATH", "")]
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | one | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}


def options_of(doc: str, argv: Sequence[str] | None, *, parts: Sequence[str] = (), **sizes: int) -> argparse.Namespace:
    """The options that all questions have: sizes, peers, parts where it has such, and where the page goes."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    if parts:
        parser.add_argument("--parts", nargs="*", choices=parts, default=parts, help="of the page")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="*", choices=names, default=names, metavar="PEER", help=", ".join(names))
    parser.add_argument("--output", type=Path, help="the page goes here too, and its numbers beside it as JSON")
    return parser.parse_args(argv)


def session(folder: str, options: argparse.Namespace) -> Session:
    """Of the peers that were chosen; each uses one thread for arithmetic, as the page's line on the machine says."""
    torch.set_num_threads(1)
    return Session(Path(folder), [peer for peer in PEERS if peer.name in options.peers])


def keep(lines: list[str], answers: Any, output: Path | None) -> None:
    """Print a page; write it, and what it was made of, where `output` says."""
    publish("\n".join(lines) + "\n", output)
    if output is not None:
        output.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A Markdown table whose first `words` columns are text."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *rows)]


def ways(answers: Answers, show: Callable[[dict[str, Any]], Sequence[str]]) -> list[list[str]]:
    """Rows of a table: peer, way of reading, and what `show` makes of its answer."""
    return [[name, way, *show(found)] for name, answer in answers.items() for way, found in answer.items()]
