"""The folder of a student run: which run it belongs to, its recipe, its results.

`run.json` is written first and says what run this is (settings and store digests); a folder that holds anything else is
refused. What a single student keeps in its own folder below is the trainer's business.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from blake3 import blake3

from softlabels.errors import DamagedRun, RunExists
from softlabels.names import renamed
from softlabels.report.comparison import comparison_markdown
from softlabels.store.differences import Difference, differences
from softlabels.store.durable import make_folder, write_atomically
from softlabels.student.config import deciding
from softlabels.student.runlog import finite
from softlabels_stages.run_files import read_object, read_results

RUN, RECIPE, RESULTS, PAGE = "run.json", "config.yaml", "results.json", "results.md"


class RunFolder:
    """An opened run folder; made by `RunFolder.open`.

    Attributes:
        path: the folder.
        results: what `results.json` holds; None while the run is unfinished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Any] | None = read_results(path) if (path / RESULTS).exists() else None

    @staticmethod
    def place(out: str | None, *, name: str, identity: Mapping[str, Any]) -> Path:
        """Where `open` begins or finds the run; nothing is touched."""
        if out:
            return Path(out)
        ours = Path(f"runs/{name}-{blake3(_text(identity).encode()).hexdigest(length=4)}")
        begun = [] if ours.exists() else sorted(ours.parent.glob(f"{glob.escape(name)}-*/{RUN}"))
        return next((run.parent for run in begun if _is(run, identity)), ours)

    @classmethod
    def open(cls, out: str | None, *, name: str, identity: Mapping[str, Any]) -> RunFolder:
        """Begin a run in `out`, or go on with it.

        Args:
            out: default runs/NAME-xxxxxxxx, the end being a digest of the identity; the folder of an earlier version's run of
                the same identity where there is one.
            identity: JSON values that tell this run from others.

        Raises:
            RunExists: `out` holds another run, naming the fields that differ, or something else.
        """
        text, path = _text(identity), cls.place(out, name=name, identity=identity)
        remedy = "give another --out, or leave it out: other settings then go to a folder of their own"
        if path.exists() and not path.is_dir():
            raise RunExists(f"{path} is a file, not a run folder", remedy=remedy)
        if (path / RUN).exists():
            different = _different(path / RUN, identity)
            if different:
                said = "; ".join(leaf.said() for leaf in different)
                raise RunExists(f"{path} holds another run: {said}", remedy=remedy)
            return cls(path)
        if path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise RunExists(f"{path} holds something that is no run", remedy=remedy)
        make_folder(path)
        write_atomically(path / RUN, f"{text}\n".encode())
        return cls(path)

    def keep_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write config.yaml, the recipe that repeats the run, where it is not there yet."""
        if not (self.path / RECIPE).exists():
            text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
            write_atomically(self.path / RECIPE, text.encode())

    def finish(self, results: Mapping[str, Any], *, store: str) -> None:
        """Write results.md, then results.json, whose presence says that the run is finished."""
        self.results = {"store": store, **cast(dict[str, Any], finite(results))}
        write_atomically(self.path / PAGE, comparison_markdown(self.results, title=self.path.name).encode())
        write_atomically(self.path / RESULTS, json.dumps(self.results, indent=1, allow_nan=False).encode())


def _is(run: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a folder beside ours holds this run; one that cannot be read is none of ours."""
    try:
        return not _different(run, identity)
    except DamagedRun:
        return False


def _different(run: Path, identity: Mapping[str, Any]) -> list[Difference]:
    """In what the run that `run` (a run.json) tells of differs from ours; names and settings of earlier versions are known."""
    standing = renamed(read_object(run, f"delete {run.parent} to train anew, or give another --out"))
    if isinstance(standing.get("training"), dict):  # of earlier versions, which counted every setting
        standing["training"] = deciding(standing["training"])
    return differences(standing, renamed(json.loads(_text(identity))))


def _text(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, indent=1, sort_keys=True)
