"""Where everything lies in a store, but for the shards, whose files the layout names."""

from __future__ import annotations

PLAN = "plan.json"
MANIFEST = "manifest.json"
CARD = "README.md"
SIGNATURES = "signatures.json"  # of those who vouch for it: may be there, and no digest covers it
COMMITS = "commits"
BASIS_FOLDER = "tail_basis"
BASIS_FILE = f"{BASIS_FOLDER}/c.0.0"
STAGING = "staging"
SET_ASIDE = "set_aside"
FOLDERS = (COMMITS, STAGING, SET_ASIDE, BASIS_FOLDER)  # that may be there whatever the layout
LOCK = f"{STAGING}/lock"
CLAIMS = f"{STAGING}/claims"


def record_name(shard: int) -> str:
    """The name of a shard's commit record in its store."""
    return f"{COMMITS}/{shard:05}.json"


def staged(write_id: str, number: int) -> str:
    """The name of a write's file in staging."""
    return f"{STAGING}/{write_id}/{number}"
