"""The commands: what each does in a line, and where its arguments are. Help is made of this, so nothing heavy is imported."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A command: what it does in a line, how its arguments are written (see `recipe.parse`), and the module of their class."""

    what: str
    positional: Sequence[str] = ()
    flat: Sequence[str] = ()
    home: str = "arguments"


COMMANDS = {
    "demo": Command("train teachers and students of digits that come with softlabels"),
    "train-teacher": Command(
        "train the recipe's teachers from hard labels, unless their weights are there", home="teacher_arguments"
    ),
    "teacher-logits": Command(
        "run the teacher over the transfer set and store its logits", ("store",), home="teacher_arguments"
    ),
    "plan": Command("say from a pilot what a teacher's pass would take", ("config",), home="teacher_arguments"),
    "extend": Command(
        "label the rows of a transfer set that a store lacks, into a new store", ("store",), home="teacher_arguments"
    ),
    "train-student": Command(
        "train students from the store, distilled and with hard labels, and compare them",
        ("store",),
        flat=("training",),
    ),
    "evaluate": Command("evaluate a student, or the stored teacher, on one split of a store", ("model",)),
    "report": Command("write an HTML page on a store and runs of students", ("store", "runs"), home="page_arguments"),
    "prune": Command(
        "delete the weights of a run's students that the loss needs least, and retrain the rest",
        ("from_",),
    ),
    "correct": Command("correct a run's students for other shares of the classes", ("from_",)),
    "export": Command("write a student as ONNX and torch.export, checked on real rows", ("from_",)),
    "info": Command("describe a store", ("store",)),
    "verify": Command("re-read a store and report every damaged or missing chunk", ("store",)),
    "repair": Command("set damaged shards aside; the command that made the store then makes them again", ("store",)),
    "convert": Command("copy a store into the other layout", ("from_", "store")),
    "encode": Command("encode a dense store's labels as topk, without a teacher", ("from_", "store")),
    "push": Command("push a store to an object store; what is there already is not sent again", ("store", "url")),
    "pull": Command("pull a store from an object store or a web server, and verify it", ("url", "store")),
    "sign": Command("sign a store, so that others can check who made it", ("store",)),
    "merge": Command("make the teachers of several stores the members of one", ("stores",)),
    "concat": Command("join the rows of several stores of one teacher", ("stores",)),
    "select": Command("take some rows, members, targets or splits out of a store", ("store",)),
    "diff": Command("compare two stores: fields, rows, hard labels, distributions", ("a", "b")),
    "list": Command("list the stores at an address, or check whether a pass is done already", ("url",)),
    "cache": Command("show where prepared rows are cached and how large they are, or delete them"),
    "import": Command("make a store from logits or probabilities that something else produced", ("from_", "store")),
    "export-labels": Command("write a store's labels as a file for other tools", ("store", "to")),
}


def arguments_of(stage: str) -> type:
    """The class of a command's arguments, which is called as the command is."""
    home = importlib.import_module(f"softlabels_stages.{COMMANDS[stage].home}")
    found: type = getattr(home, stage.title().replace("-", ""))
    return found
