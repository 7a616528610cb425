"""softlabels: run the teacher once, store its logits, and train students from the store at any temperature.

`softlabels <stage> ...` is the same as `python -m softlabels_stages.<stage>` (with underscores). A stage is imported only when
it is run: help, and a light one (`info`), do not wait for a heavy one's imports.
"""

from __future__ import annotations

import ast
import difflib
import gc
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from softlabels import __version__
from softlabels.errors import ConfigError
from softlabels_stages.commands import COMMANDS, arguments_of
from softlabels_stages.recipe import asks_help, print_help
from softlabels_stages.run import command

_END = (
    "",
    "First time: softlabels demo does all of it with digits, in a folder softlabels-demo, and leaves recipes there",
    "to change for your own data. With one of these: train-teacher, plan, teacher-logits and train-student, each with",
    "--config=RECIPE. Without a recipe: import a file of logits or probabilities, and train-student STORE.",
    "",
    "softlabels STAGE --help says what a stage takes, softlabels --version which version this is.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage with the arguments after its name; the exit code is the stage's."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"softlabels {__version__}")
        return 0
    return _run(arguments)


@command()
def _run(argv: Sequence[str] | None = None) -> int:
    stage, *rest = argv or ()
    if stage not in COMMANDS:
        near = difflib.get_close_matches(stage, COMMANDS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"give one of {', '.join(COMMANDS)}"
        raise ConfigError(f"unknown stage {stage!r}", remedy=remedy)
    module = stage.replace("-", "_")
    if asks_help(rest):  # without the module, whose imports take seconds
        source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        doc, (_, positional, flat, _) = ast.get_docstring(ast.parse(source)), COMMANDS[stage]
        print_help(arguments_of(stage), stage=stage, doc=doc, positional=positional, flat=flat)
        return 0
    code: int = _imported(f"softlabels_stages.{module}").main(rest)
    return code


def _imported(name: str) -> ModuleType:
    """The module of that name. Its first import goes without the search for garbage, and every later search leaves out what it
    made, which stays as long as the process does: a stage that takes torch starts and ends a quarter sooner.
    """
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _help() -> str:
    lines = [(__doc__ or "").splitlines()[0], "", "usage: softlabels STAGE [--config RECIPE] [--KEY=VALUE ...]", ""]
    lines += [f"  {name:<15} {found.what}" for name, found in COMMANDS.items()]
    return "\n".join([*lines, *_END])


if __name__ == "__main__":
    sys.exit(main())
