"""Re-read a store and report every damaged or missing chunk with shard, file and remedy; exit code 3 if something is wrong.

By default every byte of every split is read. --quick reads no labels: commit records, presence and sizes of all files,
plan, manifest, and the files for other readers. --sample=n/t is the quick check plus every byte of part n of t of the shards.
So t runs, with n from 1 to t, read everything once: --sample=1/30 today, --sample=2/30 tomorrow.

With --signed_by, a store that this key has not signed is an error too, and with --digest a store with another digest. With
--against_teacher the recipe's live teacher labels some rows again, and the largest deviation is reported. Other files beside
the splits are named, but are not an error. `softlabels repair` repairs what can be repaired.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from softlabels.errors import ConfigError, DamagedStore, SpecMismatch, UnsealedStore, one_line
from softlabels.jobs.watch import counted
from softlabels.labels.targets import titled
from softlabels.store import Store, open_store, store_splits
from softlabels.store.findings import ask, keys_of, stored_agreement
from softlabels.store.paths import SET_ASIDE
from softlabels.store.pinned import Pinned
from softlabels.store.root import lost_splits, outdated, root_strangers
from softlabels.store.verify import verify
from softlabels.system.files import Files
from softlabels.system.keys import public_key
from softlabels.system.places import files_of
from softlabels_stages.arguments import Verify
from softlabels_stages.commands import arguments_of
from softlabels_stages.recipe import parse
from softlabels_stages.run import PRINTED, stage, suggested

if TYPE_CHECKING:
    from softlabels_stages.teacher_arguments import TeacherLogits


@stage("verify")
def main(args: Verify) -> int:
    """Verify every split; 3 when anything is wrong."""
    if args.teacher_rows < 1:
        raise ConfigError(f"--teacher_rows={args.teacher_rows}", remedy="give 1 row or more")
    if args.quick and args.sample is not None:
        raise ConfigError("--quick and --sample exclude each other", remedy="give one; a sample is quick elsewhere")
    part = _part(args)
    recipe: TeacherLogits | None = None
    if args.against_teacher is not None:  # before every byte is read
        words = [f"--config={args.against_teacher}", f"--trust={args.trust}"]
        recipe = parse(words, arguments_of("teacher-logits"), stage="teacher-logits", doc=None)
    faults, unfinished, root = 0, 0, files_of(args.store)
    splits = store_splits(root)
    pinned = Pinned.told(args.digest, args.signed_by, splits, remedy="name the folder of one split")
    for split, path in splits.items():
        try:
            wrong = _verify(split, path, part, pinned)
        except UnsealedStore as error:  # what is wrong with one split is no reason to leave out the others
            print(f"{split}: {type(error).__name__}: {error}", file=sys.stderr)
            unfinished += 1
            continue
        if recipe is not None and not wrong:
            wrong = _recheck(split, path, recipe, args)
        elif recipe is not None:
            print(f"{split}: not compared with the live teacher: repair the store first", file=sys.stderr)
        faults += wrong
    if list(splits.values()) != [root]:
        faults += _verify_root(root, whole=not faults and not unfinished)
    read = "everything that can be checked without reading labels" if args.quick else "every byte of these shards"
    sound = f"{read if part else 'every byte'} is as it was sealed"
    found = [counted(faults, "problem")] * bool(faults) + [f"{unfinished} unfinished"] * bool(unfinished)
    print(f"{args.store}: {' and '.join(found) or sound}")
    return DamagedStore.exit_code if faults else UnsealedStore.exit_code if unfinished else 0


def _verify_root(root: Files, *, whole: bool) -> int:
    """Say what is wrong above the splits, of which `whole` says that they are sealed and sound; how many problems there are.
    Files of others there are no problem: they are named.
    """
    lost = lost_splits(root)
    for error in lost:
        print(error, file=sys.stderr)
    for name in root_strangers(root):
        print(f"{root}: warning: {one_line(name)} is not part of the store", file=sys.stderr)
    stale = outdated(root) if whole and not lost else []
    for name in stale:
        what = "does not list these splits" if root.exists(name) else "is gone, and plain readers need it"
        print(f"{root}: {name} {what}; `softlabels repair` writes it again", file=sys.stderr)
    return len(lost) + len(stale)


def _part(args: Verify) -> tuple[int, int] | None:
    """Which part of how many is read; part 0 of 1 is nothing, None everything."""
    if args.sample is None:
        return (0, 1) if args.quick else None
    given = re.fullmatch(r"(\d{1,9})/(\d{1,9})", args.sample)
    if given is None or not 1 <= int(given[1]) <= int(given[2]):
        raise ConfigError(f"--sample={args.sample}", remedy="give n/t with n from 1 to t, such as --sample=1/30")
    return int(given[1]), int(given[2])


def _verify(split: str, path: Files, part: tuple[int, int] | None, pinned: Pinned) -> int:
    """Say what is wrong with a split, and of which shards every byte was read; how many problems there are."""
    try:
        store = open_store(path)
        pinned.require(path, store.manifest, split)
    except (DamagedStore, SpecMismatch) as error:
        print(f"{split}: {error}", file=sys.stderr)
        return 1
    every = range(store.spec.shards)
    shards = every if part is None else every[part[0] - 1 :: part[1]] if part[0] else ()
    with tqdm(total=len(every), desc=f"verify {split}", unit="shard", disable=None) as bar:
        problems = verify(path, shards=shards, progress=bar.update)
    for problem in problems:
        print(f"{split}: {problem}", file=sys.stderr)
    read = "every byte read" if part is None else f"every byte of {len(shards)} of them" if shards else "no labels read"
    print(
        f"{split}: {counted(store.rows, 'row')}, {counted(len(every), 'shard')} ({read}), "
        f"{counted(len(problems), 'problem')}, digest {store.digest}"
    )
    if pinned.signed_by is not None and not problems:
        print(f"{split}: signed by {public_key(pinned.signed_by).fingerprint}")
    if not problems:
        if path.is_folder(SET_ASIDE):
            print(
                f"{split}: {path.at(SET_ASIDE)} holds parts that `repair` set aside; no reader uses them; they may be deleted"
            )
        if part is None:
            _say_what_labels_are(split, store)
    return len(problems)


def _say_what_labels_are(split: str, store: Store) -> None:
    """What the checks say of sound bytes that were all read: stores of earlier versions were not asked."""
    for error in ask(store, keys_of(store)):
        print(f"{split}: warning: {type(error).__name__}: {error}", file=sys.stderr)
    for name in store.targets:
        found = stored_agreement(store.only(name))
        if found is not None:
            print(f"{split}: {f'{name}: ' * bool(name)}{found.line}")


def _recheck(split: str, path: Files, recipe: TeacherLogits, args: Verify) -> int:
    """Compare with the live teacher; 1 when it deviates by more than rounding explains.

    Raises `TeacherError` where it does not, and what both say of a row depends on its batch or its padding.
    """
    from softlabels.jobs.splits import load_rows
    from softlabels.models.alone import is_padded
    from softlabels.teacher.ensemble import load_ensemble
    from softlabels.teacher.recheck import compare_with_teacher
    from softlabels.teacher.sentinels import check_sentinels
    from softlabels.transfer.stored import as_stored

    store = open_store(path)
    rows = load_rows(as_stored(recipe.transfer_set, store.spec.preprocessing), split, PRINTED)
    ensemble = load_ensemble(recipe.teacher, train=suggested("train-teacher", f"--config={args.against_teacher}"))
    deviations = compare_with_teacher(store, rows, ensemble, sample=args.teacher_rows)
    for name, found in deviations.items():
        print(f"{split}: {titled(name)}{counted(found.rows, 'row')} against the live teacher: {found.line}")
    wrong = {name: found for name, found in deviations.items() if not found.sound}
    for name, found in wrong.items():
        what = "values" if found.target == "values" else "logits"
        print(
            f"{split}: {titled(name)}the teacher does not give the stored {what}; check preprocessing and versions, or label "
            "the transfer set again",
            file=sys.stderr,
        )
    for asked in () if wrong else ensemble.asked(rows):
        check_sentinels(asked, rows.inputs, mask=rows.mask, padded=is_padded(rows.prepare.class_path))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
