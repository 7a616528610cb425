"""Errors become one line and an exit code; signals become a flag."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from softlabels import errors
from softlabels_stages import run
from softlabels_stages.__main__ import main
from softlabels_stages.commands import COMMANDS
from softlabels_stages.run import BROKEN_PIPE, command
from tests.stages import toy

ROOT = Path(__file__).parent.parent.parent
LOOP = """
    import sys, time
    from softlabels.errors import Interrupted
    from softlabels_stages.run import command, should_stop

    @command(resumable=True)
    def main(argv=None):
        print("started", flush=True)
        for step in range(600):
            if should_stop() and "deaf" not in sys.argv:
                print("saved at a step", flush=True)
                raise Interrupted("stopped by a signal", remedy="run it again")
            time.sleep(0.05)
        return 0

    sys.exit(main())
"""


def raising(error: BaseException) -> int:
    @command()
    def stage(argv: Sequence[str] | None = None) -> int:
        raise error

    return stage([])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.ConfigError("T is 0", remedy="give more"), 2, "ConfigError: T is 0; give more"),
        (errors.DamagedShard("shard 3\n is cut", remedy="verify"), 3, "DamagedShard: shard 3 is cut; verify"),
        (errors.Interrupted("stopped", remedy="go on"), 75, "Interrupted: stopped; go on"),
        (OSError(errno.ENOSPC, "No space left on device"), 75, "DiskFull: no room to write: "),
        (OSError(errno.EDQUOT, "Quota exceeded"), 75, "DiskFull: "),
        (OSError(errno.EFBIG, "File too large"), 75, "DiskFull: "),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 74, "StorageError: PermissionError: "),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_output_that_nobody_reads_any_more_ends_it_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    asked = [sys.executable, "-m", "softlabels_stages", "evaluate", "--help"]
    done = subprocess.run(asked, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_only_the_import_of_a_stage_goes_without_the_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "softlabels_stages.info", raising=False)
    left_out = gc.get_freeze_count()
    assert main(["info", "nowhere"]) == 2
    assert gc.get_freeze_count() > left_out
    assert gc.isenabled()


def test_a_mistake_of_ours_is_one_line_that_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert raising(ZeroDivisionError("no parts")) == 1
    error = capsys.readouterr().err
    assert error.startswith("Unexpected: ZeroDivisionError in test_run.py, line ")
    assert error.endswith(
        ": no parts; this is a mistake of softlabels: report it with the traceback that SOFTLABELS_TRACEBACK=1 shows\n"
    )
    monkeypatch.setenv("SOFTLABELS_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())


@pytest.mark.parametrize("error", [ZeroDivisionError("theirs"), FileNotFoundError(errno.ENOENT, "no table")])
def test_what_a_users_function_raises_keeps_its_traceback(error: Exception) -> None:
    @command()
    def stage(argv: Sequence[str] | None = None) -> int:
        def prepare() -> None:  # this file is neither ours nor a library's
            raise error

        prepare()
        return 0

    with pytest.raises(type(error)):
        stage([])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EMFILE, "Too many open files", "x"), "raise the limit of open files (ulimit -n 1024)"),
        (MemoryError(), "OutOfResources: there is not enough memory: MemoryError; give the process more (ulimit -v"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "OutOfResources: there is not enough memory: Def"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "OutOfResources: there is not enough memory"),
        (RuntimeError("can't start new thread"), "OutOfResources: the system cannot start more threads"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "OutOfResources: "),
    ],
)  # fmt: skip
def test_what_the_system_lacks_is_a_line_with_a_remedy(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen to fail: a traceback, and for open files "check that the path exists"."""

    @command()
    def wrapped(argv: Sequence[str] | None = None) -> int:
        raise errors.ConfigError("the student cannot take it", remedy="change init_args") from error

    assert raising(error) == 74
    assert wrapped([]) == 74
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line in one for one in said)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_text_can_be_printed(encoding: str) -> None:
    """Seen to fail: a path that is not UTF-8 ended in a UnicodeEncodeError, and terminals obeyed what it said."""
    code = r"""
        import sys
        from softlabels_stages.run import command

        @command()
        def main(argv=None):
            print("a\udcffb ± \ud800\x1b[2J\u202e")
            return 0

        sys.exit(main())
    """
    asked = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(asked, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    shown = "±".encode() if encoding == "utf-8" else b"\\xb1"
    assert (done.returncode, done.stdout) == (0, b"a\\xffb " + shown + b" \\ud800\\x1b[2J\\u202e\n"), done.stderr


def start(*words: str) -> subprocess.Popen[str]:
    code = [sys.executable, "-c", textwrap.dedent(LOOP), *words]
    loop = subprocess.Popen(code, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert loop.stdout is not None
    assert loop.stdout.readline() == "started\n"
    return loop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_loop_finish(number: signal.Signals) -> None:
    loop = start()
    loop.send_signal(number)
    out, err = loop.communicate(timeout=200)
    assert (loop.returncode, out) == (75, "saved at a step\n")
    assert f"{number.name}: stopping cleanly" in err
    assert err.endswith("Interrupted: stopped by a signal; run it again\n")


def test_the_second_signal_stops_at_once() -> None:
    loop = start("deaf")
    loop.send_signal(signal.SIGTERM)
    assert loop.stderr is not None
    while "stopping cleanly" not in loop.stderr.readline():
        pass
    loop.send_signal(signal.SIGTERM)
    out, err = loop.communicate(timeout=200)
    assert (loop.returncode, out) == (75, "")
    assert "run the same command again" in err


def test_of_processes_together_several_signals_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(run, "_stop", threading.Event())
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for _ in range(3):
        run._on_signal(signal.SIGTERM, None)
    assert ended == []
    monkeypatch.setattr(run, "_stopped_at", run._stopped_at - 60)
    run._on_signal(signal.SIGTERM, None)
    assert ended == [75]


def test_help_lists_every_stage_and_each_is_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for stage, (line, *_) in COMMANDS.items():
        assert f"{stage:<15} {line}" in text
        assert (ROOT / "stages" / "softlabels_stages" / f"{stage.replace('-', '_')}.py").is_file()
    assert "First time: softlabels demo" in text


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"softlabels {version('softlabels')}\n"


def test_an_unknown_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-studnet"]) == 2
    assert capsys.readouterr().err == "ConfigError: unknown stage 'train-studnet'; did you mean train-student?\n"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "softlabels_stages"],
        pytest.param(
            ["-c", "from softlabels_stages.__main__ import main; raise SystemExit(main())"], marks=pytest.mark.slow
        ),
    ],
)
def test_a_recipe_may_name_classes_of_the_current_folder(work: Path, command: list[str]) -> None:
    (work / "mine.py").write_text("print('imported')")
    toy.write_recipe(work / "recipe.yaml", student={"class_path": "mine.Net"})
    toy.write_store(work / "store")
    words = ["train-student", "--config=recipe.yaml", "--store=store"]
    script = [sys.executable, "-P", *command] if command[0] == "-c" else [sys.executable, *command]
    done = subprocess.run([*script, *words], cwd=work, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "imported\n")
    assert "mine.Net not found: mine has no 'Net'" in done.stderr
