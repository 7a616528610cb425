"""What the commands take that write a page; see `softlabels_stages.arguments`."""

from __future__ import annotations

from dataclasses import dataclass

from softlabels.transfer.config import TransferSetConfig


@dataclass(frozen=True)
class Report:
    """Arguments of report."""

    store: str = ""  # a sealed store, a folder of them, or an address (s3://, hf://)
    runs: tuple[str, ...] = ()  # folders of finished runs of students
    out: str = "report.html"  # the file to write
    transfer_set: TransferSetConfig | None = None
