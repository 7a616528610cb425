"""Text of unknown origin on a terminal, in a page or in a message: it is seen, and nothing obeys it.

Names of teachers, classes, splits and files may come from a stranger's store, and an error may repeat them. Every error's text
passes `one_line`, all that a command prints `visible`; `store.markdown` adds what pages need. Imports nothing of ours.
"""

from __future__ import annotations

import re

LONGEST = 200  # characters of one name
_BREAKS = re.compile(r"[^\S ]+")  # blanks other than the space: line breaks, tabs, wide spaces


def visible(text: str) -> str:
    r"""The text with an escape, such as `\x1b`, in the place of each character that is not seen or that a terminal obeys: of
    control sequences, reversed writing, half surrogates. The byte 0xff of a name that is not UTF-8 is `\xff`. Line breaks and
    tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else _escape(each) for each in text)


def one_line(text: object, longest: int | None = LONGEST) -> str:
    """The same on one line, cut to its first `longest` characters: a line break, and the blanks around it, is a space."""
    words = str(text) if longest is None else str(text)[: 4 * longest]
    line = visible(" ".join(filter(None, (part.strip() for part in _BREAKS.split(words)))))
    return line if longest is None or len(line) <= longest else line[: longest - 3] + "..."


def _escape(character: str) -> str:
    if character.isspace() and ord(character) > 0xFF:
        return " "
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte, as Python writes names that are not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
