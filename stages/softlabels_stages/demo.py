"""Show the whole walk on handwritten digits: train teachers, store their logits once, train students from the store.

All of it is in one folder: digits.yaml, the recipe; table.yaml, text.yaml and pictures.yaml, to change for data of your own;
data/, 1,797 digits of 8 x 8 pixels, which come with softlabels; runs/ and stores/, which the commands make. It takes a few
minutes of one core and no network. The commands are printed as you would type them. The same command continues where it was
stopped. Files that are there are left as they are, so edit digits.yaml and run `softlabels train-student` again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir
from importlib import resources
from pathlib import Path

from softlabels.errors import Interrupted
from softlabels.system.durable import system_errors
from softlabels.system.local import write_atomically
from softlabels.system.paths import local_path
from softlabels_stages import teacher_logits, train_student, train_teacher
from softlabels_stages.arguments import Demo
from softlabels_stages.run import say, should_stop, stage, suggested

RECIPE = "digits.yaml"
OWN = ("table.yaml", "text.yaml", "pictures.yaml")  # to be changed for data of the user's
DATA = "data/digits"
RUN = "runs/digits"
REPORTS = ("report.html", "README.md")  # of a run, the first that is there
_STORE = "--store=stores/digits"
_STEPS: tuple[tuple[str, Callable[[Sequence[str]], int], tuple[str, ...]], ...] = (
    ("train-teacher", train_teacher.main, ()),
    ("teacher-logits", teacher_logits.main, (_STORE,)),
    ("train-student", train_student.main, (_STORE, f"--out={RUN}")),
)


@stage("demo", resumable=True)
def main(args: Demo) -> int:
    """Lay the files out, and run one command after the other."""
    folder = Path(local_path(args.out))
    _lay_out(folder)
    with system_errors("open", folder), chdir(folder):
        say(f"teachers, labels and students of handwritten digits, in {folder}; the commands, as you would type them:")
        say(f"\n$ cd {shlex.quote(str(folder))}")
        for name, run, more in _STEPS:
            if should_stop():
                raise Interrupted("stopped between two commands", remedy="run the same command again to go on")
            words = [f"--config={RECIPE}", *more]
            say(f"\n$ {suggested(name, *words)}")
            if code := run(words):
                return code
    report = next(path for name in (*REPORTS, "") if (path := folder / RUN / name).exists())
    say(f"\nreport: {report}")
    say(
        f"next, with data of your own: in {folder} change table.yaml for a table, text.yaml for texts, pictures.yaml for"
    )
    say(
        f"pictures, or a copy of {RECIPE} for anything else, and run there: {suggested('train-teacher', '--config=table.yaml')}"
    )
    return 0


def _lay_out(folder: Path) -> None:
    """Write recipe and data where they are not there yet."""
    here = resources.files("softlabels_stages")
    files = {name: here / "configs" / name for name in (RECIPE, *OWN)}
    files |= {f"{DATA}/{each.name}": each for each in (here / "digits").iterdir()}
    for name, source in files.items():
        path = folder / name
        with system_errors("write", path):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, source.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
