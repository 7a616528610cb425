"""What every command does around its work: errors become one line and an exit code, signals become a flag.

`command` wraps a stage's `main`; `stage` parses its arguments too. They know nothing of what a stage does; the tree of errors
is `softlabels.errors`.
Exit codes: 0 done, 2 the user's error, 3 a damaged store, 4 stores that differ (`diff`), 74 an I/O error, 75 stopped but
resumable, 130 Ctrl-C in a command that has nothing to resume, 141 nobody reads its output any more, as in `| head`; what no
rule foresaw is `unexpected`'s business: an error of a user's own code keeps its traceback.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from softlabels.errors import ConfigError, Interrupted, SoftLabelsError, Stalled, one_line
from softlabels.jobs.watch import Watch
from softlabels.objects import one_command
from softlabels_stages import beside
from softlabels_stages.commands import COMMANDS, arguments_of
from softlabels_stages.output import visible_output
from softlabels_stages.recipe import parse
from softlabels_stages.recipe_keys import in_recipe
from softlabels_stages.unexpected import foreseen, lack

BROKEN_PIPE = 128 + signal.SIGPIPE
LAUNCHER = "SOFTLABELS_LAUNCHER"  # in the environment of processes that a command has started together: its process id

_TOGETHER = (
    1.0  # seconds within which several signals are one: a scheduler sends them to all, and torchrun hands its own on
)
_stop = threading.Event()
_stopped_at = 0.0


Main = Callable[..., int]  # a stage: arguments (default: this process's) in, exit code out


def should_stop() -> bool:
    """Whether SIGTERM or SIGINT arrived: a long loop asks after each step, saves what it has and raises Interrupted."""
    return _stop.is_set()


def say(line: str) -> None:
    """Print what is done, at once."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print a line on what may be wrong on standard error."""
    print(line, file=sys.stderr)


PRINTED = Watch(say, warn)  # for what nothing stops


def suggested(*words: object) -> str:
    """A command of ours with these words, as this user types it into a shell: by its name, or by its path where it stands in an
    environment that is not active.
    """
    own = Path(sys.executable).with_name("softlabels")
    program = "softlabels" if shutil.which("softlabels") or not own.exists() else os.path.relpath(own)
    return shlex.join([program, *map(str, words)])


def of_recipe(words: Sequence[str], *sections: str) -> list[str]:
    """Those of a command's words that another one about the same recipe takes too: the recipe, and keys of these sections."""
    begins = ("--config=", *(f"--{section}." for section in sections))
    return [word for word in words if word.startswith(begins) and "=" in word]


def suggested_python(code: str) -> str:
    """A line of Python as this user types it into a shell: for the environment that runs now, active or not."""
    is_active = Path(shutil.which("python") or "").parent == Path(sys.executable).parent
    return shlex.join(["python" if is_active else os.path.relpath(sys.executable), "-c", code])


def command(*, resumable: bool = False, settings: str = "labels.") -> Callable[[Main], Main]:
    """Turn a stage's `main(argv) -> exit code` into a command. `settings` stands before the names of the settings of labels
    in messages, as `recipe_keys.in_recipe` says.

    A `resumable` command hears the first SIGTERM or SIGINT as `should_stop()` and ends by itself; a second one ends it
    at once with 75, which is safe because whatever it had committed or saved stays as it is.
    """

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        @visible_output()
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                with one_command(), _signals_as_flag() if resumable else nullcontext():
                    return main(argv)
            except Stalled as error:
                code = _report(error)
                sys.stdout.flush()
                os._exit(code)  # the end of the interpreter would wait for the thread that hangs
            except SoftLabelsError as error:
                return _report(lack(error.__cause__) or in_recipe(error, settings))
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has nowhere to go
                return BROKEN_PIPE
            except Exception as error:
                found = foreseen(error)
                if found is None:
                    raise
                return _report(found)
            except KeyboardInterrupt:
                if resumable:
                    return _report(Interrupted("stopped by Ctrl-C", remedy="run the same command again to resume"))
                print("stopped by Ctrl-C", file=sys.stderr)
                return 130

        return run

    return wrap


def stage(
    name: str, *, resumable: bool = False, settings: str = "labels.", takes_words: bool = False
) -> Callable[[Callable[..., int]], Main]:
    """A `command` whose words are parsed as `COMMANDS` says; its `main` takes the arguments, and the words where it says so."""

    def wrap(main: Callable[..., int]) -> Main:
        @command(resumable=resumable, settings=settings)
        def run(argv: Sequence[str] | None = None) -> int:
            doc, (_, positional, flat, _) = sys.modules[main.__module__].__doc__, COMMANDS[name]
            args: Any = parse(argv, arguments_of(name), stage=name, doc=doc, positional=positional, flat=flat)
            if positional[:1] == ("store",) and not args.store:
                raise ConfigError("no store is named", remedy=f"write softlabels {name} STORE")
            words = [*(sys.argv[1:] if argv is None else argv)]
            return main(args, words) if takes_words else main(args)

        return run

    return wrap


def _report(error: SoftLabelsError) -> int:
    if not error.is_said:  # by another of several processes
        print(f"{type(error).__name__}: {one_line(error, None)}{beside.hint(str(error))}", file=sys.stderr, flush=True)
    return error.exit_code


@contextmanager
def _signals_as_flag() -> Iterator[None]:
    _stop.clear()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    # os.write and os._exit: print and exit handlers may be in the middle of the same thing in the interrupted frame.
    global _stopped_at
    name = signal.Signals(number).name
    if _stop.is_set() and "RANK" in os.environ and time.monotonic() < _stopped_at + _TOGETHER:
        return
    if _stop.is_set():
        os.write(2, f"\nInterrupted: second {name}; run the same command again to resume\n".encode())
        os._exit(Interrupted.exit_code)
    _stop.set()
    _stopped_at = time.monotonic()
    if os.environ.get("RANK", "0") == "0" and LAUNCHER not in os.environ:  # of several processes one says it
        os.write(2, f"\n{name}: stopping cleanly; a second one stops at once\n".encode())
