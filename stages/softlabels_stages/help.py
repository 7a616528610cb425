"""What `--help` prints: the command's doc, then every key with its type, default and what its dataclass says of it.

A field's text stands with the field: as a line `name: text` in the dataclass's docstring, or as a comment beside it.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING

from softlabels_stages.schema import Key, is_list, is_mapping, shown, type_name

WIDTH = 110


def help_text(
    keys: Mapping[str, Key], *, stage: str, doc: str, sections: Sequence[str], positional: Sequence[str]
) -> str:
    """The help of one command: `keys` by flag name, those of a recipe's sections grouped under the section."""
    lists = {key.name for key in keys.values() if is_list(key.hint)}
    words = "".join(f"[{name.rstrip('_').upper()}{' ...' * (name in lists)}] " for name in positional)
    lines = [f"usage: softlabels {stage} {words}[--KEY=VALUE ...]", "", inspect.cleandoc(doc)]
    groups: dict[str, list[str]] = {"options": []}
    for flag, key in sorted(keys.items(), key=lambda entry: entry[1].name not in positional):  # those first
        section = key.name.partition(".")[0]
        title = f"section {section}: of the recipe, and its flags" if section in sections else "options"
        groups.setdefault(title, []).extend(_entry(flag, key))
    for title, entries in groups.items():
        lines += ["", title, *entries] if entries else []
    return "\n".join(lines)


@functools.cache  # read once for a class and not once for each of its fields: most of the time that help took
def field_help(cls: type) -> dict[str, str]:
    """What a dataclass and those that it extends say about their fields, by field name."""
    found: dict[str, str] = {}
    for base in cls.__mro__[1:-1]:
        found |= field_help(base)
    for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", inspect.cleandoc(cls.__doc__ or ""), re.MULTILINE):
        found[name] = " ".join(text.split())
    # The comment may stand on a later line of the field: where the line is too long, ruff puts the default on its own.
    beside = r"^    (\w+): [^#\n]*(?:\n    [ )][^#\n]*)*  # (.+)$"
    for name, text in re.findall(beside, inspect.getsource(cls), re.MULTILINE):
        found[name] = text.strip()
    return found


def _entry(flag: str, key: Key) -> list[str]:
    entry = f"  --{flag}" if key.hint is bool and not key.default else f"  --{flag}=<{type_name(key.hint)}>"
    own, *above = reversed(list(zip(key.name.split("."), key.owners, strict=True)))
    places = [
        own,
        *(above[:1] if own[0] == "class_path" else []),
    ]  # of a class_path: or of the object that it belongs to
    text = next((text for name, owner in places if (text := field_help(owner).get(name, ""))), "")
    if is_mapping(key.hint):
        text += f" (one entry: --{flag}.KEY=VALUE)"
    if key.default is MISSING:
        text += " (required)"
    elif key.default not in (None, "", (), {}):
        text += f" (default: {shown(key.default)})"
    indent = " " * 6
    return [entry, *textwrap.wrap(text.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent)]
