"""A fuzzer of what strangers hand over: `python -m tests.faults.fuzz [--cases 1000] [--cpu 3600] [--seed N] [--kinds arrow]`.

A case is the copy of a sound store, run or cache, changed by one of the tools of `forge` with its digests made to fit, and
some commands over it, each of which must end with one of the exit codes 0, 2, 3, 4, 74, 75 within little memory and time,
print nothing that a terminal obeys, run nothing, and open nothing but the store, its own outputs and what Python loads
(`watch`). A folder beside it, to which links and hard links lead, must stay as it was. Distributions that are read without an
error sum to 1, and values are finite.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import numpy as np
import torch
import yaml

from softlabels import EmbeddedRows, SoftLabelDataset, errors, open_store
from softlabels.errors import DamagedStore, SoftLabelsError
from softlabels.jobs.share import pull
from softlabels_stages import output
from softlabels_stages.__main__ import main as command
from tests.faults import forge, forge_run
from tests.faults.apart import scratch
from tests.faults.campaign import FIRST, Harm, Outcome
from tests.faults.fuzz_far import Far, serving
from tests.faults.watch import limit_itself, watched
from tests.faults.writers import Acknowledge, Child
from tests.stages import toy
from tests.store.samples import ALL, make_spec, sample, write_store
from tests.system.liar import Liar

COMMANDS = 4  # of a case
DEAR = ("train", "export")  # which are run less often
KINDS = (*ALL, "run", "run", "cache", "cache")
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
    """A sound store of each kind, a run, a cache and recipes, and every command once, so that what is imported and compiled
    late is so now.
    """
    os.environ.update(SOFTLABELS_STATE=str(base / "state"), SOFTLABELS_CACHE=str(base / "cache"))
    for kind in {*kinds} & {*ALL}:
        data = sample(np.random.default_rng(forge.SEED), forge.ROWS, kind)
        write_store(base / kind / "train", data, make_spec(data, kind))
        write_store(base / "other" / kind / "train", data.changed(0.5), make_spec(data, kind))
    training = {"temperature": 4, "epochs": 1, "seeds": [0], "batch_size": 16, "validation": 0.3, "device": "cpu"}
    student = {"class_path": "tests.faults.fuzz.Linear", "init_args": {"inputs": 6, "classes": 7}}
    (base / "recipe.yaml").write_text(yaml.safe_dump({"name": "fuzzed", "student": student, "training": training}))
    if {"run", "cache"} & {*kinds}:
        toy.write_recipe(base / "rows.yaml", training=training)
        os.chdir(base)
        toy.write_store(base / "embedded", embed=True)
        toy.write_store(base / "toy")
        words = [f"--config={base / 'rows.yaml'}", f"--store={base / 'embedded'}", f"--out={base / 'run'}"]
        assert _quietly(lambda: command(["train-student", *words]))[0] == 0
    for kind in {"zarr", "ragged-arrow", "several-zarr", "run", "cache"} & {*kinds}:
        path = base / "warm" / kind / "train"
        shutil.copytree(_sound(base, kind), path)
        for name, work in works(path, kind, base).items():
            with contextlib.suppress(DamagedStore):  # of the place that lies
                code, said = _quietly(work)
                assert code in (0, 2, 4), (kind, name, code, said)


def _sound(base: Path, kind: str) -> Path:
    return base / kind if kind in ("run", "cache") else base / kind / "train"


def _quietly(work: Callable[[], int]) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        return work(), said.getvalue()


def works(path: Path, kind: str, base: Path, store: Path | str = "") -> dict[str, Callable[[], int]]:
    """What may be done with somebody's store, run or cache; a `store` may have an address."""
    recipe, rows, out = f"--config={base / 'recipe.yaml'}", f"--config={base / 'rows.yaml'}", path.parent / "out"
    layout = f"--layout={'arrow' if kind.endswith('arrow') else 'zarr'}"

    def run(*words: object) -> Callable[[], int]:
        return lambda: command([str(word) for word in words])

    if kind == "cache":
        os.environ["SOFTLABELS_CACHE"] = str(path)
        return {
            "cache": run("cache"),
            "train with it": run("train-student", f"--store={base / 'toy'}", rows, f"--out={out}-run"),
            "evaluate with it": run("evaluate", f"--store={base / 'toy'}", rows, "--split=train"),
            "cache --clear": run("cache", "--clear"),
        }
    if kind == "run":
        student = path / "distilled-seed0"
        return {
            "evaluate student": run("evaluate", student),
            "evaluate by its store": run("evaluate", student, f"--store={base / 'embedded'}"),
            "evaluate run": run("evaluate", path),
            "export": run("export", student, "--formats=torch"),
            "train on": run("train-student", f"--store={base / 'embedded'}", rows, f"--out={path}"),
        }
    store = store or path
    return {
        "read": partial(read, store),
        "load": partial(load, store),
        "info": run("info", store),
        "info --json": run("info", store, "--json"),
        "verify": run("verify", store),
        "verify --quick": run("verify", store, "--quick"),
        "evaluate": run("evaluate", f"--store={store}", recipe, "--split=train"),
        "convert": run("convert", store, f"{out}-copy"),
        "encode": run("encode", store, f"{out}-sparse", "--k=2", "--tail=uniform"),
        "select": run("select", store, "--rows=::2", f"--out={out}-some"),
        "merge": run(
            "merge", base / "other" / kind / "train", store, "--missing=skip", "--repeated=first", f"--out={out}-merged"
        ),
        "evaluate a list": run(
            "evaluate",
            f"--store={base / 'other' / kind / 'train'},{store}",
            "--missing=skip",
            "--repeated=first",
            recipe,
            "--split=train",
        ),
        "concat": run("concat", store, _sound(base, kind), "--repeated=first", f"--out={out}-both"),
        "diff": run("diff", base / "other" / kind / "train", store),
        "export-labels": run("export-labels", store, f"{out}-labels.parquet", "--k=2"),
        "repair": run("repair", path),
        "list": run("list", store),
        "push": run("push", path, f"{out}-there"),
        "pull": run("pull", store, f"{out}-pulled"),
        "pull from a liar": partial(pull_from_liar, path, path.parent / "lied"),
        "pull into it": run("pull", base / kind / "train", path),
        "convert into it": run("convert", base / kind / "train", path, layout),
        "train": run("train-student", f"--store={store}", recipe, f"--out={out}-run"),
    }


def read(path: Path | str) -> int:
    """Open, and read distributions at several temperatures; those that are given sum to 1."""
    whole = open_store(path)
    rows = range(min(whole.rows, 64))
    for store in map(whole.only, whole.targets):
        with contextlib.suppress(SoftLabelsError):
            if not np.isfinite(store.values(rows)).all():
                raise Harm("a value is not finite")
        for temperature in (1.0, 4.0, 1e3):
            with contextlib.suppress(SoftLabelsError):
                probs = store.probabilities(rows, temperature=temperature)
                total = probs.sum(axis=-1) if store.encoding.target == "softmax" else np.ones(1)
                if not (
                    np.abs(total - 1).max() < 1e-6 and (probs >= 0).all() and (probs <= 1 + 1e-6).all()
                ):  # NaN is not
                    raise Harm(f"a distribution at T={temperature:g} does not sum to 1")
    return 0


def load(path: Path | str) -> int:
    """The same through torch's DataLoader."""
    store = open_store(path)
    plain = store.targets == ("",) and store.encoding.target == "softmax"
    if plain and "input" in store.columns and store.positions is None:
        data = SoftLabelDataset(EmbeddedRows(store), store)
        for batch in torch.utils.data.DataLoader(data, batch_size=32):
            total = data.soft_labels(batch).log_probs(4.0).double().exp().sum(-1)
            if not (total - 1).abs().max() < 1e-4:
                raise Harm("a distribution on the device does not sum to 1")
    return 0


def pull_from_liar(path: Path, out: Path) -> int:
    """Pull it from a place that lies besides: what arrives is the store, or nothing."""
    liar = Liar.of(path, np.random.default_rng(len([*path.rglob("*")])), 0.02)
    with contextlib.suppress(SoftLabelsError):
        for found in pull(liar, out).values():
            if found.digest != open_store(path).digest:
                raise Harm("another store was pulled")
    return 0


def attack(
    base: Path, rng: np.random.Generator, kinds: Sequence[str], tools: Sequence[forge.Tool], seen: Seen, far: Far | None
) -> None:
    """One case. Raises `Harm`."""
    kind = str(rng.choice(kinds))
    tools = tools or (forge_run.TOOLS if kind in ("run", "cache") else forge.TOOLS)
    tool = tools[rng.integers(len(tools))]
    with scratch() as place:
        path, outside = Path(place) / "case" / "train", Path(place) / "outside"
        shutil.copytree(_sound(base, kind), path)
        outside.mkdir()
        for name in ("secret", "0", "1", "manifest.json"):
            (outside / name).write_text(f"precious {name}")
        try:
            what = f"{kind}, {tool.__name__}: {tool(path, kind, outside, rng)}"
        except (ValueError, IndexError, OverflowError) as error:  # nobody can write that
            seen[f"not made: {type(error).__name__}"] += 1
            return
        every = works(path, kind, base) if far is None else far.works(path, kind, base, rng)
        chosen = _chosen(every, rng)
        before = _snapshot(outside)
        port = None if far is None else far.port
        ended = Child(partial(_in_child, chosen, (path.parent, base), port)).go().end(WAIT)
        for number in ended.acknowledged:
            name, code = list(chosen)[number // 1000], number % 1000
            seen[f"{name}: {'no exit code' if code == 999 else f'exit code {code}'}"] += 1
        if ended.code:
            how = ended.error.rpartition("Harm: ")[2].strip() if "Harm: " in ended.error else ended.error[-600:]
            raise Harm(f"{what}; {', '.join(chosen)}: ended with {ended.code}: {how}")
        if (after := _snapshot(outside)) != before:
            raise Harm(f"{what}; {', '.join(chosen)}: changed outside: {sorted(before.items() ^ after.items())}")


def _chosen(every: Mapping[str, Callable[[], int]], rng: np.random.Generator) -> dict[str, Callable[[], int]]:
    cheap = [name for name in every if name not in DEAR]
    names = [str(name) for name in rng.permutation(cheap)[:COMMANDS]]
    return {name: every[name] for name in [*names, *(name for name in DEAR if name in every and rng.random() < 0.15)]}


def _in_child(
    chosen: Mapping[str, Callable[[], int]], folders: Sequence[Path], port: int | None, acknowledge: Acknowledge
) -> int:
    limit_itself()
    found = []
    for number, (name, work) in enumerate(chosen.items()):
        code, wrong = watched(work, folders, port)
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
    cases: Iterable[int],
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    tools: Sequence[forge.Tool] = (),
    seen: Seen | None = None,
    far: Far | None = None,
) -> tuple[str, ...]:
    """What these cases find, a line each; `far`: of stores that are read by their address."""
    found, seen = [], collections.Counter() if seen is None else seen
    with scratch() as place:
        prepare(Path(place), kinds)
        for number in cases:
            try:
                attack(Path(place), np.random.default_rng([seed, number]), kinds, tools, seen, far)
            except Harm as harm:
                found.append(f"--seed={seed} --first={number} --cases=1: {harm}")
                print(found[-1].encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
                if os.environ.get(FIRST):
                    break
    return tuple(found)


def hostile_stores(count: int, seed: int) -> Outcome:
    few = [
        "zarr",
        *map(str, np.random.default_rng(seed).permutation(KINDS)[:2]),
    ]  # to make one takes longer than a case
    return Outcome(count, fuzz(range(count), seed, kinds=KINDS if count >= 10 else few))


def hostile_stores_far(count: int, seed: int) -> Outcome:
    with serving() as far:
        return Outcome(count, fuzz(range(count), seed, kinds=ALL if count >= 10 else ("zarr", "ragged-arrow"), far=far))


def printed_far(seed: int) -> Outcome:
    """The same, of stores that are read by their address."""
    errors.visible = output.visible = lambda each: each  # type: ignore[attr-defined]
    with serving() as far:
        return Outcome(24, fuzz(range(24), seed, kinds=("zarr",), tools=(forge.names_in_it,), far=far))


def printed_as_it_is(seed: int) -> Outcome:
    """The defence taken away: names are printed as they stand in the store."""
    errors.visible = output.visible = lambda each: each  # type: ignore[attr-defined]
    return Outcome(24, fuzz(range(24), seed, kinds=("zarr",), tools=(forge.names_in_it,)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description="Fuzz every command with hostile stores."
    )
    parser.add_argument("--cases", type=int, default=None, help="how many; default: 1,000, or as many as --cpu allows")
    parser.add_argument("--seed", type=int, default=None, help="the seed that a find named; default: a new one")
    parser.add_argument(
        "--first", type=int, default=0, help="the number of the first case; with --cases=1 a find again"
    )
    parser.add_argument("--cpu", type=float, default=math.inf, help="seconds of CPU after which no case is begun")
    parser.add_argument("--kinds", default="", help="kinds whose names hold this: of stores, run, cache")
    parser.add_argument("--far", action="store_true", help="stores are read from a web server, and from one of S3")
    args = parser.parse_args(argv)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    kinds = [kind for kind in KINDS if args.kinds in kind]
    seen: Seen = collections.Counter()
    most = args.cases if args.cases is not None else 1000 if math.isinf(args.cpu) else sys.maxsize
    numbers = range(args.first, args.first + most)
    cases = list[int]()

    def in_time(number: int) -> bool:
        within = sum(os.times()[:4]) < args.cpu
        cases.extend([number] * within)
        return within

    with serving() if args.far else contextlib.nullcontext() as far:
        kinds = [kind for kind in kinds if kind in ALL] if args.far else kinds
        finds = len(fuzz(itertools.takewhile(in_time, numbers), seed, kinds=kinds, seen=seen, far=far))
    for line, count in sorted(seen.items()):
        print(f"{count:7} {line}")
    print(f"{len(cases):,} cases, {finds} finds, seed {seed}, {sum(os.times()[:4]):,.0f} s of CPU", flush=True)
    return 1 if finds else 0


if __name__ == "__main__":
    from tests.faults.fuzz import main as imported  # under its own name, by which the recipe finds the student

    sys.exit(imported())
