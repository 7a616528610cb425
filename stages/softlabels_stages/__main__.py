"""softlabels: run the teacher once, store its logits, and train students from the store at any temperature.

`softlabels <stage> ...` is the same as `python -m softlabels_stages.<stage>` (with underscores). A stage is imported only when
it is run, so that a light one (`info`) does not wait for a heavy one's imports.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from softlabels import __version__
from softlabels.errors import ConfigError
from softlabels_stages.run import command

STAGES = {
    "train-teacher": "train the recipe's teachers from hard labels, where their weights are not there yet",
    "teacher-logits": "run the teacher over the transfer set and store its logits",
    "train-student": "train students from the store, distilled and with hard labels, and compare them",
    "evaluate": "judge a student, or the stored teacher, on one split of a store",
    "correct": "correct a run's students for other shares of the classes",
    "export": "write a student as ONNX and torch.export, checked on real rows",
    "info": "say what a store is",
    "verify": "re-read a store and report every damaged or missing chunk",
    "repair": "set damaged shards aside, so that the command that made the store makes them again",
    "convert": "copy a store into the other layout",
    "encode": "encode a dense store's labels as topk, without a teacher",
    "cache": "say where prepared rows are kept and how large they are, or delete them",
    "import": "make a store from logits or probabilities that something else produced",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage with the arguments after its name; the exit code is the stage's."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: a recipe may name classes that stand here
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
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"give one of {', '.join(STAGES)}"
        raise ConfigError(f"unknown stage {stage!r}", remedy=remedy)
    module = importlib.import_module(f"softlabels_stages.{stage.replace('-', '_')}")
    code: int = module.main(rest)
    return code


def _help() -> str:
    lines = [(__doc__ or "").splitlines()[0], "", "usage: softlabels STAGE [--config RECIPE] [--KEY=VALUE ...]", ""]
    lines += [f"  {name:<15} {line}" for name, line in STAGES.items()]
    lines += ["", "softlabels STAGE --help says what a stage takes, softlabels --version which version this is."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
