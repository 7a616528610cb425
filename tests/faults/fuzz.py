"""A fuzzer of what strangers hand over: `python -m tests.faults.fuzz [--cases 1000] [--seed N] [--only records]`.

A case is the copy of a sound store, changed by one of the tools of `forge` with its digests made to fit, and some commands over
it, each of which must end with one of the exit codes 0, 2, 3, 74, 75 within little memory and time, print nothing that a
terminal obeys, run nothing, and open nothing but the store, its own outputs and what Python loads (`watch`). A folder beside
it, to which links and hard links lead, must stay as it was. Distributions that are read without an error sum to 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import numpy as np
import torch
import yaml

from softlabels import EmbeddedRows, SoftLabelDataset, open_store, text
from softlabels.errors import SoftLabelsError
from softlabels_stages import output
from softlabels_stages.__main__ import main as command
from tests.faults import forge
from tests.faults.apart import scratch
from tests.faults.campaign import FIRST, Harm, Outcome
from tests.faults.watch import limit_itself, watched
from tests.faults.writers import Acknowledge, Child
from tests.store.samples import ALL, make_spec, sample, write_store

COMMANDS = 4  # of a case
WAIT = 300  # seconds for a case
Seen = collections.Counter[str]


class Linear(torch.nn.Module):
    """A student of any inputs."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(inputs, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs.float().flatten(1))
        return logits


def prepare(base: Path, kinds: Sequence[str]) -> None:
    """A sound store of each kind and a recipe, and every command once, so that what is imported and compiled late is so now."""
    os.environ.update(SOFTLABELS_STATE=str(base / "state"), SOFTLABELS_CACHE=str(base / "cache"))
    for kind in kinds:
        data = sample(np.random.default_rng(forge.SEED), forge.ROWS, kind)
        write_store(base / kind / "train", data, make_spec(data, kind))
    recipe = {
        "name": "fuzzed",
        "student": {"class_path": "tests.faults.fuzz.Linear", "init_args": {"inputs": 6, "classes": 7}},
        "training": {"temperature": 4, "epochs": 1, "seeds": [0], "batch_size": 16, "validation": 0.3},
    }
    (base / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for kind in {"zarr", "ragged-arrow"} & {*kinds}:
        shutil.copytree(base / kind, base / "warm" / kind)
        for name, work in works(base / "warm" / kind / "train", kind, base).items():
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
                code = work()
            assert code in (0, 2), (kind, name, code, said.getvalue())


def works(path: Path, kind: str, base: Path) -> dict[str, Callable[[], int]]:
    """What may be done with somebody's store."""
    recipe, out = f"--config={base / 'recipe.yaml'}", path.parent / "out"

    def run(*words: object) -> Callable[[], int]:
        return lambda: command([str(word) for word in words])

    return {
        "read": partial(read, path),
        "load": partial(load, path),
        "info": run("info", path),
        "info --json": run("info", path, "--json"),
        "verify": run("verify", path),
        "verify --quick": run("verify", path, "--quick"),
        "evaluate": run("evaluate", f"--store={path}", recipe, "--split=train"),
        "convert": run("convert", path, f"{out}-copy"),
        "encode": run("encode", path, f"{out}-sparse", "--k=2", "--tail=uniform"),
        "repair": run("repair", path),
        "convert into it": run(
            "convert", base / kind / "train", path, f"--layout={'arrow' if kind.endswith('arrow') else 'zarr'}"
        ),
        "train": run("train-student", f"--store={path}", recipe, f"--out={out}-run"),
    }


def read(path: Path) -> int:
    """Open, and read distributions at several temperatures; those that are given sum to 1."""
    store = open_store(path)
    for temperature in (1.0, 4.0, 1e3):
        with contextlib.suppress(SoftLabelsError):
            probs = np.exp(store.log_probs(range(min(store.rows, 64)), temperature=temperature))
            if not np.abs(probs.sum(axis=-1) - 1).max() < 1e-6:  # NaN is not below it
                raise Harm(f"a distribution at T={temperature:g} does not sum to 1")
    return 0


def load(path: Path) -> int:
    """The same through torch's DataLoader."""
    store = open_store(path)
    if "input" in store.columns and store.positions is None:
        data = SoftLabelDataset(EmbeddedRows(store), store)
        for batch in torch.utils.data.DataLoader(data, batch_size=32):
            total = data.soft_labels(batch).log_probs(4.0).double().exp().sum(-1)
            if not (total - 1).abs().max() < 1e-4:
                raise Harm("a distribution on the device does not sum to 1")
    return 0


def attack(base: Path, rng: np.random.Generator, kinds: Sequence[str], tools: Sequence[forge.Tool], seen: Seen) -> None:
    """One case. Raises `Harm`."""
    kind, tool = str(rng.choice(kinds)), tools[rng.integers(len(tools))]
    with scratch() as place:
        path, outside = Path(place) / "case" / "train", Path(place) / "outside"
        shutil.copytree(base / kind / "train", path)
        outside.mkdir()
        for name in ("secret", "0", "1", "manifest.json"):
            (outside / name).write_text(f"precious {name}")
        try:
            what = f"{kind}, {tool.__name__}: {tool(path, kind, outside, rng)}"
        except (ValueError, IndexError, OverflowError) as error:  # nobody can write that
            seen[f"not made: {type(error).__name__}"] += 1
            return
        chosen = _chosen(works(path, kind, base), rng)
        before = _snapshot(outside)
        ended = Child(partial(_in_child, chosen, (path.parent, base))).go().end(WAIT)
        for number in ended.acknowledged:
            name, code = list(chosen)[number // 1000], number % 1000
            seen[f"{name}: {'no exit code' if code == 999 else f'exit code {code}'}"] += 1
        if ended.code:
            how = ended.error.rpartition("Harm: ")[2].strip() if "Harm: " in ended.error else ended.error[-600:]
            raise Harm(f"{what}; {', '.join(chosen)}: ended with {ended.code}: {how}")
        if (after := _snapshot(outside)) != before:
            raise Harm(f"{what}; {', '.join(chosen)}: changed outside: {sorted(before.items() ^ after.items())}")


def _chosen(every: Mapping[str, Callable[[], int]], rng: np.random.Generator) -> dict[str, Callable[[], int]]:
    names = [str(name) for name in rng.permutation(list(every)[:-1])[:COMMANDS]]
    return {name: every[name] for name in [*names, *(["train"] if rng.random() < 0.15 else [])]}


def _in_child(chosen: Mapping[str, Callable[[], int]], folders: Sequence[Path], acknowledge: Acknowledge) -> int:
    limit_itself()
    found = []
    for number, (name, work) in enumerate(chosen.items()):
        code, wrong = watched(work, folders)
        acknowledge(number * 1000 + (999 if code is None else code))
        found += [f"{name}: {line}" for line in wrong]
    if found:
        raise Harm(" | ".join(found))
    return 0


def _snapshot(root: Path) -> dict[str, tuple[bytes | None, int]]:
    """What lies in a folder, with the mode of each."""
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else None, path.lstat().st_mode)
        for path in root.rglob("*")
    }


def fuzz(
    cases: range,
    seed: int,
    *,
    kinds: Sequence[str] = ALL,
    tools: Sequence[forge.Tool] = forge.TOOLS,
    seen: Seen | None = None,
) -> tuple[str, ...]:
    """What these cases find, a line each."""
    found, seen = [], collections.Counter() if seen is None else seen
    with scratch() as place:
        prepare(Path(place), kinds)
        for number in cases:
            try:
                attack(Path(place), np.random.default_rng([seed, number]), kinds, tools, seen)
            except Harm as harm:
                found.append(f"--seed={seed} --first={number} --cases=1: {harm}")
                print(found[-1].encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
                if os.environ.get(FIRST):
                    break
    return tuple(found)


def hostile_stores(count: int, seed: int) -> Outcome:
    return Outcome(count, fuzz(range(count), seed))


def printed_as_it_is(seed: int) -> Outcome:
    """The defence taken away: names are printed as they stand in the store."""
    text.visible = output.visible = lambda each: each  # type: ignore[attr-defined]
    return Outcome(24, fuzz(range(24), seed, kinds=("zarr",), tools=(forge.names_in_it,)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description="Fuzz every command with hostile stores."
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="the seed that a find named; default: a new one")
    parser.add_argument(
        "--first", type=int, default=0, help="the number of the first case; with --cases=1 a find again"
    )
    parser.add_argument("--only", default="", help="the tools whose names hold this")
    args = parser.parse_args(argv)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    tools = [tool for tool in forge.TOOLS if args.only in tool.__name__]
    seen: Seen = collections.Counter()
    began = time.monotonic()
    finds = len(fuzz(range(args.first, args.first + args.cases), seed, tools=tools, seen=seen))
    for line, count in sorted(seen.items()):
        print(f"{count:7} {line}")
    cpu = sum(os.times()[:4])
    print(
        f"{args.cases:,} cases, {finds} finds, seed {seed}, {time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU",
        flush=True,
    )
    return 1 if finds else 0


if __name__ == "__main__":
    from tests.faults.fuzz import main as imported  # under its own name, by which the recipe finds the student

    sys.exit(imported())
