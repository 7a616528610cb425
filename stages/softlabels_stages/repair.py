"""Set the damaged shards of a store aside, so that the command that made the store makes exactly these again. What follows from
the rest (plan, manifest, the files for other readers) is written again at once.

Every byte is read, as `softlabels verify` does. The files of a damaged shard and its commit record, and files that do not
belong to the store, are moved into the folder set_aside of the split and never deleted; so is the card (README.md), which is
rewritten and may have been edited. Then the store is unfinished: `softlabels teacher-logits` with the recipe that made
it (or `encode`, `import`, `convert`) makes the missing shards and seals it, with the digest that it had. Sound shards are not
touched, and nothing is invented. If it is stopped, run it again and it resumes.

If you received the store and have no teacher, fetch the damaged files again instead: an unfinished store cannot be read.
"""

from __future__ import annotations

import sys

from tqdm import tqdm

from softlabels.errors import SoftLabelsError
from softlabels.store.listed import store_folders
from softlabels.store.paths import MANIFEST
from softlabels.store.repair import Repaired, repair
from softlabels.store.root import close_root, is_described, lost_splits, outdated, write_root
from softlabels.system.files import Folder
from softlabels.system.places import folder_of
from softlabels_stages.arguments import Repair
from softlabels_stages.run import stage


@stage("repair")
def main(args: Repair) -> int:
    """Repair every split; the exit code is that of the first that cannot be repaired."""
    codes, unfinished = [], False
    folders = store_folders(folder_of(args.store))
    for folder in folders:
        try:
            with tqdm(desc=f"repair {folder}", unit="shard", disable=None) as bar:
                found = repair(folder, progress=bar.update)
        except SoftLabelsError as error:  # that of one split is no reason to leave out the others
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            codes.append(error.exit_code)
        else:
            unfinished |= found.digest is None
            _say(folder, found)
    root = folder_of(args.store)
    if unfinished and folders != [root]:
        close_root(root)
    elif folders != [root] and (lost := lost_splits(root)):  # the list at the root is all that tells of them
        for gone in lost:
            print(f"{type(gone).__name__}: {gone}", file=sys.stderr)
            codes.append(gone.exit_code)
    elif not codes and folders != [root] and is_described(root):
        stale = outdated(root)
        write_root(root)
        for name in stale:
            print(f"{root}: {name} {'written again' if root.exists(name) else 'removed: no split has its layout'}")
    return next(iter(codes), 0)


def _say(folder: Folder, found: Repaired) -> None:
    """What was wrong, what was done, and what to do next."""
    for problem in found.problems:
        print(f"{folder}: {problem.where}", file=sys.stderr)
    if found.aside:
        print(f"{folder}: damaged parts are in {found.aside}")
    if found.digest is None:
        missing = [f"shard {shard}" for shard in found.pending] + ["the basis of the tails"] * found.basis
        again = f", and the store has the digest {found.before} again" if found.before else ""
        print(
            f"{folder}: unfinished; to be made: {', '.join(missing)}\n"
            "next: run the command that made the store, such as softlabels teacher-logits with the same recipe; it makes only "
            f"these{again}"
        )
    elif found.before is None:
        print(
            f"{folder}: it had no {MANIFEST}: it was unfinished, or the manifest was deleted. All shards were there, so it is "
            f"sealed from their commit records: digest {found.digest}; if you know its earlier digest, compare"
        )
    elif found.before not in (None, found.digest):
        print(
            f"{folder}: sealed from its commit records, digest {found.digest}; THE DAMAGED MANIFEST NAMED {found.before}: "
            "compare with the digest that you know before you use the store"
        )
    else:
        print(f"{folder}: {'sealed again' if found.aside else 'nothing to repair'}, digest {found.digest}")


if __name__ == "__main__":
    sys.exit(main())
