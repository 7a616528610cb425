"""Say where prepared rows are kept, and how large they are; with --clear delete them.

The rows of a transfer set are decoded and prepared once, and kept for all later commands: in $SOFTLABELS_CACHE, else in
~/.cache/softlabels/prepared. Deleting them costs only the time to prepare them again. Nothing else in that folder is touched.
"""

from __future__ import annotations

import sys
import time

from softlabels.report.table import Table, as_text
from softlabels.store.markdown import without_folders
from softlabels.transfer.cache import default_cache
from softlabels.transfer.cache_entries import CacheEntry, cache_entries, delete_entry
from softlabels_stages.arguments import Cache
from softlabels_stages.run import stage


@stage("cache")
def main(args: Cache) -> int:
    """List, or delete."""
    root = default_cache()
    entries = cache_entries(root)
    total = sum(entry.bytes for entry in entries)
    kept = [entry for entry in entries if not delete_entry(entry)] if args.clear else []
    for entry in kept:
        print(f"{entry.folder.name}: kept: a command is preparing these rows", file=sys.stderr)
    if args.clear:
        freed = total - sum(entry.bytes for entry in kept)
        print(f"{root}: {_entries(len(entries) - len(kept))} deleted, {freed:,} bytes")
        return 0
    print(
        f"{root}: {_entries(len(entries))}, {total:,} bytes; $SOFTLABELS_CACHE names another folder, --clear deletes them"
    )
    if entries:
        titles = ("transfer set", "split", "rows", "bytes", "last used", "folder")
        print("\n" + as_text(Table(titles, tuple(map(_line, entries)))))
    return 0


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _line(entry: CacheEntry) -> tuple[str, ...]:
    rows = "unfinished" if entry.rows is None else f"{entry.rows:,}"
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    return without_folders(entry.transfer_set), entry.split, rows, f"{entry.bytes:,}", used, entry.folder.name


if __name__ == "__main__":
    sys.exit(main())
