"""The rows of a split as a command opens them: what is worth a line about them is printed."""

from __future__ import annotations

import sys

from softlabels.transfer import TransferRows, TransferSetConfig, load_transfer_set


def load_rows(transfer_set: TransferSetConfig, split: str) -> TransferRows:
    """`load_transfer_set`, and its notes on standard error."""
    rows = load_transfer_set(transfer_set, split)
    for note in rows.notes:
        print(f"{split}: {note}", file=sys.stderr)
    return rows
