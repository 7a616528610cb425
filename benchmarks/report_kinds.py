"""Small stores and runs of recipes, and their reports, one of each kind that a page shows; for `report_pages`.

The trainings are shorter than the recipes' own, and see some of the rows: a page holds as much, its scores are worse.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Kind:
    """A recipe.

    Attributes:
        shows: what its rows are.
        data: the folder of its rows, in the folder of all; "" of none. at: the option that names it.
        every: options of all commands. teacher: of `train-teacher`, None where nothing is trained. student: of `train-student`.
    """

    shows: str
    data: str = ""
    at: str = "--transfer_set.source"
    every: Sequence[str] = ()
    teacher: Sequence[str] | None = ()
    student: Sequence[str] = ()


_FACTORY = "--transfer_set.factory.init_args.source"
_SPEAKERS = "--transfer_set.splits={train: george+jackson, test: theo}"
KINDS = {
    "digits": Kind("pictures, three members, two students", "digits", teacher=["--teacher_training.epochs=5"]),
    "ag_news": Kind(
        "texts", "ag_news",
        every=["--transfer_set.splits={train: 'train[:5000]', test: 'test[:2000]'}"],
        teacher=["--teacher_training.epochs=2"], student=["--epochs=2"],
    ),
    "lm": Kind(
        "a language model: rows of 128 tokens, 8,192 classes, topk", "wikitext-2",
        every=["--transfer_set.splits={train: 'validation[:600]', test: 'test[:300]'}"],
        teacher=["--teacher_training.epochs=1"], student=["--epochs=1"],
    ),
    "detect": Kind(
        "a class and a box for each of 300 cells", "bccd", _FACTORY,
        teacher=["--teacher_training.epochs=3"], student=["--epochs=3"],
    ),
    "clone": Kind("values", teacher=None, every=["--transfer_set.factory.init_args.episodes=10"], student=["--epochs=3"]),
    "speech": Kind(
        "sound, clip by clip", "free_spoken_digit", every=[_SPEAKERS],
        teacher=["--teacher_training.epochs=4"], student=["--epochs=3"],
    ),
    "speech_frames": Kind(
        "sound, frame by frame", "free_spoken_digit", _FACTORY, every=[_SPEAKERS], teacher=None, student=["--epochs=3"]
    ),
}  # fmt: skip  # speech_frames takes the teachers of speech


def make(name: str, data: Path, out: Path) -> Path:
    """The report of a recipe in the folder `out`, made where it is not there.

    Args:
        name: of the recipe.
        data: a folder with the folders `ag_news`, `wikitext-2`, `bccd` and `free_spoken_digit` of Parquet files.
        out: where stores and runs go too.

    Raises:
        CalledProcessError: a command failed; it has said why.
    """
    kind, page = KINDS[name], out / f"{name}.html"
    if page.is_file():
        return page
    rows = (ROOT / "data" if kind.data == "digits" else data).resolve() / kind.data
    recipe = [f"--config={name}", *kind.every, *([f"{kind.at}={rows}"] if kind.data else [])]
    store, run = f"stores/{name}", f"runs/{name}"
    out.mkdir(parents=True, exist_ok=True)
    if kind.teacher is not None:
        _command(out, "train-teacher", *recipe, *kind.teacher)
    _command(out, "teacher-logits", *recipe, f"--store={store}")
    _command(
        out, "train-student", *recipe, f"--store={store}", f"--out={run}", "--seeds=0", "--baseline=true", *kind.student
    )
    _command(out, "report", store, run, *recipe, f"--out={name}.html")
    return page


def _command(folder: Path, *words: str) -> None:
    environment = os.environ | {"SOFTLABELS_REPORT": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "softlabels_stages", *words], cwd=folder, env=environment, check=True)  # noqa: S603
