"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`: for nouns whose plural has an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
