"""What a command prints, errors, warnings and progress among it: nothing of it reaches a terminal as a control sequence.

Names in a store, a run or a folder are a stranger's. All that is written while a command runs passes
`softlabels.errors.visible`, so that no line of a stage can forget it; a line break inside a name is the business of whoever
prints the name.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from softlabels.errors import visible

_UP = re.compile(r"(\x1b\[A)+")  # how a progress bar reaches the one above it


@contextmanager
def visible_output() -> Iterator[None]:
    """While the block runs, stdout and stderr show what no terminal shows, and what their encoding lacks, as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with redirect_stdout(_of(sys.stdout)), redirect_stderr(_of(sys.stderr)):
        yield


class Visible:
    """A text stream whose text passes `visible`; in all else the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text as it is seen; a progress bar goes back to the begin of its line before it, after it, or both."""
        seen = text.strip("\r")
        if seen and not _UP.fullmatch(text):
            before, _, after = text.partition(seen)
            text = before + visible(seen) + after
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _of(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, Visible) else cast("TextIO", Visible(stream))
