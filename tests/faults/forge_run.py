"""An attacker's tools for the folder of a run, and for a cache of prepared rows: words of their JSON and YAML files, bytes of
weights, checkpoints and arrays, names. See `forge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from softlabels.store.digest import blake3_hex
from tests.faults.forge import PIECES, STRANGE, Rng, Tool, other_word, put_strange


def words(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Words of a file that says what the run or the rows are."""
    file = _some(path, rng, ".json", ".yaml")
    found = yaml.safe_load(file.read_text()) if file.suffix == ".yaml" else json.loads(file.read_text())
    store = found.get("store")
    said = [other_word(found, rng) for _ in range(int(rng.integers(1, 3)))]
    if store is not None:
        found["store"] = store  # a run names the store that is opened, wherever that lies
    file.write_text(yaml.safe_dump(found) if file.suffix == ".yaml" else json.dumps(found))
    return f"{file.name}: {said}"


def other_bytes(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Bytes of any file, most often at its begin, where formats say what follows; those of a cache's arrays with a digest that
    fits.
    """
    file = _some(path, rng, "")
    data = bytearray(file.read_bytes())
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(min(len(data), 400) if rng.random() < 0.8 else len(data)) if data else 0)
        how = int(rng.integers(4))
        if how == 0:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif how == 1:
            data[at : at + 8] = rng.choice([np.uint64(0), np.uint64(2**63), np.uint64(2**64 - 1)]).tobytes()
        elif how == 2:
            data[at:at] = PIECES[rng.integers(len(PIECES))]
        else:
            del data[at : at + int(rng.integers(1, 64))]
    file.write_bytes(bytes(data))
    meta = file.with_name("meta.json")
    if file.suffix == ".npy" and meta.exists():
        found = json.loads(meta.read_text())
        for record in found["files"]:
            if record["name"] == file.name:
                record |= {"bytes": len(data), "blake3": blake3_hex(bytes(data))}
        meta.write_text(json.dumps(found))
    return f"{file.relative_to(path)}: other bytes"


def names(path: Path, kind: str, outside: Path, rng: Rng) -> str:
    """Something strange under a name that is there, or that a command makes."""
    made = (".lock", "checkpoint.pt.partial", "distilled-seed0/student.pt2", "x\x1b[2J", "curves.png", "tensorboard")
    known = [*sorted(str(file.relative_to(path)) for file in path.rglob("*")), *made]
    name, what = str(rng.choice(known)), str(rng.choice(sorted(STRANGE)))
    put_strange(path / name, what, outside)
    return f"{name!r}: {what}"


def _some(path: Path, rng: Rng, *endings: str) -> Path:
    files: list[Any] = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(endings))
    return Path(str(rng.choice(files)))


TOOLS: tuple[Tool, ...] = (words, words, other_bytes, other_bytes, names)
