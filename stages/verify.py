"""Re-read a whole store and report every damaged or missing chunk with shard, file and remedy; exit code 3 where there is one.

With --against_teacher a sample of rows also goes through the recipe's live teacher, and the largest deviation is reported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import ConfigError
from pipeline.store import open_store, store_splits
from pipeline.store.verify import verify
from stages.recipe import parse
from stages.run import command


@dataclass(frozen=True)
class Verify:
    """Arguments of verify."""

    store: str = ""  # a store, or a folder of stores
    against_teacher: str | None = (
        None  # a recipe (file or built-in name) whose teacher is run over a sample of the rows
    )
    sample: int = 256  # how many rows of each split the live teacher sees, at least


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Verify every split; 3 when anything is wrong."""
    args = parse(argv, Verify, stage="verify", doc=__doc__, positional=("store",))
    if not args.store:
        raise ConfigError("no store is named", remedy="write softlabels verify STORE")
    if args.sample < 1:
        raise ConfigError(f"--sample={args.sample}", remedy="give 1 row or more")
    faults = 0
    for split, path in store_splits(args.store).items():
        faults += _verify(split, path)
        if args.against_teacher is not None and not faults:
            faults += _recheck(split, path, args.against_teacher, args.sample)
    print(f"{args.store}: {f'{faults} problems' if faults else 'every byte is as it was sealed'}")
    return 3 if faults else 0


def _verify(split: str, path: Path) -> int:
    store = open_store(path)
    with tqdm(total=store.spec.shards, desc=f"verify {split}", unit="shard", disable=None) as bar:
        problems = verify(path, progress=bar.update)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{split}: {store.rows:,} rows, {store.spec.shards} shards, {len(problems)} problems, digest {store.digest}")
    return len(problems)


def _recheck(split: str, path: Path, config: str, sample: int) -> int:
    """Compare with the live teacher; 1 when it deviates by more than rounding explains."""
    from pipeline.teacher.ensemble import load_ensemble
    from pipeline.teacher.recheck import compare_with_teacher
    from pipeline.transfer import load_transfer_set
    from stages.teacher_logits import TeacherLogits

    recipe = parse([f"--config={config}"], TeacherLogits, stage="teacher-logits", doc=None)
    rows = load_transfer_set(recipe.transfer_set, split)
    found = compare_with_teacher(open_store(path), rows, load_ensemble(recipe.teacher), sample=sample)
    mass, kl = found.largest_mass, found.kl_max
    print(
        f"{split}: {found.rows} rows against the live teacher: largest deviation of a logit {found.largest_logit:.3g} "
        f"(rounding explains {found.allowed:.3g}), "
        + ("" if mass is None else f"of the tail's mass {mass:.3g} ({found.allowed_mass:.3g}), ")
        + ("" if kl is None else f"largest KL {kl:.3g}, ")
        + f"same top class {found.top1_agreement:.2%}"
    )
    if found.sound:
        return 0
    print(
        f"{split}: the teacher does not give the stored logits; check preprocessing and versions, or label the transfer set "
        "again",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
